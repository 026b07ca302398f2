"""Asking the hub beside the passes: once for all, never for ever, and not again for what cannot change."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.fetch import resolve
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.reconcile import resolution
from unit.desired import samples

Json = Any
COMMIT = samples.COMMIT
ANSWER = resolve.Resolved(commit=COMMIT, size_bytes=20, weight_bytes=10, config={}, params={})


class World:
    """A hub, a clock and one Secret."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, str, str, str | None]] = []
        self.answer: resolve.Resolved | Exception = ANSWER
        self.gate = threading.Event()
        self.gate.set()
        self.passes: list[tuple[str, str]] = []
        self.secret: Json = {"token": base64.b64encode(b"hf_secret\n").decode()}
        self.hub = resolution.Resolutions(
            self,  # type: ignore[arg-type]
            endpoint="https://hub.example.com",
            add=self.passes.append,
            ask=self.ask,
            clock=lambda: self.now,
        )

    async def get(self, kind: kinds.Kind, namespace: str, name: str) -> Json:
        assert (kind, namespace, name) == (kinds.SECRET, "team-a", "hf")
        if self.secret is None:
            raise errors.NotFound("Secret hf")
        return {"data": self.secret}

    def ask(self, model: str, revision: str, *, endpoint: str, token: str | None) -> resolve.Resolved:
        self.gate.wait(5)
        self.asked.append((model, revision, endpoint, token))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def look(self, spec: Json = None, *, commit: str = "", name: str = "demo") -> resolution.Look:
        sandbox = samples.sandbox(spec or {})
        metadata = sandbox.metadata.model_copy(update={"name": name})
        return self.hub.look(sandbox.model_copy(update={"metadata": metadata}), commit=commit)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def settled(self, spec: Json = None, *, commit: str = "") -> resolution.Look:
        """The look after the next answer."""
        before = len(self.passes)
        self.look(spec, commit=commit)
        await self.until(lambda: len(self.passes) > before)
        return self.look(spec, commit=commit)


async def test_a_look_returns_at_once_and_a_pass_follows_the_answer() -> None:
    world = World()
    world.gate.clear()
    assert world.look() == resolution.Look()
    assert world.look() == resolution.Look()
    world.gate.set()
    await world.until(lambda: world.passes == [("team-a", "demo")])
    found = world.look().model
    assert found is not None
    assert (found.commit, found.size_bytes, found.weight_bytes) == (COMMIT, 20, 10)
    assert world.asked == [("mistralai/Mistral-7B-Instruct-v0.3", "main", "https://hub.example.com", None)]


async def test_sandboxes_with_the_same_model_share_one_answer() -> None:
    world = World()
    world.gate.clear()
    for name in ("a", "b", "c"):
        world.look(name=name)
    world.gate.set()
    await world.until(lambda: len(world.passes) == 3)
    assert {name for _, name in world.passes} == {"a", "b", "c"}
    assert len(world.asked) == 1


async def test_a_branch_is_asked_for_again_after_a_while_and_a_commit_never() -> None:
    world = World()
    await world.settled()
    world.now = resolution.FRESH - 1
    world.look()
    world.look(commit=COMMIT)
    world.now = 10**9
    assert world.look(commit=COMMIT).model is not None
    await asyncio.sleep(0.01)
    assert len(world.asked) == 1
    assert world.look() == resolution.Look()
    await world.until(lambda: len(world.asked) == 2)


@pytest.mark.parametrize(
    ("failure", "waits"),
    [
        (FetchFailure.HubUnreachable, [5, 10, 20, 40, 60, 60]),
        (FetchFailure.GatedNotGranted, [60, 60, 60, 60, 60, 60]),
    ],
)
async def test_a_refusal_is_tried_again_later_and_later(failure: FetchFailure, waits: list[int]) -> None:
    world = World()
    world.answer = FetchError(failure, "words")
    for number, wait in enumerate(waits, 1):
        found = await world.settled()
        assert found.failure is not None
        assert found.failure.failure is failure
        assert found.again == wait
        assert len(world.asked) == number
        world.now += wait
    world.answer = ANSWER
    assert (await world.settled()).model is not None


async def test_the_last_refusal_is_told_until_there_is_another_answer() -> None:
    world = World()
    world.answer = FetchError(FetchFailure.HubUnreachable, "words")
    await world.settled()
    world.now += 5
    world.gate.clear()
    assert world.look().failure is not None
    world.gate.set()
    await world.hub.close()


async def test_the_token_of_the_sandbox_goes_with_the_question_and_into_no_other_ones() -> None:
    world = World()
    spec = {"model": {"tokenSecretRef": {"name": "hf", "key": "token"}}}
    await world.settled(spec)
    await world.settled()
    assert [token for *_, token in world.asked] == ["hf_secret", None]
    assert "hf_secret" not in repr(vars(world.hub))


async def test_a_token_that_cannot_be_read_asks_nobody() -> None:
    world = World()
    world.secret = None
    found = await world.settled({"model": {"tokenSecretRef": {"name": "hf", "key": "token"}}})
    assert found.failure is not None
    assert "Secret" in found.failure.detail
    assert world.asked == []


async def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "PATIENCE", 0.01)
    world = World()
    world.gate.clear()
    found = await world.settled()
    world.gate.set()
    assert found.failure is not None
    assert found.failure.failure is FetchFailure.HubUnreachable


async def test_a_defect_is_told_and_tried_again() -> None:
    world = World()
    world.answer = ZeroDivisionError("x")
    found = await world.settled()
    assert found.failure is not None
    assert found.failure.failure is FetchFailure.Unexpected


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "_MOST", 4)
    world = World()
    for number in range(20):
        await world.settled({"model": {"id": f"acme/model-{number}"}})
    assert len(world.hub._entries) <= 6
