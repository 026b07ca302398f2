"""Asking the engine: its models, and one request per life of its container."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import models
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.pods import PodUnreachable
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import engines, pursuit, views
from unit.desired import samples

Json = Any
SANDBOX = samples.sandbox({})
NAME = models.served_name(SANDBOX.spec.model)
KEY = "k" * 40
READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.2.0.9"}
RUNS = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), 1)


class World:
    """One engine pod."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pursuit, "FIRST_RETRY", 0.001)
        monkeypatch.setattr(pursuit, "LONGEST_RETRY", 0.002)
        self.restarts = 0
        self.models: tuple[int, Json] | Exception = (200, {"data": [{"id": NAME, "max_model_len": 8192}]})
        self.answers: dict[str, int] = {"/v1/completions": 200, "/v1/embeddings": 404}
        self.asked: list[tuple[str, str]] = []
        self.refusal: errors.KubeError | None = None
        self.passes = 0
        self.engines = engines.Engines(self, self.request, add=self.add)  # type: ignore[arg-type]

    def add(self, key: tuple[str, str]) -> None:
        assert key == SANDBOX.key
        self.passes += 1

    async def list_all(self, kind: kinds.Kind, namespace: str, *, label_selector: str) -> list[Json]:
        assert (kind, namespace) == (kinds.POD, SANDBOX.metadata.namespace)
        assert "app.kubernetes.io/component=engine" in label_selector
        if self.refusal:
            raise self.refusal
        status = {**READY, "containerStatuses": [{"restartCount": self.restarts}]}
        return [{"metadata": {"name": "demo-engine-1", "uid": "p"}, "status": status}]

    async def request(
        self,
        method: str,
        address: str,
        port: int,
        path: str,
        *,
        token: str = "",
        json: Json = None,
        patience: float | None = None,
    ) -> tuple[int, str]:
        assert (address, port, token) == ("10.2.0.9", 8000, KEY)
        self.asked.append((method, path))
        if method == "POST":
            assert json["model"] == NAME
            assert json.get("max_tokens", 1) == 1
            assert patience == engines.PATIENCE
            return self.answers[path], "{}"
        if isinstance(self.models, Exception):
            raise self.models
        return self.models[0], _text(self.models[1])

    def prove(self, version: str = "1", *, ready: int = 1, spec: Json = None) -> views.EngineProof:
        return self.engines.prove(SANDBOX, deployment(version, ready, spec), key=KEY)

    async def until(self, condition: Callable[[views.EngineProof], bool], **goal: Json) -> views.EngineProof:
        for _ in range(2000):
            if condition(found := self.prove(**goal)):
                return found
            await asyncio.sleep(0.001)
        raise AssertionError(f"not reached; last {found}")


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def deployment(version: str, ready: int, spec: Json = None) -> seen.Seen:
    manifest = samples.child(samples.rendered(spec), "Deployment", "demo-engine")
    metadata = {**manifest["metadata"], "uid": "u", "generation": 1, "resourceVersion": version}
    status = {**RUNS, "readyReplicas": ready, "observedGeneration": 1}
    return seen.observe("Deployment", {**manifest, "metadata": metadata, "status": status})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_an_engine_that_answered_is_proven_and_tells_its_context(world: World) -> None:
    first = world.prove()
    assert (first.proven, first.unseen) == (False, True)
    found = await world.until(lambda proof: proof.proven)
    assert found.max_context_tokens == 8192
    assert world.asked == [("GET", "/v1/models"), ("POST", "/v1/completions")]
    assert world.passes == 1
    # Settled: nobody is asked.
    for _ in range(5):
        world.prove()
        await asyncio.sleep(0.001)
    assert len(world.asked) == 2


async def test_it_is_asked_again_when_the_deployment_changes_but_warmed_up_once(world: World) -> None:
    await world.until(lambda proof: proof.proven)
    assert world.prove("2").proven, "what was proven stands while it is looked again"
    while len(world.asked) < 3:
        await asyncio.sleep(0.001)
    assert world.asked[2:] == [("GET", "/v1/models")]


async def test_a_container_that_started_anew_is_warmed_up_again(world: World) -> None:
    await world.until(lambda proof: proof.proven)
    assert not world.prove("2", ready=0).proven
    world.restarts = 1
    assert not world.prove("3").proven
    await world.until(lambda proof: proof.proven, version="3")
    assert world.asked[2:] == [("GET", "/v1/models"), ("POST", "/v1/completions")]


async def test_another_template_ends_the_proof(world: World) -> None:
    await world.until(lambda proof: proof.proven)
    assert not world.prove("2", spec={"model": {"maxContextTokens": 512}}).proven
    await world.engines.close()


async def test_a_model_for_embeddings_is_warmed_up_its_own_way(world: World) -> None:
    world.answers = {"/v1/completions": 404, "/v1/embeddings": 200}
    await world.until(lambda proof: proof.proven)
    assert world.asked[1:] == [("POST", "/v1/completions"), ("POST", "/v1/embeddings")]


@pytest.mark.parametrize(
    ("models_answer", "answers", "words"),
    [
        ((200, {"data": [{"id": "another"}]}), {}, "does not list"),
        ((401, "{}"), {}, "another key"),
        ((200, "no JSON"), {}, "does not list"),
        ((200, {"data": 7}), {}, "does not list"),
        (PodUnreachable("port 8000 is not reached"), {}, "is not reached"),
        (None, {"/v1/completions": 500}, "POST /v1/completions, is answered with status 500"),
        (None, {"/v1/completions": 404, "/v1/embeddings": 404}, "POST /v1/embeddings"),
    ],
)
async def test_an_engine_that_does_not_answer_is_not_proven_and_comes_back_by_itself(
    world: World, models_answer: Json, answers: dict[str, int], words: str
) -> None:
    good = world.models, dict(world.answers)
    world.models = models_answer or world.models
    world.answers |= answers
    found = await world.until(lambda proof: words in proof.message)
    assert (found.proven, found.reason) == (False, Reason.EngineUnproven)
    assert KEY not in repr(found)
    world.models, world.answers = good
    await world.until(lambda proof: proof.proven)


async def test_no_answer_of_the_api_server_proves_nothing(world: World) -> None:
    world.refusal = errors.Unavailable("away")
    found = await world.until(lambda proof: "away" in proof.message)
    assert not found.proven
    world.refusal = None
    await world.until(lambda proof: proof.proven)


async def test_a_context_that_is_no_number_is_not_told(world: World) -> None:
    world.models = (200, {"data": [{"id": NAME, "max_model_len": True}]})
    assert (await world.until(lambda proof: proof.proven)).max_context_tokens is None


def test_the_key_is_in_no_representation_of_the_goal() -> None:
    goal = engines.Goal(selector="s", served_name="n", template="t", version="1", key=KEY)
    assert KEY not in repr(goal)
