"""What pods tell of a changed engine: only those of the template in question, and only while they live."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis, seen
from ai_sandbox_operator.reconcile import engine_trial
from unit.observed.live import observed
from unit.reconcile.things import child_of

Json = Any
NOW = datetime.datetime(2026, 5, 1, 12, 0, 0, tzinfo=datetime.UTC)
FINDING = diagnosis.Finding(Reason.CrashLoop, "the cause")
_RECORD = observed([child_of("Deployment", "demo-engine")])["Deployment", "demo-engine"]
ENGINE: seen.Seen = dataclasses.replace(
    _RECORD, facts={**_RECORD.facts, "engine_template": "re-2", "generation": 5}
)


def pod(
    rendered: str = "re-2", *, created: str = "2026-05-01T11:00:00Z", deleted: str = "", **status: Json
) -> dict[str, Json]:
    return {
        "metadata": {
            "name": "demo-engine-1",
            "annotations": {seen.ANNOTATION_ENGINE_TEMPLATE: rendered},
            "creationTimestamp": created,
            **({"deletionTimestamp": deleted} if deleted else {}),
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def container(restarts: int = 0, **state: Json) -> list[Json]:
    return [{"name": "engine", "restartCount": restarts, "state": state}]


def scheduled(status: str, *, at: str) -> list[Json]:
    return [{"type": "PodScheduled", "status": status, "lastTransitionTime": at}]


UNSCHEDULED = [{"type": "PodScheduled", "status": "False"}]
TRIALS: dict[str, tuple[list[Json], dict[str, Json] | None]] = {
    "no pod": ([], None),
    "a pod of the template before": ([pod("re-1", containerStatuses=container(9))], None),
    "a pod that is ending": ([pod(deleted="2026-05-01T11:59:00Z", containerStatuses=container(9))], None),
    "a pod that starts": ([pod()], {"restarts": 0, "unpulled": False, "unscheduled": False}),
    "restarts are added up": (
        [pod(containerStatuses=container(2)), pod(containerStatuses=container(1))],
        {"restarts": 3},
    ),
    "an evicted pod is an end too": ([pod(phase="Failed"), pod()], {"restarts": 1}),
    "the pod that took the place of an evicted one has the whole time": (
        [pod(created="2026-05-01T10:30:00Z", phase="Failed"), pod(created="2026-05-01T11:30:00Z")],
        {"since": "2026-05-01T11:30:00Z"},
    ),
    "waiting for a node is no part of its start": (
        [pod(created="2026-05-01T08:00:00Z", conditions=scheduled("True", at="2026-05-01T11:59:30Z"))],
        {"since": "2026-05-01T11:59:30Z", "unscheduled": False},
    ),
    "without a node it waits since it was made": (
        [pod(created="2026-05-01T08:00:00Z", conditions=scheduled("False", at="2026-05-01T11:59:30Z"))],
        {"since": "2026-05-01T08:00:00Z", "unscheduled": True},
    ),
    "no image": (
        [pod(containerStatuses=container(waiting={"reason": "ImagePullBackOff"}))],
        {"unpulled": True, "unscheduled": False},
    ),
    "an image whose signature does not hold": (
        [pod(containerStatuses=container(waiting={"reason": "SignatureValidationFailed"}))],
        {"unpulled": True},
    ),
    "waiting for something else": (
        [pod(containerStatuses=container(waiting={"reason": "CrashLoopBackOff"}))],
        {"unpulled": False},
    ),
    "no node": ([pod(conditions=UNSCHEDULED)], {"unscheduled": True, "unpulled": False}),
}


@pytest.mark.parametrize("case", TRIALS)
def test_the_trial(case: str) -> None:
    pods, expected = TRIALS[case]
    found = engine_trial.observe(pods, ENGINE, FINDING)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert {field: getattr(found, field) for field in expected} == expected
        assert (found.generation, found.finding) == (5, FINDING)


STUCK: dict[str, tuple[list[Json], bool]] = {
    "no pod": ([], False),
    "its time is not over": ([pod(deleted="2026-05-01T12:00:10Z")], False),
    "its time is just over": ([pod(deleted="2026-05-01T11:59:40Z")], False),
    "it does not end": ([pod(deleted="2026-05-01T11:59:00Z")], True),
    "it does not end, and the next one is there all the same": (
        [pod(deleted="2026-05-01T11:00:00Z"), pod()],
        False,
    ),
}


@pytest.mark.parametrize("case", STUCK)
def test_an_old_pod_that_does_not_end(case: str) -> None:
    pods, is_stuck = STUCK[case]
    found = engine_trial.stuck(pods, NOW)
    assert (found is not None) == is_stuck
    if found is not None:
        assert found.reason is Reason.OldPodStuck
        assert not found.permanent, "it goes on by itself once the node is gone"
        assert "demo-engine-1 on node node-1" in found.message
