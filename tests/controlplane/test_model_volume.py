"""The model's volume is on one node at a time, and may be made anew: the download follows it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds
from controlplane import steps
from lab.cluster.lab import Lab
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

Object = dict[str, Any]
PLAN = "g2-gpu-rtx4000a1-m"
#: So much of the node's 7.9 CPUs that no download has room beside the engine.
LARGE = {"resources": {"requests": {"cpu": "7600m"}}}
SUSPENDED, RUNNING = ({"lifecycle": {"state": state}} for state in ("Suspended", "Running"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("volume")
    async with World(lab, folder, operator={"flags": [*steps.FLAGS, "--no-leader-elect"]}) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest_asyncio.fixture(loop_scope="module")
async def name(world: World) -> AsyncIterator[str]:
    """A name; its sandbox goes after the test, which frees the GPU."""
    made = f"v-{uuid.uuid4().hex[:6]}"
    yield made
    world.lab.nodes.forget()
    if await world.get(kinds.SANDBOX, made) is not None:
        await world.delete(made)
        await world.gone(made)

    async def freed() -> bool:
        return not await world.pods(made, "engine")

    await world.eventually(freed, what="the end of the engine's pods")


async def jobs(world: World, name: str) -> dict[str, Object]:
    """The downloads that are under way or done, by UID."""
    selector = f"sandbox.linode.com/name={name}"
    found = await world.api.list_all(kinds.JOB, world.namespace, label_selector=selector)
    return {
        one["metadata"]["uid"]: one for one in found if one["metadata"]["name"].startswith(f"{name}-fetch-")
    }


def beside_engine(job: Object) -> bool:
    return "podAffinity" in job["spec"]["template"]["spec"]["affinity"]


async def waiting_beside_the_engine(world: World, name: str) -> Object:
    """The download of the next model, whose pod finds no room."""

    async def refused() -> Object | None:
        found = [one for one in (await jobs(world, name)).values() if beside_engine(one)]
        pods = await world.pods(name, "fetch")
        conditions = [c for pod in pods for c in (pod.get("status") or {}).get("conditions") or ()]
        return found[0] if found and any(c.get("reason") == "Unschedulable" for c in conditions) else None

    return await world.eventually(refused, what="a download that waits for room beside the engine")


async def restart(world: World) -> None:
    world.operator.kill()
    await world.operator.wait()
    await world.operator.start()


@pytest.mark.slow
async def test_a_download_without_room_beside_the_engine_goes_on_when_that_is_suspended(
    world: World, name: str
) -> None:
    await world.apply(name, {"model": {"id": "acme/first"}, "gpu": {"plan": PLAN}, "engine": LARGE})
    await world.until(name, "Ready")
    await world.edit(name, {"model": {"id": "acme/second"}})
    job = await waiting_beside_the_engine(world, name)
    # A commit that is not in the status yet would be asked for anew.
    await world.quiet()
    assert (await world.condition(name, "ModelCached"))["status"] == "False"
    await world.edit(name, SUSPENDED)
    await restart(world)
    await world.edit(name, RUNNING)
    # The scheduler tries a pod that found no room again after pauses of its own.
    await world.until(name, "Ready", timeout=120)
    assert job["metadata"]["uid"] not in await jobs(world, name)
    (engine,) = await world.pods(name, "engine")
    assert any("acme-second" in argument for argument in engine["spec"]["containers"][0]["args"])


async def test_a_model_is_fetched_while_the_engine_finds_no_node(world: World, name: str) -> None:
    await world.apply(name, {"model": {"id": "acme/first"}, "gpu": {"plan": "g2-gpu-rtx4000a1-xl"}})
    await world.until(name, "EngineReady", "False", reason="NoMatchingNode")
    await world.edit(name, {"model": {"id": "acme/second"}, "gpu": {"plan": PLAN}})
    await world.until(name, "Ready")


async def test_a_download_runs_on_the_node_of_the_engine_that_serves(world: World, name: str) -> None:
    await world.apply(name, {"model": {"id": "acme/first"}, "gpu": {"plan": PLAN}})
    await world.until(name, "Ready")
    (engine,) = await world.pods(name, "engine")
    first = await jobs(world, name)
    await world.edit(name, {"model": {"id": "acme/second"}})

    async def placed() -> list[Object] | None:
        pods = await world.pods(name, "fetch")
        names = {
            one["metadata"]["name"] for uid, one in (await jobs(world, name)).items() if uid not in first
        }
        found = [p for p in pods if p["metadata"]["labels"]["job-name"] in names]
        return [p for p in found if "nodeName" in p["spec"]] or None

    (pod,) = await world.eventually(placed, what="the download's pod")
    assert pod["spec"]["nodeName"] == engine["spec"]["nodeName"]
    await world.until(name, "Ready")


@pytest.mark.parametrize("unseen", [False, True])
async def test_a_volume_that_was_made_anew_gets_the_model_again_before_the_engine_starts(
    world: World, name: str, unseen: bool
) -> None:
    """Unseen: the operator is down meanwhile, and no pod holds the claim, as when their nodes are gone."""
    await world.apply(name, {"gpu": {"plan": PLAN}})
    await world.until(name, "Ready")
    await world.edit(name, SUSPENDED)

    async def freed() -> bool:
        return not await world.pods(name, "engine")

    async def no_claim() -> bool:
        return await world.get(kinds.PVC, f"{name}-model") is None

    await world.eventually(freed, what="the end of the engine")
    before = await jobs(world, name)
    claim = await world.get(kinds.PVC, f"{name}-model")
    assert claim is not None
    # The API server's times have whole seconds.
    await asyncio.sleep(1.1)
    world.lab.nodes.behave("slow", component="fetch", namespace=world.namespace, seconds=3)
    if unseen:
        world.operator.kill()
        await world.operator.wait()
        for pod in await world.pods(name, "fetch"):
            metadata = pod["metadata"]
            await world.api.delete(kinds.POD, world.namespace, metadata["name"], uid=metadata["uid"])
    await world.api.delete(kinds.PVC, world.namespace, f"{name}-model", uid=claim["metadata"]["uid"])
    if unseen:
        await world.eventually(no_claim, what="the end of the claim")
        await world.operator.start()

    async def anew() -> bool:
        live = await world.get(kinds.PVC, f"{name}-model")
        return live is not None and live["metadata"]["uid"] != claim["metadata"]["uid"]

    await world.eventually(anew, what="another claim")
    await world.edit(name, RUNNING)
    await world.until(name, "ModelCached", "False", reason="Fetching")
    assert await world.pods(name, "engine") == []
    await world.until(name, "Ready")
    assert not before.keys() & (await jobs(world, name)).keys()
