"""What is told of each sandbox, and the hooks that feed the rest."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.linode import budget
from ai_sandbox_operator.runtime import queue, sandbox_metrics, store

KEY = {"namespace": "team", "name": "mistral"}


def sandbox(*, name: str = "mistral", generation: int = 3, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "generation": generation}
    return {
        "metadata": {**metadata, "creationTimestamp": "2026-01-01T00:00:10Z"},
        "spec": {},
        "status": status,
    }


def condition(type_: str, status: str, reason: str, *, observed: int = 3) -> dict[str, Any]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": "the token hf_abcdef is bad",
        "observedGeneration": observed,
        "lastTransitionTime": "2026-01-01T00:00:20Z",
    }


def read(*bodies: Mapping[str, Any], leading: bool = True) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(
        sandbox_metrics.Collector(
            bodies=lambda: bodies, leading=lambda: leading, repairs=lambda: {"Service": 2}, missed=lambda: 5
        )
    )
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"ai_sandbox_{name}", {**KEY, **labels})


def test_exactly_one_status_of_a_condition_is_1() -> None:
    found = read(sandbox(conditions=[condition("Ready", "Unknown", "Progressing")]))
    told = {s: value(found, "status_condition", type="Ready", status=s) for s in sandbox_metrics.STATUSES}
    assert told == {"True": 0, "False": 0, "Unknown": 1}
    assert value(found, "status_reason", type="Ready", reason="Progressing") == 1


def test_times_are_seconds_since_1970() -> None:
    found = read(sandbox(conditions=[condition("Ready", "True", "AllReady")]))
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert value(found, "created_timestamp_seconds") == start + 10
    assert value(found, "status_transition_timestamp_seconds", type="Ready") == start + 20


def test_access_is_proven_only_for_the_current_generation() -> None:
    old = condition("NetworkProtected", "True", "Protected", observed=2)
    now = condition("NetworkProtected", "True", "Protected", observed=3)
    no = condition("NetworkProtected", "False", "GatewayUnproven", observed=3)
    assert [value(read(sandbox(conditions=c)), "access_proven") for c in ([old], [now], [no], [])] == [
        0,
        1,
        0,
        0,
    ]


def test_the_status_is_current_only_for_the_current_generation() -> None:
    found = [value(read(sandbox(observedGeneration=g)), "status_current") for g in (2, 3)]
    assert found == [0, 1]


def test_progress_is_told_once_the_size_is_known() -> None:
    assert value(read(sandbox(model={})), "model_bytes") is None
    found = read(sandbox(model={"sizeBytes": 10, "downloadedBytes": 4}))
    assert (value(found, "model_bytes"), value(found, "model_downloaded_bytes")) == (10, 4)


def test_gpus_are_those_of_the_spec_and_none_while_it_is_suspended() -> None:
    running = sandbox(conditions=[condition("EngineReady", "True", "EngineServing")])
    running["spec"] = {"gpu": {"count": 2}}
    starting = {**running, "status": {}}
    suspended = {**running, "spec": {"gpu": {"count": 2}, "lifecycle": {"state": "Suspended"}}}
    found = [
        (value(read(body), "gpus_requested"), value(read(body), "gpus_ready"))
        for body in (running, starting, suspended)
    ]
    assert found == [(2, 2), (2, 0), (0, 0)]


def test_a_sandbox_that_is_gone_leaves_nothing_behind() -> None:
    seen = store.Store()
    registry = CollectorRegistry()
    registry.register(
        sandbox_metrics.Collector(
            bodies=seen.bodies, leading=lambda: True, repairs=lambda: seen.repairs, missed=lambda: 0
        )
    )
    body = sandbox(conditions=[condition("Ready", "True", "AllReady")])
    body["metadata"] |= {"uid": "u1", "resourceVersion": "5"}
    seen.observe(kinds.SANDBOX, "ADDED", body)
    assert value(registry, "status_current") is not None
    body["metadata"]["resourceVersion"] = "6"
    seen.observe(kinds.SANDBOX, "DELETED", body)
    assert [s for family in registry.collect() for s in family.samples if "name" in s.labels] == []


def test_a_standby_tells_nothing_of_sandboxes() -> None:
    found = read(sandbox(), leading=False)
    assert [s for family in found.collect() for s in family.samples if "name" in s.labels] == []
    assert found.get_sample_value("ai_sandbox_child_repairs_total", {"kind": "Service"}) == 2
    assert found.get_sample_value("ai_sandbox_missed_events_total") == 5


def test_no_message_and_no_foreign_word_becomes_a_label_i6() -> None:
    """A status can be written by whoever has the right; it must not make labels without end."""
    held = [condition("Ready", "True", "token-hf_abcdef"), condition("hf_abcdef", "True", "AllReady")]
    told = [s for family in read(sandbox(conditions=held)).collect() for s in family.samples]
    assert "hf_abcdef" not in str(told)
    assert len(told) < 60


def test_the_age_of_the_queue_is_that_of_the_key_that_waits_longest() -> None:
    now = 100.0
    work: queue.WorkQueue[str] = queue.WorkQueue(clock=lambda: now)
    assert work.oldest == 0
    work.add("a")
    now = 107.0
    work.add("b")
    work.add("a")
    assert work.oldest == 7


def test_the_budget_tells_what_is_left_and_nothing_while_linode_says_to_wait() -> None:
    now = 0.0
    spent = budget.Budget(clock=lambda: now, wall=lambda: now)
    before = spent.left(budget.CallClass.COLLECTION)
    spent.reserve(budget.CallClass.COLLECTION, max_wait=0)
    assert spent.left(budget.CallClass.COLLECTION) == before - 1
    spent.pause(budget.CallClass.COLLECTION, 30)
    assert spent.left(budget.CallClass.COLLECTION) == 0
    now = 31.0
    assert spent.left(budget.CallClass.COLLECTION) == before


class Child:
    """A Service of the sandbox, written and seen."""

    def __init__(self) -> None:
        self.store = store.Store()
        self.version = 0

    def body(self, port: int) -> dict[str, Any]:
        self.version += 1
        labels = {names.LABEL_SANDBOX: "mistral", names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
        metadata = {"namespace": "team", "name": "mistral", "uid": "u", "labels": labels}
        spec = {"ports": [{"port": port}], "selector": {}}
        return {"metadata": {**metadata, "resourceVersion": str(self.version)}, "spec": spec}

    def written(self, port: int) -> None:
        self.store.write_back(kinds.SERVICE, self.body(port))

    def seen(self, port: int) -> None:
        self.store.observe(kinds.SERVICE, "MODIFIED", self.body(port))


def test_a_change_by_somebody_else_that_is_written_back_counts_as_a_repair() -> None:
    child = Child()
    child.written(80)
    child.seen(80)
    child.seen(81)
    child.written(80)
    assert child.store.repairs == {"Service": 1}


def test_a_change_of_the_spec_counts_as_no_repair() -> None:
    child = Child()
    for port in (80, 81, 80):
        child.written(port)
        child.seen(port)
    child.written(80)
    assert child.store.repairs == {}
