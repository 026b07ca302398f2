"""What is read to find a cause: little, once, and never of what is healthy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import diagnosis, seen
from ai_sandbox_operator.reconcile import findings
from unit.desired import samples
from unit.observed.corpus import engine_log
from unit.observed.live import observed

Json = Any
KEY = "the-engines-own-secret-key"
MATERIAL = facts.Material(engine_key=KEY, chat_session_key="", api_keys={})
RECORDS = observed(samples.rendered())
ENGINE: dict[tuple[str, str], seen.Seen] = {
    key: RECORDS[key] for key in [("Deployment", "demo-engine"), ("PersistentVolumeClaim", "demo-model")]
}


class Client(kube_client.KubeClient):
    """Answers from values, and counts what it was asked."""

    def __init__(self) -> None:
        self.pods: list[Json] = []
        self.log: str | Exception = ""
        self.told: list[Json] = []
        self.asked: list[str] = []
        self.limits: list[int] = []

    async def list_all(self, kind: kinds.Kind, namespace: str | None, **_: Any) -> list[Json]:
        self.asked.append(f"list {kind.kind}")
        return list(self.pods)

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        tail: int,
        previous: bool,
        limit_bytes: int = 1 << 20,
    ) -> str:
        self.asked.append(f"log {pod}/{container} {tail}{' previous' if previous else ''}")
        self.limits.append(limit_bytes)
        if isinstance(self.log, Exception):
            raise self.log
        return self.log

    async def events(self, namespace: str, uid: str, *, most: int = 100) -> list[Json]:
        self.asked.append(f"events {uid}")
        return list(self.told)


class Rig:
    """Findings with a clock that the test moves."""

    def __init__(self) -> None:
        self.client = Client()
        self.now = 1000.0
        self.children: Mapping[tuple[str, str], seen.Seen] = ENGINE
        self.sandbox = samples.sandbox()
        self.findings = findings.Findings(self.client, clock=lambda: self.now)

    async def look(self, *, after: float = findings.EVERY) -> Mapping[str, diagnosis.Finding]:
        """The findings some seconds later; what was asked before is forgotten."""
        self.now += after
        self.client.asked.clear()
        return await self.findings.of(self.sandbox, self.children, material=MATERIAL)


@pytest.fixture
async def rig() -> Rig:
    result = Rig()
    await result.look(after=0)
    return result


def pod(name: str = "e", **status: Json) -> Json:
    labels = names.labels("demo", "engine")
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": labels,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running", **status}}


def crashed(restarts: int, message: str = "") -> Json:
    terminated = {
        "exitCode": 1,
        "reason": "Error",
        "message": message,
        "containerID": f"containerd://{restarts}",
    }
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {
        "name": "engine",
        "restartCount": restarts,
        "state": waiting,
        "lastState": {"terminated": terminated},
    }
    return pod(containerStatuses=[status])


STARTING = {"name": "engine", "restartCount": 0, "state": {"running": {}}, "ready": False, "started": False}
CREATING = {"name": "engine", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}


async def test_a_young_sandbox_is_not_looked_at_and_an_old_one_not_too_often(rig: Rig) -> None:
    assert rig.client.asked == []
    await rig.look(after=findings.EVERY)
    assert rig.client.asked == ["list Pod"]
    await rig.look(after=findings.EVERY / 2)
    assert rig.client.asked == []


async def test_nothing_is_read_of_a_healthy_sandbox(rig: Rig) -> None:
    record = ENGINE["Deployment", "demo-engine"]
    replicas = {
        "replicas": 1,
        "updated": 1,
        "ready": 1,
        "current": 1,
        "generation": 1,
        "observed_generation": 1,
    }
    healthy = {**record.facts, **replicas}
    rig.children = {("Deployment", "demo-engine"): _with(record, healthy)}
    assert await rig.look() == {}
    assert rig.client.asked == []


async def test_without_the_secrets_nothing_is_read(rig: Rig) -> None:
    rig.now += 60
    rig.client.pods = [crashed(1)]
    assert await rig.findings.of(rig.sandbox, rig.children, material=None) == {}
    assert rig.client.asked == []


async def test_the_log_of_a_run_that_ended_is_read_once_per_restart(rig: Rig) -> None:
    rig.client.pods, rig.client.log = [crashed(1)], engine_log("kv-cache-too-small")
    found = await rig.look()
    assert rig.client.asked == ["list Pod", f"log e/engine {findings.TAIL_ENDED} previous"]
    assert found["engine"].reason is Reason.KVCacheTooSmall
    assert found["engine"].permanent
    assert "17440" in found["engine"].advice
    assert await rig.look() == found
    assert rig.client.asked == ["list Pod"]
    rig.client.pods = [crashed(2)]
    await rig.look()
    assert rig.client.asked == ["list Pod", f"log e/engine {findings.TAIL_ENDED} previous"]
    assert max(rig.client.limits) <= 1 << 20


async def test_a_container_that_does_not_restart_shows_its_present_log(rig: Rig) -> None:
    terminated = {"exitCode": 1, "reason": "Error", "containerID": "containerd://1"}
    rig.client.pods = [
        pod(
            phase="Failed",
            containerStatuses=[{"name": "engine", "restartCount": 0, "state": {"terminated": terminated}}],
        )
    ]
    rig.client.log = engine_log("no-gpu")
    found = await rig.look()
    assert rig.client.asked[1] == f"log e/engine {findings.TAIL_ENDED}"
    assert found["engine"].reason is Reason.GPUNotFound


@pytest.mark.parametrize(
    "error", [errors.Forbidden("no"), errors.Invalid("no previous"), errors.NotFound("gone")]
)
async def test_a_log_that_cannot_be_read_leaves_the_termination_message(rig: Rig, error: Exception) -> None:
    rig.client.pods = [crashed(1, "RuntimeError: No CUDA GPUs are available")]
    rig.client.log = error
    assert (await rig.look())["engine"].reason is Reason.GPUNotFound
    await rig.look()
    assert rig.client.asked == ["list Pod"]


async def test_a_server_that_does_not_answer_is_asked_again(rig: Rig) -> None:
    rig.client.pods, rig.client.log = [crashed(1, "boom")], errors.Unavailable("not now")
    assert (await rig.look())["engine"].message.endswith("boom")
    rig.client.log = engine_log("gpu-busy")
    assert (await rig.look())["engine"].reason is Reason.GPUBusy


async def test_a_server_that_never_answers_is_asked_three_times_per_run(rig: Rig) -> None:
    rig.client.pods, rig.client.log = [crashed(1, "boom")], errors.Unavailable("not now")
    asked = 0
    for _ in range(6):
        assert (await rig.look())["engine"].message.endswith("boom")
        asked += len(rig.client.asked) - 1
    assert asked == findings.MOST_ATTEMPTS


async def test_pods_that_cannot_be_listed_leave_the_last_findings(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.client.pods = [crashed(1, "boom")]
    before = await rig.look()

    async def refused(*_: Any, **__: Any) -> list[Json]:
        raise errors.Unavailable("not now")

    monkeypatch.setattr(rig.client, "list_all", refused)
    assert before
    assert await rig.look() == before


async def test_secrets_are_blotted_out_before_a_log_is_shortened(rig: Rig) -> None:
    # Cut to its end, this line would begin in the middle of the key.
    rig.client.pods, rig.client.log = [crashed(1)], f"Oops: {'x' * 50} {KEY}{'y' * 230}"
    found = (await rig.look())["engine"]
    assert not any(KEY[n : n + 8] in found.message for n in range(len(KEY) - 7))


async def test_a_starting_engine_tells_its_phase_and_keeps_it_when_the_markers_scroll_away(rig: Rig) -> None:
    rig.client.pods = [pod(containerStatuses=[STARTING])]
    rig.client.log = "Loading safetensors checkpoint shards:  25% Completed | 2/8 [00:10<00:30]"
    found = await rig.look()
    assert rig.client.asked == ["list Pod", f"log e/engine {findings.TAIL_STARTING}"]
    assert found["engine"].reason is Reason.Starting
    assert "loading the weights (2 of 8 files)" in found["engine"].message
    rig.client.log = "a warning without a marker"
    assert await rig.look() == found


async def test_a_start_that_prints_nothing_for_long_is_told_and_a_new_line_takes_it_back(rig: Rig) -> None:
    rig.client.pods = [pod(containerStatuses=[STARTING])]
    rig.client.log = "Starting to load model /models/m..."
    for _ in range(3):
        assert (await rig.look(after=250))["engine"].reason is Reason.Starting
    found = (await rig.look(after=250))["engine"]
    assert found.reason is Reason.StartStalled
    assert "loading the weights and has printed nothing" in found.message
    rig.client.log += "\nLoading weights took 900 seconds"
    assert (await rig.look())["engine"].reason is Reason.Starting


async def test_events_are_read_only_of_what_waits_for_a_while(rig: Rig) -> None:
    rig.client.pods = [pod(phase="Pending", containerStatuses=[CREATING])]
    rig.client.told = [{"type": "Warning", "reason": "FailedAttachVolume", "message": "Multi-Attach error"}]
    assert (await rig.look())["engine"].reason is Reason.Starting
    assert rig.client.asked == ["list Pod"]
    assert (await rig.look())["engine"].reason is Reason.VolumeAttachFailed
    assert rig.client.asked == ["list Pod", "events uid-e"]
    assert (await rig.look())["engine"].reason is Reason.VolumeAttachFailed
    assert rig.client.asked == ["list Pod"]
    rig.client.told = []
    assert (await rig.look())["engine"].reason is Reason.Starting


async def test_events_of_a_volume_that_is_not_bound_tell_why(rig: Rig) -> None:
    claim = ENGINE["PersistentVolumeClaim", "demo-model"]
    pending = _with(claim, {**claim.facts, "phase": "Pending"})
    rig.children = {**ENGINE, ("PersistentVolumeClaim", "demo-model"): pending}
    message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    rig.client.pods = [pod(phase="Pending", conditions=[condition])]
    rig.client.told = [
        {"type": "Warning", "reason": "ProvisioningFailed", "message": "Account Limit reached"}
    ]
    assert (await rig.look())["engine"].reason is Reason.VolumePending
    assert (await rig.look())["engine"].reason is Reason.VolumeProvisioningFailed
    assert rig.client.asked == ["list Pod", f"events {claim.uid}"]


async def test_what_is_remembered_goes_with_the_sandbox_and_with_the_trouble(rig: Rig) -> None:
    rig.client.pods = [crashed(1, "boom")]
    await rig.look()
    assert len(rig.findings.pods(samples.UID, "engine")) == 1
    rig.children = {}
    assert await rig.look() == {}
    assert rig.findings.pods(samples.UID, "engine") == ()
    rig.findings.forget(samples.UID)
    assert rig.findings._memory == {}


async def test_memory_does_not_grow_with_restarts(rig: Rig) -> None:
    for number in range(1, 30):
        rig.client.pods = [crashed(number)]
        await rig.look()
    assert len(rig.findings._memory[samples.UID].failures) == 1


def _with(record: seen.Seen, values: Mapping[str, Json]) -> seen.Seen:
    return dataclasses.replace(record, facts=values)
