"""The stand-in in the lab's engine pods: reached through the pod network, followed by the kubelet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from lab.cluster.nodes import behaviour, lifecycle, voices
from lab.cluster.nodes.behaviour import NORMAL, Behaviour, Behaviours, Selector
from lab.cluster.nodes.lifecycle import Phase, State, Times
from lab.cluster.nodes.podnet import PodNetwork
from lab.cluster.nodes.workloads import Workloads
from lab.engine.script import Script
from unit.lab_nodes.factory import pod

ADDRESS, MODEL = "10.2.0.9", "m/m"
TIMES = Times(ready=0.05, backoff=0.2)
CONTAINER = {
    "name": "engine",
    "image": "vllm/vllm-openai:v0.33.0",
    "args": ["/models/m", "--served-model-name", MODEL, "--port", "8000", "--max-model-len", "auto"],
    "env": [
        {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "demo-engine-key", "key": "key"}}}
    ],
    "terminationMessagePolicy": "FallbackToLogsOnError",
}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@dataclass
class Node:
    """One engine pod, its kubelet's state machine, and the network to it."""

    key: str = "sk-first"
    behaviour: Behaviour = NORMAL
    pod: dict[str, Any] = field(default_factory=lambda: pod(containers=[CONTAINER]))
    state: State = field(default_factory=lambda: lifecycle.begin(time.time() - 1))
    url: str = ""
    workloads: Workloads = field(init=False)
    session: aiohttp.ClientSession = field(init=False)

    async def read(self, path: str) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/team/secrets/demo-engine-key"
        return {"data": {"key": base64.b64encode(self.key.encode()).decode()}}

    def find(self, address: str) -> tuple[dict[str, Any], State, Behaviour] | None:
        return (self.pod, self.state, self.behaviour) if address == ADDRESS else None

    def look(self) -> None:
        """As the kubelet: one step, and the workloads are told what became of the container."""
        before = self.state
        view = self.workloads.view(self.pod, self.behaviour)
        self.state, _ = lifecycle.advance(before, self.pod, view, time.time(), times=TIMES)
        if self.state.last is not None and self.state.last is not before.last:
            end = voices.finish(self.pod, self.state.last, view)
            self.state = State(**{**vars(self.state), "last": end})
        up = (Phase.RUNNING, Phase.READY)
        if self.state.phase in up and self.state.started != before.started:
            self.workloads.started(self.pod, ADDRESS)
        elif self.state.phase not in up and before.phase in up:
            self.workloads.stopped(self.pod)

    async def until(self, phase: Phase, restarts: int = 0) -> State:
        async with asyncio.timeout(5):
            while self.state.phase is not phase or self.state.restarts < restarts:
                self.look()
                await asyncio.sleep(0.01)
        return self.state

    async def ask(
        self, path: str, body: Any = None, *, key: str | None = "sk-first", port: int = 8000
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method = "GET" if body is None else "POST"
        url = f"http://{ADDRESS}:{port}{path}"
        async with self.session.request(method, url, json=body, headers=headers, proxy=self.url) as answer:
            return (
                answer.status,
                await answer.json() if "json" in answer.content_type else await answer.text(),
            )

    @property
    def log(self) -> str:
        said = self.workloads.log(self.pod["metadata"]["uid"])
        assert said is not None
        return said


@contextlib.asynccontextmanager
async def running(rule: Behaviour = NORMAL, **changes: Any) -> AsyncIterator[Node]:
    node = Node(behaviour=rule, **changes)
    node.workloads = Workloads(node.read, lambda _pod: node.behaviour, ready=TIMES.ready)
    network = PodNetwork(node.find, node.workloads)
    await network.start()
    node.url = network.url
    try:
        async with aiohttp.ClientSession() as node.session:
            yield node
    finally:
        await network.stop()
        await node.workloads.stop()


def scripted(**script: Any) -> Behaviour:
    return Behaviour(engine=Script(**script))


async def test_a_ready_engine_lists_its_model_and_answers_with_the_key_of_its_secret() -> None:
    async with running() as node:
        await node.until(Phase.READY)
        status, models = await node.ask("/v1/models")
        assert (status, models["data"][0]["id"]) == (200, MODEL)
        assert models["data"][0]["max_model_len"] == 32_768
        status, answer = await node.ask("/v1/chat/completions", CHAT)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "You")
        assert (await node.ask("/v1/models", key="wrong"))[0] == 401
        assert (await node.ask("/v1/models", key=None))[0] == 401
        assert (await node.ask("/health", key=None))[0] == 200


