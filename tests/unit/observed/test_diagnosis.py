"""The cause that pods show, in the words of whoever reported it."""

from __future__ import annotations

from typing import Any

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis, engine_phase

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
        Reason.ImageNotFound,
        "i: manifest unknown",
    ),
    "an init container's image cannot be pulled, which comes before the others": (
        pod(
            initContainerStatuses=[waiting("ErrImagePull", "denied")],
            containerStatuses=[waiting("PodInitializing")],
        ),
        Reason.ImagePullUnauthorized,
        "denied",
    ),
    "a Secret is missing": (
        pod(containerStatuses=[waiting("CreateContainerConfigError", 'secret "x" not found')]),
        Reason.SecretNotFound,
        'secret "x" not found',
    ),
    "the container runtime finds no GPU": (
        pod(containerStatuses=[waiting("RunContainerError", "nvidia-container-cli: no driver")]),
        Reason.GPUNotFound,
        "nvidia-container-cli: no driver",
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        Reason.NodeMemoryPressure,
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
    assert finding.reason is Reason.ImagePullUnauthorized


def test_pods_of_one_second_speak_in_the_same_order_each_time() -> None:
    first, second = pod("a"), pod("b")
    assert diagnosis.diagnose([first, second]) == diagnosis.diagnose([second, first])


ENGINE = {"app.kubernetes.io/component": "engine"}


def engine(**status: Json) -> dict[str, Json]:
    body = pod(**status)
    body["metadata"] |= {"labels": ENGINE, "uid": "u1"}
    return body


RUNNING = {"name": "engine", "state": {"running": {}}, "ready": False, "started": False}


def test_an_engine_that_runs_tells_its_phase() -> None:
    evidence = diagnosis.Evidence(phase=engine_phase.Phase(engine_phase.LOADING, "3 of 8 files"))
    finding = diagnosis.diagnose([engine(phase="Running", containerStatuses=[RUNNING])], evidence=evidence)
    assert finding == diagnosis.Finding(
        Reason.Starting, "the engine runs in pod p; it is loading the weights (3 of 8 files)"
    )


def test_an_engine_that_prints_nothing_for_long_has_stalled() -> None:
    evidence = diagnosis.Evidence(phase=engine_phase.Phase(engine_phase.COMPILING), silent_seconds=913)
    finding = diagnosis.diagnose([engine(phase="Running", containerStatuses=[RUNNING])], evidence=evidence)
    assert finding is not None
    assert finding.reason is Reason.StartStalled
    assert "compiling and has printed nothing for 15 minutes" in finding.message


def test_the_cause_from_the_log_comes_before_the_words_of_the_container() -> None:
    failure = diagnosis.Failure(reason=Reason.ModelTooLarge, said="CUDA out of memory", permanent=True)
    ends = engine(containerStatuses=[ended("Error", 1, "Engine core initialization failed")])
    finding = diagnosis.diagnose([ends], evidence=diagnosis.Evidence(failure=failure))
    assert finding is not None
    assert (finding.reason, finding.permanent) == (Reason.ModelTooLarge, True)
    assert finding.message.endswith("after 3 restarts: CUDA out of memory")


def test_without_the_log_the_words_of_the_container_are_classified() -> None:
    ends = engine(containerStatuses=[ended("Error", 1, "RuntimeError: No CUDA GPUs are available")])
    finding = diagnosis.diagnose([ends])
    assert finding is not None
    assert finding.reason is Reason.GPUNotFound


def test_words_of_the_engine_mean_nothing_in_another_component() -> None:
    finding = diagnosis.diagnose([pod(containerStatuses=[ended("Error", 2, "CUDA out of memory")])])
    assert finding is not None
    assert finding.reason is Reason.CrashLoop


def test_no_secret_comes_through_in_status_events_or_advice_of_strangers() -> None:
    secret = "s3cret-of-the-gateway"
    said = f"key {secret}, token hf_{'A' * 20}, header Bearer abcdef0123456789, http://me:pass@proxy:1"
    told = [
        diagnosis.diagnose([pod(containerStatuses=[ended("Error", 1, said)])], secrets=[secret]),
        diagnosis.diagnose([pod(containerStatuses=[waiting("ErrImagePull", said)])], secrets=[secret]),
        diagnosis.diagnose(
            [pod(phase="Pending")],
            secrets=[secret],
            evidence=diagnosis.Evidence(events=[{"reason": "FailedMount", "message": said}]),
        ),
    ]
    for finding in told:
        assert finding is not None
        assert "[secret]" in finding.message
        for part in (secret, "A" * 20, "abcdef0123456789", "me:pass"):
            assert part not in finding.message


RUNS: dict[str, tuple[Json, bool | None]] = {
    "crashed and waits": (
        ended("Error", state={"waiting": {"reason": "CrashLoopBackOff"}}),
        True,
    ),
    "ended just now": (ended("Error", where="state"), False),
    "runs again": (ended("Error", 137, state={"running": {}}, ready=False), True),
    "runs well again": (ended("Error", 137, state={"running": {}}, ready=True), None),
    "a download that says why": (ended("Error", 78, "NotFound: no such model.", where="state"), None),
    "never ended": (RUNNING, None),
}


@pytest.mark.parametrize("case", RUNS)
def test_which_log_is_worth_reading(case: str) -> None:
    status, wanted = RUNS[case]
    run = diagnosis.ended_run(engine(containerStatuses=[status]))
    assert (run.previous if run else None) is wanted


def test_each_run_of_a_container_is_its_own() -> None:
    first = ended("Error", where="state")
    second = ended("Error", where="state")
    first["state"]["terminated"]["containerID"] = "containerd://1"
    second["state"]["terminated"]["containerID"] = "containerd://2"
    runs = [diagnosis.ended_run(engine(containerStatuses=[status])) for status in (first, second)]
    assert runs[0] != runs[1]


def test_only_a_pod_that_the_node_prepares_waits_for_it() -> None:
    creating = waiting("ContainerCreating")
    assert diagnosis.waits_for_node(pod(phase="Pending", containerStatuses=[creating]))
    assert not diagnosis.waits_for_node(pod(phase="Pending", conditions=UNSCHEDULED))
    assert not diagnosis.waits_for_node(pod(phase="Pending", containerStatuses=[waiting("ErrImagePull")]))
    assert not diagnosis.waits_for_node(pod(phase="Running", containerStatuses=[RUNNING]))
