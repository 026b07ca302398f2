"""Resync: the start barrier, ghosts, missed events, and a watch that went deaf."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.runtime import resync
from ai_sandbox_operator.runtime import store as stores

Json = Any
KEY = ("team-a", "demo")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Lists(kube_client.KubeClient):
    """What the API server lists, by kind."""

    def __init__(self) -> None:
        self.items: dict[str, list[Json]] = defaultdict(list)
        self.errors: list[errors.KubeError] = []
        self.asked: list[tuple[str, str | None, str, bool]] = []

    async def list_all(
        self,
        kind: kinds.Kind,
        namespace: str | None,
        *,
        label_selector: str = "",
        metadata_only: bool = False,
        page_size: int = 500,
    ) -> list[Json]:
        self.asked.append((kind.kind, namespace, label_selector, metadata_only))
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return list(self.items[kind.kind])


class World:
    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.store = stores.Store(clock=self.clock)
        self.client = Lists()
        self.added: list[stores.Key] = []
        self.resync = resync.Resync(
            client=self.client,
            store=self.store,
            add=self.added.append,
            namespaces=namespaces,
            interval=0.01,
            clock=self.clock,
        )

    def exists(self, kind: kinds.Kind, name: str, version: int, *, seen: int | None = None) -> None:
        """An object at `version`, of which the watch has told `seen` (None: nothing)."""
        self.client.items[kind.kind] = [
            item for item in self.client.items[kind.kind] if item["metadata"]["name"] != name
        ] + [_object(name, version)]
        if seen is not None:
            self.store.observe(kind, "MODIFIED", _object(name, seen))

    async def round(self) -> list[stores.Key]:
        self.added.clear()
        self.clock.now += 1
        await self.resync.round()
        return self.added


def _object(name: str, version: int) -> Json:
    labels = {names.LABEL_SANDBOX: "demo"}
    return {
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": labels,
        }
    }


@pytest.fixture
def world() -> World:
    return World()


async def test_a_round_asks_for_metadata_of_every_kind_and_for_our_children_only(world: World) -> None:
    await world.round()
    selector = names.MANAGED_BY_SELECTOR
    assert world.client.asked == [
        (kind.kind, None, "" if kind is kinds.SANDBOX else selector, True) for kind in kinds.WATCHED
    ]


async def test_a_round_of_an_operator_of_two_namespaces_asks_in_both() -> None:
    world = World(namespaces=("a", "b"))
    await world.round()
    assert [namespace for kind, namespace, _, _ in world.client.asked if kind == "Secret"] == ["a", "b"]


async def test_every_sandbox_gets_a_pass_each_round(world: World) -> None:
    world.exists(kinds.SANDBOX, "demo", 5, seen=5)
    assert await world.round() == [KEY]
    assert world.resync.completed == world.clock.now
    assert world.resync.missed_total == 0


async def test_a_child_that_vanished_unseen_is_forgotten_and_its_sandbox_gets_a_pass(world: World) -> None:
    world.store.observe(kinds.SECRET, "ADDED", _object("demo-x", 5))
    assert await world.round() == [KEY]
    assert world.store.children(KEY) == {}


async def test_what_was_missed_gets_a_pass_and_is_counted(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 6, seen=5)
    assert await world.round() == [KEY]
    assert world.resync.missed_total == 1


async def test_a_watch_that_does_not_deliver_an_object_for_two_rounds_is_deaf(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 6, seen=5)
    await world.round()
    with pytest.raises(resync.Deaf, match=r"secrets.*demo-x"):
        await world.round()


async def test_a_watch_that_does_not_deliver_a_new_object_is_deaf(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 6)
    await world.round()
    with pytest.raises(resync.Deaf):
        await world.round()


async def test_a_watch_that_is_merely_behind_is_not_deaf(world: World) -> None:
    """An event may be under way each time; what counts is that something arrived in between."""
    for version in range(5, 15):
        world.exists(kinds.SECRET, "demo-x", version + 1, seen=version)
        await world.round()


async def test_two_objects_of_one_sandbox_do_not_make_a_deaf_watch(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 6, seen=5)
    await world.round()
    world.exists(kinds.SECRET, "demo-x", 6, seen=6)
    world.exists(kinds.SECRET, "demo-y", 8, seen=7)
    await world.round()


async def test_a_failed_list_ends_the_round_and_not_the_process(world: World) -> None:
    before = world.resync.completed
    world.client.errors = [errors.Unavailable("no")]
    with pytest.raises(errors.Unavailable):
        await world.round()
    assert world.resync.completed == before
    task = asyncio.create_task(world.resync.run())
    try:
        await asyncio.wait_for(world.resync.ready.wait(), 5)
        world.client.errors = [errors.Unavailable("no")] * 2
        asked = len(world.client.asked)
        async with asyncio.timeout(5):
            while len(world.client.asked) < asked + 2 + 2 * len(kinds.WATCHED):
                await asyncio.sleep(0.005)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_ready_before_the_watch_has_delivered_what_is_listed(world: World) -> None:
    world.exists(kinds.SANDBOX, "demo", 5, seen=5)
    world.exists(kinds.NETWORK_POLICY, "demo-gateway", 7)
    task = asyncio.create_task(world.resync.run())
    try:
        await asyncio.sleep(0.25)
        assert not world.resync.ready.is_set()
        assert world.added == []
        world.exists(kinds.NETWORK_POLICY, "demo-gateway", 7, seen=7)
        await asyncio.wait_for(world.resync.ready.wait(), 5)
        assert world.added[0] == KEY
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_kind_that_comes_after_the_start_ends_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf looks for kinds once: without a new process nothing of this one would ever be heard."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    world.client.errors = [errors.NotFound("404 page not found", status=404)] * 2
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        with pytest.raises(resync.Deaf, match="installed after the start"):
            await world.resync.run()
    assert not world.resync.ready.is_set()
    assert waits.count(5) == 2


async def test_a_newer_version_than_the_listed_one_is_as_good(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 7, seen=9)
    task = asyncio.create_task(world.resync.run())
    try:
        await asyncio.wait_for(world.resync.ready.wait(), 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_deaf_watch_ends_the_run(world: World) -> None:
    world.exists(kinds.SECRET, "demo-x", 6, seen=5)
    task = asyncio.create_task(world.resync.run())
    async with asyncio.timeout(5):
        while not task.done():
            world.clock.now += 1
            await asyncio.sleep(0.005)
    with pytest.raises(resync.Deaf):
        await task
