"""From `kubectl apply` to Ready, and what a person sees on the way: conditions, columns, events, causes."""

from __future__ import annotations

import asyncio
import collections
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from controlplane import steps
from controlplane.steps import placed, public
from lab.cluster.lab import Lab
from lab.cluster.nodes.behaviour import Behaviour
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world with one GPU, so each test gives its GPU back."""
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("lifecycle")
    async with World(lab, folder, operator={"flags": steps.FLAGS}) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest_asyncio.fixture(loop_scope="module")
async def name(world: World) -> AsyncIterator[str]:
    """A name; its sandbox and that of `<name>-2` go after the test, which frees the GPU."""
    made = f"l-{uuid.uuid4().hex[:6]}"
    yield made
    world.lab.nodes.forget()
    for each in (made, f"{made}-2"):
        if await world.get(kinds.SANDBOX, each) is not None:
            await world.delete(each)
            await world.gone(each)

        async def freed(each: str = each) -> bool:
            engine = f"{names.LABEL_SANDBOX}={each},{names.LABEL_COMPONENT}=engine"
            return not await world.api.list_all(kinds.POD, world.namespace, label_selector=engine)

        await world.eventually(freed, what="the end of the engine's pods")


async def events(world: World, name: str) -> list[dict[str, Any]]:
    found = await world.api.list_all(kinds.EVENT, world.namespace)
    return [
        e for e in found if e["involvedObject"]["kind"] == names.KIND and e["involvedObject"]["name"] == name
    ]


async def kubectl(world: World, *arguments: str) -> str:
    """In a thread: the operator's way to the API server leads through this test's loop."""
    return await asyncio.to_thread(world.lab.plane.kubectl, *arguments, "-n", world.namespace)


async def uid_of(world: World, kind: kinds.Kind, name: str) -> str:
    live = await world.get(kind, name)
    assert live is not None, f"{kind.kind} {name}"
    return str(live["metadata"]["uid"])


async def test_a_sandbox_inside_the_cluster_becomes_ready_and_reads_well(world: World, name: str) -> None:
    await world.apply(name, {})
    await kubectl(world, "wait", "--for=condition=Ready", "--timeout=30s", f"aisb/{name}")
    live = await world.sandbox(name)
    assert {c["type"]: c["status"] for c in live["status"]["conditions"]} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "SpecValid": "True",
        "NetworkProtected": "True",
        "ModelCached": "True",
        "EngineReady": "True",
        "ChatReady": "True",
        "Exposed": "True",
    }
    assert live["metadata"].get("finalizers") is None, "nothing at Linode, so nothing to wait for"
    assert await world.get(kinds.SERVICE, name) is None
    header, row = (line.split() for line in (await kubectl(world, "get", "aisb", name)).splitlines())
    assert header[0] == "NAME"
    for column in ("READY", "REASON", "MODEL", "GPU", "ENDPOINT", "AGE"):
        assert column in header
    shown = dict(zip(header, row, strict=True))
    assert shown["READY"] == "True"
    assert shown["REASON"] == "AllReady"
    assert shown["ENDPOINT"] == f"https://{name}-internal.{world.namespace}.svc:3000"
    wide = (await kubectl(world, "get", "aisb", name, "-o", "wide")).splitlines()
    assert "EXPOSURE" in wide[0]
    assert "MESSAGE" in wide[0]
    assert "ClusterIP" in wide[1]
    assert "Every part of the sandbox is ready" in wide[1]


async def test_events_come_with_transitions_and_without_duplicates(world: World, name: str) -> None:
    await world.apply(name, public(lifecycle={"state": "Running"}))
    await world.until(name, "Ready")
    await placed(world, name)
    await world.quiet()
    told = await events(world, name)
    assert "AllReady" in {e["reason"] for e in told}
    count = collections.Counter((e["reason"], e["message"]) for e in told)
    assert max(count.values()) == 1
    assert [(e["reason"], e["message"]) for e in told if e["type"] == "Warning"] == []
    assert max(e["count"] for e in told) == 1, "a start is no back and forth"
    assert await world.operator.stop() == 0
    await world.operator.start()
    await world.quiet()
    assert len(await events(world, name)) == len(told)


async def test_suspending_frees_the_gpu_for_the_next_and_keeps_the_rest(world: World, name: str) -> None:
    await world.apply(name, public(lifecycle={"state": "Running"}))
    await world.until(name, "Ready")
    at = await placed(world, name)
    kept = [(kinds.PVC, f"{name}-model"), (kinds.PVC, f"{name}-chat"), (kinds.SERVICE, name)]
    before = [await uid_of(world, *one) for one in kept]
    second = f"{name}-2"
    await world.apply(second, {})
    told = await world.until(second, "EngineReady", "False", reason="GPUsInUse", timeout=20)
    assert "nvidia.com/gpu" in told["message"]

    await world.edit(name, {"lifecycle": {"state": "Suspended"}})
    await world.until(name, "Ready", "False", reason="Suspended")
    await world.until(second, "Ready", timeout=30)
    assert [await uid_of(world, *one) for one in kept] == before
    assert await placed(world, name) == at
    assert (await world.condition(name, "ChatReady"))["status"] == "True"

    await world.delete(second)
    await world.gone(second)
    await world.edit(name, {"lifecycle": {"state": "Running"}})
    await world.until(name, "Ready")
    assert [await uid_of(world, *one) for one in kept] == before
    assert await placed(world, name) == at


async def test_exposure_there_and_back_releases_the_firewall_and_the_finalizer(
    world: World, name: str
) -> None:
    entries = [{"cidr": steps.ALLOWED}]
    spec = {"lifecycle": {"state": "Suspended"}}
    await world.apply(name, {**spec, "access": {"allowlist": entries}})
    await world.until(name, "NetworkProtected")
    await world.edit(name, {"access": {"exposure": "NodeBalancer"}})
    at = await placed(world, name)
    assert names.FINALIZER in (await world.sandbox(name))["metadata"]["finalizers"]
    watchman = steps.Watchman(world)
    await world.edit(name, {"access": {"exposure": "ClusterIP"}})

    async def released() -> bool:
        live = await world.sandbox(name)
        state = world.linode.state
        return (
            not live["metadata"].get("finalizers")
            and at.firewall not in state.firewalls
            and at.balancer not in state.nodebalancers
            and "linode" not in live["status"]
        )

    await world.eventually(released, what="the release")
    assert watchman.openings == []
    await world.until(name, "Exposed", reason="NotExposed")
    assert await world.get(kinds.SERVICE, name) is None


async def test_the_chat_comes_back_with_its_volume_and_password(world: World, name: str) -> None:
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    await world.until(name, "ChatReady", reason="ChatServing")
    claim = await uid_of(world, kinds.PVC, f"{name}-chat")
    secret = await world.get(kinds.SECRET, f"{name}-chat-admin")
    assert secret is not None
    await world.edit(name, {"chat": {"enabled": False}})
    await world.until(name, "ChatReady", reason="ChatDisabled")

    async def ended() -> bool:
        return await world.get(kinds.DEPLOYMENT, f"{name}-chat") is None

    await world.eventually(ended, what="the end of the chat")
    await world.edit(name, {"chat": {"enabled": True}})
    await world.until(name, "ChatReady", reason="ChatServing")
    assert await uid_of(world, kinds.PVC, f"{name}-chat") == claim
    again = await world.get(kinds.SECRET, f"{name}-chat-admin")
    assert again is not None
    assert again["data"] == secret["data"]


FAILURES = {
    "CrashLoop": (Behaviour("crash", exit_code=3, message="CUDA error: out of memory"), "CUDA error"),
    "OutOfMemory": (Behaviour("oom"), "memory"),
    "ImageNotFound": (Behaviour("image-pull"), "engine"),
}


@pytest.mark.parametrize("reason", FAILURES)
async def test_why_the_engine_does_not_run_is_told_in_seconds_and_recovery_too(
    world: World, name: str, reason: str
) -> None:
    behaviour, words = FAILURES[reason]
    world.lab.nodes.behave(behaviour, component="engine", namespace=world.namespace)
    await world.apply(name, {})
    told = await world.until(name, "EngineReady", "False", reason=reason, timeout=15)
    assert words in told["message"]
    await world.until(name, "Ready", "False", reason=reason)

    async def announced() -> bool:
        return reason in {e["reason"] for e in await events(world, name) if e["type"] == "Warning"}

    await world.eventually(announced, what="the Warning event")
    world.lab.nodes.forget()
    await world.until(name, "Ready", timeout=30)


async def test_a_plan_that_no_node_has_is_told_and_mended_by_an_edit(world: World, name: str) -> None:
    await world.apply(name, {"gpu": {"plan": "g2-gpu-rtx4000a1-xl"}})
    told = await world.until(name, "EngineReady", "False", reason="NoMatchingNode", timeout=15)
    assert "node" in told["message"]
    await world.edit(name, {"gpu": {"plan": "g2-gpu-rtx4000a1-m"}})
    await world.until(name, "Ready", timeout=30)


async def test_a_failed_download_is_told_with_its_own_words(world: World, name: str) -> None:
    failure = Behaviour("fail", exit_code=78, message="no such model: nobody/nothing")
    world.lab.nodes.behave(failure, component="fetch", namespace=world.namespace)
    await world.apply(name, {"model": {"id": "nobody/nothing"}})
    await world.until(name, "ModelCached", "False", reason="FetchFailed", timeout=15)

    async def explained() -> bool:
        return "no such model" in (await world.condition(name, "ModelCached"))["message"]

    await world.eventually(explained, timeout=10, what="the words of the download")
    world.lab.nodes.forget()
    await world.edit(name, {"model": {"id": "mistralai/Mistral-7B-Instruct-v0.3"}})
    await world.until(name, "Ready", timeout=30)
