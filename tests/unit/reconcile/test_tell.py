"""The status that is written: equal bytes for a pass that changed nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Status, Verdict
from ai_sandbox_operator.reconcile import tell
from unit.desired import samples

Json = Any
C = ConditionType
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def verdict(type_: ConditionType, status: Status, reason: Reason, message: str = "m") -> Verdict:
    return Verdict(type=type_, status=status, reason=reason, message=message)


WAITING = [
    verdict(C.READY, "False", Reason.Progressing),
    verdict(C.STALLED, "False", Reason.NotStalled),
    verdict(C.NETWORK_PROTECTED, "True", Reason.Protected),
]
DONE = [verdict(C.READY, "True", Reason.AllReady), *WAITING[1:]]


def status(sandbox: v1alpha1.AISandbox, verdicts: list[Verdict], now: str, **groups: Json) -> dict[str, Json]:
    rest = {"endpoints": {}, "linode": {}, "applied": {}, "model": {}, **groups}
    return tell.build_status(sandbox, verdicts, now=now, **rest)


def told(stored: Json, *, generation: int = 3) -> v1alpha1.AISandbox:
    """The sandbox with this status."""
    metadata = {"name": "demo", "namespace": "team-a", "uid": samples.UID, "generation": generation}
    return v1alpha1.parse({"metadata": metadata, "status": copy.deepcopy(stored)})


def test_a_pass_that_changes_nothing_yields_the_same_bytes() -> None:
    groups = {"endpoints": {"api": "x"}, "linode": {"firewallID": 7}, "applied": {"accessHash": "h"}}
    first = status(samples.sandbox(), WAITING, EARLY, **groups)
    second = status(told(first), WAITING, LATE, **groups)
    assert json.dumps(first) == json.dumps(second)
    assert not tell.differs({"status": first}, second)


def test_the_time_of_a_transition_moves_with_the_status_alone() -> None:
    first = status(samples.sandbox(), WAITING, EARLY)
    reworded = [verdict(C.READY, "False", Reason.Unschedulable, "other"), *WAITING[1:]]
    times = [c["lastTransitionTime"] for c in status(told(first), reworded, LATE)["conditions"]]
    assert times == [EARLY] * 3
    turned = status(told(first), DONE, LATE)
    assert [c["lastTransitionTime"] for c in turned["conditions"]] == [LATE, EARLY, EARLY]


def test_every_condition_carries_the_generation_that_was_judged() -> None:
    found = status(told({}, generation=9), WAITING, EARLY)
    assert found["observedGeneration"] == 9
    assert {c["observedGeneration"] for c in found["conditions"]} == {9}


def test_empty_groups_are_left_out_so_that_apply_removes_them() -> None:
    assert set(status(samples.sandbox(), WAITING, EARLY)) == {"observedGeneration", "conditions"}


HELD = status(samples.sandbox(), WAITING, EARLY, linode={"firewallID": 7})


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, False),
        ({"somebody": {"else": "abc"}}, False),
        ({"linode": {}}, True),
        ({"linode": {"firewallID": 8}}, True),
        ({"endpoints": {"api": "x"}}, True),
        ({"observedGeneration": 4}, True),
    ],
    ids=[
        "the same",
        "a group of somebody else",
        "an id less",
        "another id",
        "a group too much",
        "generation",
    ],
)
def test_what_counts_as_a_change(change: Json, differs: bool) -> None:
    assert tell.differs({"status": {**HELD, **change}}, HELD) is differs


def test_a_status_that_was_never_told_differs() -> None:
    assert tell.differs({}, HELD)


def test_a_new_generation_and_a_turned_condition_are_urgent_and_words_are_not() -> None:
    assert tell.urgent(samples.sandbox(), WAITING)
    held = told(HELD)
    assert not tell.urgent(held, WAITING)
    assert not tell.urgent(held, [verdict(C.READY, "False", Reason.Unschedulable), *WAITING[1:]])
    assert tell.urgent(held, DONE)
    assert tell.urgent(told(HELD, generation=4), WAITING)


def test_a_new_linode_object_is_urgent() -> None:
    held = told({**HELD, "linode": {"firewallID": 7}})
    assert not tell.urgent(held, WAITING, linode={"firewallID": 7})
    assert tell.urgent(held, WAITING, linode={"firewallID": 7, "nodeBalancerID": 4711})
    assert tell.urgent(held, WAITING, linode={"firewallID": 8})


def events(verdicts: list[Verdict], held: v1alpha1.AISandbox | None = None) -> list[tuple[str, str]]:
    return [(a.type, a.reason) for a in tell.announcements(held or told(HELD), verdicts)]


def test_events_tell_of_transitions_only() -> None:
    assert events(WAITING) == []
    assert events(DONE) == [("Normal", "AllReady")]
    assert events(DONE, told(status(samples.sandbox(), DONE, EARLY))) == []


def test_another_reason_of_the_same_trouble_is_told_as_a_warning() -> None:
    crash = [verdict(C.READY, "False", Reason.CrashLoop), *WAITING[1:]]
    assert events(crash) == [("Warning", "CrashLoop")]
    assert events(crash, told(status(samples.sandbox(), crash, EARLY))) == []


def test_one_cause_behind_two_conditions_is_one_event() -> None:
    invalid = [
        verdict(C.READY, "False", Reason.InvalidSpec),
        verdict(C.STALLED, "True", Reason.InvalidSpec),
        WAITING[2],
    ]
    assert events(invalid) == [("Warning", "InvalidSpec")]


def test_every_reason_that_warns_exists() -> None:
    assert set(Reason.__members__) >= tell._WARNINGS
