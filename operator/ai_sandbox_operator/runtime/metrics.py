"""Prometheus metrics of the operator."""

from __future__ import annotations

import prometheus_client as prometheus

REGISTRY = prometheus.CollectorRegistry()

PASSES = prometheus.Histogram(
    "ai_sandbox_reconcile_seconds",
    "Duration of passes over a sandbox.",
    ["outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
QUEUE_DEPTH = prometheus.Gauge("ai_sandbox_queue_depth", "Sandboxes that wait for a pass.", registry=REGISTRY)
SANDBOXES = prometheus.Gauge("ai_sandbox_sandboxes", "AISandbox objects known.", registry=REGISTRY)
KUBERNETES_REQUESTS = prometheus.Counter(
    "ai_sandbox_kubernetes_requests",
    "Requests to the API server; status 0 is no answer.",
    ["verb", "kind", "status"],
    registry=REGISTRY,
)
LINODE_REQUESTS = prometheus.Counter(
    "ai_sandbox_linode_requests",
    "Requests to Linode's API; status 0 is no answer.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
LINODE_SECONDS = prometheus.Histogram(
    "ai_sandbox_linode_request_seconds", "Duration of requests to Linode's API.", registry=REGISTRY
)
REPAIRS = prometheus.Counter(
    "ai_sandbox_firewall_repairs", "Drifts of Cloud Firewalls that were repaired.", registry=REGISTRY
)
MISSED_EVENTS = prometheus.Gauge(
    "ai_sandbox_missed_events", "Changes that a watch did not deliver and a resync found.", registry=REGISTRY
)
RESYNC_AGE = prometheus.Gauge(
    "ai_sandbox_resync_age_seconds", "Seconds since the last complete resync.", registry=REGISTRY
)
LEADER = prometheus.Gauge("ai_sandbox_leader", "1 while this process is the leader.", registry=REGISTRY)
prometheus.ProcessCollector(registry=REGISTRY)


def render() -> bytes:
    """The text exposition."""
    return prometheus.generate_latest(REGISTRY)
