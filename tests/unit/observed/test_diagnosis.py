"""The cause that pods show, in the words of whoever reported it."""

from __future__ import annotations

from typing import Any

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis

Json = Any


def pod(name: str = "p", *, created: str = "1", deleting: bool = False, **status: Json) -> dict[str, Json]:
    metadata: dict[str, Json] = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{created}Z"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:09Z"
    return {"metadata": metadata, "status": status}


def waiting(reason: str, message: str = "", **more: Json) -> dict[str, Json]:
    return {"name": "c", "image": "i", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(reason: str, code: int = 1, message: str = "", *, where: str = "lastState", **more: Json) -> Json:
    return {
        "name": "c",
        "restartCount": 3,
        where: {"terminated": {"reason": reason, "exitCode": code, "message": message}},
        **more,
    }


UNSCHEDULED = [
    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
]

CASES: dict[str, tuple[dict[str, Json], Reason, str]] = {
    "no node fits": (
        pod(phase="Pending", conditions=UNSCHEDULED),
        Reason.Unschedulable,
        "Insufficient nvidia.com/gpu",
    ),
    "the image cannot be pulled": (
        pod(containerStatuses=[waiting("ImagePullBackOff", "manifest unknown")]),
        Reason.ImagePullFailed,
        "i: manifest unknown",
    ),
    "an init container's image cannot be pulled, which comes before the others": (
        pod(
            initContainerStatuses=[waiting("ErrImagePull", "denied")],
            containerStatuses=[waiting("PodInitializing")],
        ),
        Reason.ImagePullFailed,
        "denied",
    ),
    "a Secret is missing": (
        pod(containerStatuses=[waiting("CreateContainerConfigError", 'secret "x" not found')]),
        Reason.Starting,
        'secret "x" not found',
    ),
    "the container runtime refuses, with a reason that is not known here": (
        pod(containerStatuses=[waiting("RunContainerError", "nvidia-container-cli: no driver")]),
        Reason.Starting,
        "nvidia-container-cli: no driver",
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        Reason.NotReady,
        "Evicted: The node was low on resource",
    ),
    "more memory than the limit": (
        pod(containerStatuses=[ended("OOMKilled", 137, ready=False)]),
        Reason.OutOfMemory,
        "3 restarts",
    ),
    "killed for memory once, ready since": (
        pod(phase="Running", containerStatuses=[ended("OOMKilled", 137, ready=True)]),
        Reason.NotReady,
        "runs but is not ready",
    ),
    "it ends again and again": (
        pod(containerStatuses=[ended("Error", 2, "boom", state={"waiting": {"reason": "CrashLoopBackOff"}})]),
        Reason.CrashLoop,
        "exit code 2 after 3 restarts: boom",
    ),
    "it ended just now": (
        pod(containerStatuses=[ended("Error", 1, "boom", where="state")]),
        Reason.CrashLoop,
        "boom",
    ),
    "an init container that has done its work": (
        pod(
            phase="Pending",
            initContainerStatuses=[ended("Completed", 0, where="state", ready=True, restartCount=0)],
        ),
        Reason.Starting,
        "is starting",
    ),
    "it runs": (pod(phase="Running", containerStatuses=[{"name": "c"}]), Reason.NotReady, "not ready yet"),
    "nothing is known": (pod(), Reason.Starting, "pod p is starting"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cause_of_one_pod(case: str) -> None:
    thing, reason, text = CASES[case]
    finding = diagnosis.diagnose([thing])
    assert finding is not None
    assert finding.reason is reason
    assert text in finding.message


def test_without_pods_there_is_no_cause() -> None:
    assert diagnosis.diagnose([]) is None
    assert diagnosis.diagnose([pod(deleting=True)]) is None


def test_the_youngest_living_pod_speaks() -> None:
    pods = [
        pod("old", created="1", phase="Running"),
        pod("young", created="2"),
        pod("going", created="3", deleting=True),
    ]
    finding = diagnosis.diagnose(pods)
    assert finding is not None
    assert "young" in finding.message


def test_a_pod_that_is_ready_does_not_speak_for_one_that_is_not() -> None:
    ready = pod("good", created="2", phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    bad = pod("bad", created="1", containerStatuses=[waiting("ErrImagePull", "denied")])
    finding = diagnosis.diagnose([ready, bad])
    assert finding is not None
    assert finding.reason is Reason.ImagePullFailed


def test_pods_of_one_second_speak_in_the_same_order_each_time() -> None:
    first, second = pod("a"), pod("b")
    assert diagnosis.diagnose([first, second]) == diagnosis.diagnose([second, first])


def test_long_text_keeps_its_end_on_one_line() -> None:
    text = diagnosis.shorten("noise\n" * 200 + "CUDA out of memory")
    assert text.endswith("CUDA out of memory")
    assert len(text) <= diagnosis.MESSAGE_LIMIT + 2
    assert "\n" not in text