async def test_the_key_is_read_once_when_the_container_starts() -> None:
    async with running() as node:
        await node.until(Phase.READY)
        node.key = "sk-second"
        assert (await node.ask("/v1/models", key="sk-second"))[0] == 401
        assert (await node.ask("/v1/models"))[0] == 200


async def test_its_log_is_the_whole_start_and_the_requests() -> None:
    async with running() as node:
        await node.until(Phase.READY)
        await node.ask("/v1/models")
        lines = node.log.splitlines()
        assert "non-default args: {'model_tag': '/models/m'" in node.log
        assert "INFO:     Application startup complete." in lines
        assert lines[-1].endswith('"GET /v1/models HTTP/1.1" 200 OK')
        assert "sk-first" not in node.log


async def test_nobody_listens_while_it_starts_or_on_another_port() -> None:
    async with running(Behaviour("slow", seconds=30)) as node:
        await node.until(Phase.RUNNING)
        assert (await node.ask("/health"))[0] == 502
        assert "Application startup complete." not in node.log
        # A rule that goes lets the start come to its end.
        node.behaviour = NORMAL
        await node.until(Phase.READY)
        assert (await node.ask("/health"))[0] == 200
        assert (await node.ask("/health", port=8001))[0] == 502


async def test_the_seconds_of_phases_add_up_to_the_start() -> None:
    async with running(scripted(phases={"load": 0.4})) as node:
        await node.until(Phase.RUNNING)
        began = time.time()
        await node.until(Phase.READY)
        assert time.time() - began >= 0.35


@pytest.mark.parametrize(
    ("name", "code", "reason", "said"),
    [
        ("KVCacheTooSmall", 1, "Error", "estimated maximum model length is"),
        ("BadFlag", 2, "Error", "unrecognized arguments: --no-such-flag"),
        ("HostOOM", 137, "OOMKilled", "Loading safetensors checkpoint shards"),
        ("corrupt-weights", 1, "Error", "Error while deserializing header"),
    ],
)
async def test_a_failure_ends_the_container_with_its_code_and_its_log_again_and_again(
    name: str, code: int, reason: str, said: str
) -> None:
    async with running(scripted(fail=name)) as node:
        state = await node.until(Phase.BACKOFF, restarts=1)
        assert state.last is not None
        assert (state.last.exit_code, state.last.reason) == (code, reason)
        assert said in "\n".join(state.last.log)
        assert said in node.log
        await node.until(Phase.BACKOFF, restarts=2)
        node.behaviour = NORMAL
        await node.until(Phase.READY, restarts=3)
        assert said not in "\n".join(node.log.splitlines()[-5:])


async def test_the_termination_message_is_the_end_of_the_log() -> None:
    async with running(scripted(fail="ModelTooBig")) as node:
        state = await node.until(Phase.BACKOFF, restarts=1)
        assert state.last is not None
        assert state.last.message is not None
        assert state.last.message.endswith("Failed core proc(s): {}")
        assert len(state.last.message) <= 2048


async def test_what_the_pods_arguments_make_impossible_fails_by_itself() -> None:
    container = {**CONTAINER, "args": [*CONTAINER["args"], "--max-model-len", "99999"]}
    async with running(pod=pod(containers=[container])) as node:
        state = await node.until(Phase.BACKOFF, restarts=1)
        assert state.last is not None
        assert "(99999) is greater than the derived max_model_len" in "\n".join(state.last.log)


