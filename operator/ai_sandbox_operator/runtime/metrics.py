"""Prometheus metrics of the operator's own work; those of the sandboxes are in sandbox_metrics.py.

Nothing here costs a request: counters are fed by what happens anyway, gauges are read at a scrape. Labels hold
names, kinds and reasons, never what a person or a Secret says (I6).
"""

from __future__ import annotations

import prometheus_client as prometheus

REGISTRY = prometheus.CollectorRegistry()

#: How a pass, or a question to the hub, ended well.
OK = "ok"
ERROR = "error"
#: A pass went to its end, but the API server refused some of it or did not answer.
REFUSED = "refused"

PASSES = prometheus.Histogram(
    "ai_sandbox_reconcile_seconds",
    "Duration of passes over a sandbox; outcome is ok, refused (the API server refused some of it) or error.",
    ["outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=REGISTRY,
)
QUEUE_DEPTH = prometheus.Gauge("ai_sandbox_queue_depth", "Sandboxes that wait for a pass.", registry=REGISTRY)
QUEUE_OLDEST = prometheus.Gauge(
    "ai_sandbox_queue_oldest_seconds",
    "Seconds for which the sandbox that waits longest for a pass has waited.",
    registry=REGISTRY,
)
SANDBOXES = prometheus.Gauge("ai_sandbox_sandboxes", "AISandbox objects known.", registry=REGISTRY)
KUBERNETES_REQUESTS = prometheus.Counter(
    "ai_sandbox_kubernetes_requests",
    "Requests to the API server by verb: get, list; the writes are create, apply, patch, update and delete; "
    "status 0 is no answer.",
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
LINODE_BUDGET = prometheus.Gauge(
    "ai_sandbox_linode_budget_requests",
    "Requests to Linode's API that could be sent at once, for collections and for the rest; 0 while it says to wait.",
    ["route_class"],
    registry=REGISTRY,
)
LINODE_CIRCUIT = prometheus.Gauge(
    "ai_sandbox_linode_circuit_open",
    "1 while Linode's API is not asked, because it did not answer several times in a row.",
    registry=REGISTRY,
)
HUB_REQUESTS = prometheus.Counter(
    "ai_sandbox_hub_requests",
    "Models looked up on the hub by the operator; outcome is ok or the failure.",
    ["outcome"],
    registry=REGISTRY,
)
REPAIRS = prometheus.Counter(
    "ai_sandbox_firewall_repairs", "Drifts of Cloud Firewalls that were repaired.", registry=REGISTRY
)
WATCH_EVENTS = prometheus.Counter(
    "ai_sandbox_watch_events", "Events that the watches delivered.", ["kind"], registry=REGISTRY
)
RESYNC_AGE = prometheus.Gauge(
    "ai_sandbox_resync_age_seconds",
    "Seconds since the last complete comparison with the API server.",
    registry=REGISTRY,
)
LEADER = prometheus.Gauge("ai_sandbox_leader", "1 while this process is the leader.", registry=REGISTRY)
prometheus.ProcessCollector(registry=REGISTRY)

for _outcome in (OK, REFUSED, ERROR):
    PASSES.labels(_outcome)


def render() -> bytes:
    """The text exposition."""
    return prometheus.generate_latest(REGISTRY)
