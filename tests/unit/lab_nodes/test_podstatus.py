from __future__ import annotations

from typing import Any

import pytest

from lab.cluster.nodes import podstatus
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.cluster.nodes.lifecycle import Blocked, End, Phase, State
from unit.lab_nodes.factory import pod

T0 = 1_700_000_000.0
PLACE = podstatus.Place("192.168.128.11", "10.2.0.1")
CRASHED = End(1, "Error", "no memory", T0 + 1, T0 + 2)


def _status(phase: Phase, *, of: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    behaviour = state.pop("behaviour", NORMAL)
    full = State(phase, since=T0 + 5, seen=T0, started=T0 + 1, **state)
    return podstatus.build(of or pod(), full, behaviour, PLACE)


def _conditions(status: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.CREATING, "Pending"),
        (Phase.PULL_ERROR, "Pending"),
        (Phase.RUNNING, "Running"),
        (Phase.READY, "Running"),
        (Phase.BACKOFF, "Running"),
        (Phase.SUCCEEDED, "Succeeded"),
        (Phase.FAILED, "Failed"),
    ],
)
def test_phase(phase: Phase, expected: str) -> None:
    assert _status(phase, last=CRASHED, restarts=1)["phase"] == expected


def test_ready() -> None:
    status = _status(Phase.READY)
    assert set(_conditions(status).values()) == {"True"}
    (container,) = status["containerStatuses"]
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)
    assert container["imageID"].startswith("vllm/vllm-openai@sha256:")
    assert status["podIP"] == "10.2.0.1"
    assert status["hostIP"] == "192.168.128.11"


def test_running_but_not_ready() -> None:
    status = _status(Phase.RUNNING)
    conditions = _conditions(status)
    assert conditions["Ready"] == conditions["ContainersReady"] == "False"
    assert conditions["Initialized"] == conditions["PodScheduled"] == "True"
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    assert ready["message"] == "containers with unready status: [engine]"


def test_startup_probe_holds_back_started() -> None:
    probed = pod(containers=[{"name": "engine", "image": "x", "startupProbe": {}}])
    assert _status(Phase.RUNNING)["containerStatuses"][0]["started"] is True
    assert _status(Phase.RUNNING, of=probed)["containerStatuses"][0]["started"] is False


def test_pod_that_runs_to_completion_is_ready_while_it_runs_and_not_after() -> None:
    job = pod(restart_policy="Never")
    assert _conditions(_status(Phase.RUNNING, of=job))["Ready"] == "True"
    ended = _status(Phase.SUCCEEDED, of=job, last=End(0, "Completed", "done", T0, T0 + 1))
    ready = next(one for one in ended["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    assert ended["containerStatuses"][0]["state"]["terminated"]["message"] == "done"


def test_crash_loop_shows_the_end_and_the_wait() -> None:
    (container,) = _status(Phase.BACKOFF, last=CRASHED, restarts=3)["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["state"]["waiting"]["message"].startswith("back-off 40s restarting failed container=")
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert container["lastState"]["terminated"]["message"] == "no memory"
    assert (container["ready"], container["restartCount"]) == (False, 3)


def test_back_off_ends_at_five_minutes() -> None:
    (container,) = _status(Phase.BACKOFF, last=CRASHED, restarts=300)["containerStatuses"]
    assert "back-off 5m0s " in container["state"]["waiting"]["message"]


def test_recovered_container_remembers_its_end() -> None:
    (container,) = _status(Phase.READY, last=CRASHED, restarts=2)["containerStatuses"]
    assert "running" in container["state"]
    assert container["lastState"]["terminated"]["containerID"] != container["containerID"]


def test_only_the_first_container_fails() -> None:
    two = pod(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])
    first, second = _status(Phase.BACKOFF, of=two, last=CRASHED, restarts=2)["containerStatuses"]
    assert (first["ready"], second["ready"]) == (False, True)
    assert (first["restartCount"], second["restartCount"]) == (2, 0)
    assert second["lastState"] == {}


def test_pull_errors() -> None:
    missing = _status(Phase.PULL_ERROR)["containerStatuses"][0]["state"]["waiting"]
    assert missing["reason"] == "ErrImagePull"
    assert '"docker.io/vllm/vllm-openai:v0.33.0": not found' not in missing["message"]
    assert missing["message"].endswith("docker.io/vllm/vllm-openai:v0.33.0: not found")
    said = Behaviour("image-pull", message="429 Too Many Requests")
    later = _status(Phase.PULL_BACKOFF, behaviour=said)["containerStatuses"][0]["state"]["waiting"]
    assert later["reason"] == "ImagePullBackOff"
    assert "429 Too Many Requests" in later["message"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("a/b:1", "docker.io/a/b:1"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
    ],
)
def test_pull_error_names_the_full_reference(image: str, reference: str) -> None:
    assert podstatus.pull_error(image).endswith(f"{reference}: not found")


def test_missing_variable_is_shown_at_its_container() -> None:
    two = pod(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])
    status = _status(Phase.CONFIG_ERROR, of=two, blocked=Blocked('secret "k" not found', "b"))
    reasons = [one["state"]["waiting"]["reason"] for one in status["containerStatuses"]]
    assert reasons == ["ContainerCreating", "CreateContainerConfigError"]


def test_init_containers_come_first() -> None:
    with_init = pod(
        initContainers=[
            {"name": "prepare", "image": "x"},
            {"name": "side", "image": "y", "restartPolicy": "Always"},
        ]
    )
    waiting = _status(Phase.CREATING, of=with_init)
    assert _conditions(waiting)["Initialized"] == "False"
    assert waiting["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    running = _status(Phase.READY, of=with_init)
    prepare, side = running["initContainerStatuses"]
    assert prepare["state"]["terminated"]["exitCode"] == 0
    assert "running" in side["state"]
    assert prepare["ready"]
    assert side["ready"]
    assert _conditions(running)["Initialized"] == "True"


def test_transition_times_move_with_the_status_alone() -> None:
    one = pod()
    one["status"] = {
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]
    }
    times = {c["type"]: c["lastTransitionTime"] for c in _status(Phase.READY, of=one)["conditions"]}
    assert times["PodScheduled"] == times["DisruptionTarget"] == "2020-01-01T00:00:00Z"
    assert times["Ready"] == podstatus.timestamp(T0 + 5)