async def test_a_start_that_hangs_never_gets_ready() -> None:
    async with running(scripted(hang="compile")) as node:
        await node.until(Phase.RUNNING)
        await asyncio.sleep(0.15)
        node.look()
        assert node.state.phase is Phase.RUNNING
        assert "Model loading took" in node.log
        assert "torch.compile took" not in node.log
        assert (await node.ask("/health"))[0] == 502


async def test_a_crash_while_serving_is_a_503_then_an_end_with_code_0_then_a_restart() -> None:
    async with running(scripted(crash_after=0.1, dying=0.2)) as node:
        await node.until(Phase.READY)
        assert (await node.ask("/health"))[0] == 200
        async with asyncio.timeout(2):
            while (await node.ask("/health"))[0] == 200:
                await asyncio.sleep(0.01)
        assert (await node.ask("/health"))[0] == 503
        assert (await node.ask("/v1/chat/completions", CHAT))[0] == 500
        state = await node.until(Phase.READY, restarts=1)
        assert state.last is not None
        assert (state.last.exit_code, state.last.reason) == (0, "Completed")
        assert "EngineDeadError" in "\n".join(state.last.log)
        assert "EngineDeadError" not in node.log
        assert (await node.ask("/health"))[0] == 200


async def test_a_crash_that_is_taken_back_does_not_happen() -> None:
    async with running(scripted(crash_after=0.2, dying=0.0)) as node:
        await node.until(Phase.READY)
        node.behaviour = NORMAL
        node.look()
        await asyncio.sleep(0.3)
        node.look()
        assert (node.state.phase, node.state.restarts) == (Phase.READY, 0)


async def test_the_kubelet_is_told_when_it_serves_and_when_it_has_ended() -> None:
    async with running(scripted(crash_after=0.1, dying=0.0)) as node:
        told: list[str] = []
        node.workloads.kick = told.append
        node.workloads.started(node.pod, ADDRESS)
        node.workloads.view(node.pod, node.behaviour)
        async with asyncio.timeout(2):
            while not told:
                await asyncio.sleep(0.01)
            node.workloads.view(node.pod, node.behaviour)
            while len(told) < 2:
                await asyncio.sleep(0.01)
        assert node.workloads.view(node.pod, node.behaviour).kind == "crash"


async def test_switches_of_a_serving_engine_work_at_once() -> None:
    async with running() as node:
        await node.until(Phase.READY)
        node.behaviour = scripted(unlisted=True)
        assert (await node.ask("/v1/models"))[1]["data"] == []
        assert (await node.ask("/v1/chat/completions", CHAT))[0] == 404
        node.behaviour = scripted(first_token=0.3)
        began = time.monotonic()
        assert (await node.ask("/v1/chat/completions", CHAT))[0] == 200
        assert time.monotonic() - began >= 0.3
        node.behaviour = scripted(fail="NoWeights")
        node.look()
        assert node.state.phase is Phase.READY, "a start that is over cannot fail"


@pytest.mark.parametrize("kind", ["never-ready", "crash", "oom"])
async def test_a_rule_about_the_container_takes_the_engine_away(kind: Any) -> None:
    async with running() as node:
        await node.until(Phase.READY)
        node.behaviour = Behaviour(kind)
        assert (await node.ask("/health"))[0] == 502


async def test_a_pod_that_is_gone_is_forgotten() -> None:
    async with running() as node:
        await node.until(Phase.READY)
        node.workloads.gone(node.pod["metadata"]["uid"])
        assert (await node.ask("/health"))[0] == 502


def test_a_script_survives_its_way_over_http() -> None:
    rules = Behaviours()
    said = scripted(phases={"load": 2}, crash_after=1.5, unlisted=True)
    rules.add(said, Selector(component="engine"))
    (rule,) = rules.rules()
    assert behaviour.parse(rule.to_json()) == (said, Selector(component="engine"))
    with pytest.raises(ValueError, match="unknown fields of an engine's script: mood"):
        behaviour.parse({"kind": "normal", "engine": {"mood": "bad"}})
