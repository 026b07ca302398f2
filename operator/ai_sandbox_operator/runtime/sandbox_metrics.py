"""What is told of each sandbox, read from the watch's view at a scrape.

Nothing is kept here, so a sandbox that is gone is gone from the metrics, and nothing is asked of anybody (I4). Only
the leader tells: it is the one whose status writes are current, and two replicas would count everything twice.
Numbers, names and reasons alone are told, never a message or a value of the spec that a person wrote (I6).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import registry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ai_sandbox_operator.api.conditions import ConditionType, Reason

STATUSES = ("True", "False", "Unknown")
_NAMES = ("namespace", "name")
_TYPES = frozenset(ConditionType)
_REASONS = frozenset(reason.name for reason in Reason)

Body = Mapping[str, Any]
"""An AISandbox as stored: metadata, spec, status."""


def families(bodies: Iterable[Body]) -> list[Metric]:
    """All series of these sandboxes; at most about 50 of each, whatever the objects say."""
    condition = GaugeMetricFamily(
        "ai_sandbox_status_condition",
        "1 for the status that a condition has, 0 for the others.",
        labels=(*_NAMES, "type", "status"),
    )
    reason = GaugeMetricFamily(
        "ai_sandbox_status_reason",
        "1 for the reason of each condition; docs/troubleshooting.md explains them.",
        labels=(*_NAMES, "type", "reason"),
    )
    transition = GaugeMetricFamily(
        "ai_sandbox_status_transition_timestamp_seconds",
        "When the condition's status last changed, in seconds since 1970.",
        labels=(*_NAMES, "type"),
    )
    plain = {
        name: GaugeMetricFamily(name, help_text, labels=_NAMES)
        for name, help_text in (
            ("ai_sandbox_created_timestamp_seconds", "When the sandbox was created, in seconds since 1970."),
            ("ai_sandbox_status_current", "1 if the status is of the current spec."),
            (
                "ai_sandbox_access_proven",
                "1 if every layer was observed to hold the allowlist and keys of the current spec.",
            ),
            ("ai_sandbox_model_bytes", "Size of the model's files, once it is known."),
            ("ai_sandbox_model_downloaded_bytes", "Bytes of the model that are in the cache."),
            ("ai_sandbox_gpus_requested", "GPUs that the spec asks for; 0 while it is suspended."),
            ("ai_sandbox_gpus_ready", "GPUs of an engine that was observed to answer."),
        )
    }
    for body in bodies:
        names = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
        for held in _conditions(body).values():
            for status in STATUSES:
                condition.add_metric((*names, held["type"], status), float(held.get("status") == status))
            if held.get("reason") in _REASONS:
                reason.add_metric((*names, held["type"], held["reason"]), 1)
            if (at := _seconds(held.get("lastTransitionTime"))) is not None:
                transition.add_metric((*names, held["type"]), at)
        for name, value in _values(body):
            plain[name].add_metric(names, value)
    return [condition, reason, transition, *plain.values()]


def _values(body: Body) -> Iterator[tuple[str, float]]:
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = _conditions(body)
    if (created := _seconds(metadata.get("creationTimestamp"))) is not None:
        yield "ai_sandbox_created_timestamp_seconds", created
    generation = metadata.get("generation")
    yield "ai_sandbox_status_current", float(status.get("observedGeneration") == generation)
    protected = conditions.get(ConditionType.NETWORK_PROTECTED, {})
    proven = protected.get("status") == "True" and protected.get("observedGeneration") == generation
    yield "ai_sandbox_access_proven", float(proven)
    model = status.get("model") or {}
    if "sizeBytes" in model:
        yield "ai_sandbox_model_bytes", float(model["sizeBytes"])
        yield "ai_sandbox_model_downloaded_bytes", float(model.get("downloadedBytes", 0))
    suspended = (spec.get("lifecycle") or {}).get("state") == "Suspended"
    gpus = 0.0 if suspended else float((spec.get("gpu") or {}).get("count", 1))
    ready = conditions.get(ConditionType.ENGINE_READY, {}).get("status") == "True"
    yield "ai_sandbox_gpus_requested", gpus
    yield "ai_sandbox_gpus_ready", gpus if ready else 0.0


def _conditions(body: Body) -> dict[str, Mapping[str, Any]]:
    """By type; another writer's types are left out, so that labels stay few."""
    listed = (body.get("status") or {}).get("conditions") or []
    return {held["type"]: held for held in listed if held.get("type") in _TYPES}


def _seconds(text: str | None) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


class Collector(registry.Collector):
    """Reads at each scrape, in a thread beside the loop: what the arguments return must not change afterwards.

    Args:
        bodies: all sandboxes.
        leading: whether this process is the leader.
        repairs: children by kind that somebody else had changed and that were written as before.
        missed: changes that a resync found; both since the start.
    """

    def __init__(
        self,
        *,
        bodies: Callable[[], Iterable[Body]],
        leading: Callable[[], bool],
        repairs: Callable[[], Mapping[str, int]],
        missed: Callable[[], int],
    ) -> None:
        self._bodies = bodies
        self._leading = leading
        self._repairs = repairs
        self._missed = missed

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        repairs = CounterMetricFamily(
            "ai_sandbox_child_repairs",
            "Objects of sandboxes that somebody else had changed and that were written as before.",
            labels=("kind",),
        )
        for kind, count in sorted(self._repairs().items()):
            repairs.add_metric((kind,), count)
        yield repairs
        yield CounterMetricFamily(
            "ai_sandbox_missed_events",
            "Changes that a watch did not deliver and a resync found.",
            value=self._missed(),
        )
        yield from families(self._bodies() if self._leading() else ())
