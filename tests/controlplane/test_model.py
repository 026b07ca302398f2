"""The model before its download: resolved once, refused where it must be, and recovering by itself."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.desired.fetch import EXIT_PERMANENT
from lab.cluster.lab import Lab
from lab.hub import Fault, Generous, Hub, Repository, small_model
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

Object = dict[str, Any]
FIRST, SECOND = "1" * 40, "2" * 40
TOKEN = "hf_" + "a" * 34
GIB = 2**30


def repository(**more: Any) -> Repository:
    return Repository(files=small_model(500_000), **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    lab.nodes.forget()
    hub = Hub(generous=Generous(), tokens={TOKEN})
    async with World(
        lab, tmp_path_factory.mktemp("model"), operator={"flags": ["--no-leader-elect"]}, hub=hub
    ) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []


@pytest_asyncio.fixture(loop_scope="module")
async def name(world: World) -> AsyncIterator[str]:
    """A name; the sandboxes whose names begin with it end with the test, and give back their GPUs."""
    name = f"m-{uuid.uuid4().hex[:6]}"
    yield name
    for item in await world.api.list_all(kinds.SANDBOX, world.namespace):
        if item["metadata"]["name"].startswith(name):
            await world.delete(item["metadata"]["name"])
            await world.gone(item["metadata"]["name"])


async def jobs(world: World, name: str) -> list[Object]:
    selector = f"sandbox.linode.com/name={name}"
    return await world.api.list_all(kinds.JOB, world.namespace, label_selector=selector)


async def nothing_begun(world: World, name: str) -> None:
    """No download, no volume and no pod that would ask for a GPU."""
    assert await jobs(world, name) == []
    assert await world.get(kinds.PVC, f"{name}-model") is None
    assert await world.pods(name, "engine") == []


async def model_status(world: World, name: str) -> Object:
    found: Object = (await world.sandbox(name)).get("status", {}).get("model", {})
    return found


async def test_the_commit_is_pinned_until_the_spec_changes(world: World, name: str) -> None:
    held = repository(commit=FIRST, revisions={"v2": SECOND}, older={SECOND: small_model(600_000)})
    world.hub.repositories[f"acme/{name}"] = held
    await world.apply(name, {"model": {"id": f"acme/{name}"}})
    await world.until(name, "Ready")
    status = await model_status(world, name)
    assert status["revision"] == FIRST
    assert status["resolvedFrom"] == f"acme/{name}@main"
    assert status["downloadedBytes"] == status["sizeBytes"] > 500_000
    [job] = await jobs(world, name)
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--commit") + 1] == FIRST
    # The branch moves on; another edit, a restart of the operator and a lost status change nothing.
    held.older[FIRST], held.commit = held.files, "3" * 40
    before = len(world.hub.requests)
    await world.edit(name, {"access": {"apiKeys": [{"name": "other"}]}})
    await world.until(name, "Ready")
    await world.quiet()
    path = kinds.SANDBOX.path(world.namespace, name) + "/status"
    await world.api._request(
        "edit",
        kinds.SANDBOX,
        "PATCH",
        path,
        body={"status": None},
        content_type="application/merge-patch+json",
    )
    world.operator.kill()
    await world.operator.start()
    await world.until(name, "Ready")
    assert (await model_status(world, name))["revision"] == FIRST
    assert len(world.hub.requests) == before
    assert [item["metadata"]["uid"] for item in await jobs(world, name)] == [job["metadata"]["uid"]]
    # A named revision is another model.
    await world.edit(name, {"model": {"revision": "v2"}})
    await world.until(name, "Ready")
    assert (await model_status(world, name))["revision"] == SECOND


async def test_an_earlier_model_is_swept_once_the_next_one_serves(world: World, name: str) -> None:
    await world.apply(name, {"model": {"id": f"acme/{name}-a"}})
    await world.until(name, "Ready")
    [first] = await jobs(world, name)
    await world.edit(name, {"model": {"id": f"acme/{name}-b"}})
    await world.until(name, "Ready")

    async def swept() -> bool:
        found = await jobs(world, name)
        return len(found) == 1 and found[0]["metadata"]["uid"] != first["metadata"]["uid"]

    await world.eventually(swept, what="the end of the earlier model")
    await world.quiet()
    writes = [str(write) for write in world.proxy.attempts()]
    assert any(f"{name}-sweep-" in write for write in writes), writes[-20:]


@pytest.mark.parametrize(
    ("more", "without", "granted"),
    [
        ({"gated": "manual"}, "ModelGatedNoToken", True),
        ({"private": True}, "ModelNotFound", True),
        ({"gated": "manual"}, "ModelGatedNoToken", False),
    ],
)
async def test_a_model_that_needs_a_token_waits_for_it_without_a_volume_or_a_gpu(
    world: World, name: str, more: Object, without: str, granted: bool
) -> None:
    held = repository(**more, granted={TOKEN} if granted else set())
    world.hub.repositories[f"acme/{name}"] = held
    await world.apply(name, {"model": {"id": f"acme/{name}"}})
    found = await world.until(name, "ModelCached", "False", reason=without)
    assert "spec.model.tokenSecretRef" in found["message"]
    assert (await world.until(name, "Stalled"))["reason"] == without
    await nothing_begun(world, name)
    await world.edit(name, {"model": {"tokenSecretRef": {"name": f"{name}-hf", "key": "token"}}})
    await world.until(name, "SpecValid", "False", reason="SecretNotFound")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{name}-hf", "namespace": world.namespace},
        "data": {"token": base64.b64encode(TOKEN.encode()).decode()},
    }
    await world.api.create(kinds.SECRET, secret)
    if not granted:
        # The Secret is looked for every half minute.
        await world.until(name, "ModelCached", "False", reason="ModelGatedNotGranted", timeout=60)
        await nothing_begun(world, name)
        return
    await world.until(name, "Ready", timeout=60)
    assert TOKEN not in json.dumps(await world.sandbox(name))
    assert TOKEN not in world.operator.log()


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"id": "acme/nowhere"}, "ModelNotFound", "spec.model.id"),
        ({"id": "acme/real", "revision": "v9"}, "RevisionNotFound", "spec.model.revision"),
        ({"id": "acme/pickles"}, "NoWeights", "safetensors"),
    ],
)
async def test_a_wrong_model_is_told_and_a_corrected_one_goes_on(
    world: World, name: str, spec: Object, reason: str, field: str
) -> None:
    world.hub.repositories |= {
        "acme/real": repository(),
        "acme/pickles": Repository(files={"config.json": b"{}", "pytorch_model.bin": b"x" * 100}),
        "acme/nowhere": repository(private=True),
    }
    await world.apply(name, {"model": spec})
    found = await world.until(name, "ModelCached", "False", reason=reason)
    assert field in found["message"]
    await nothing_begun(world, name)
    await world.edit(name, {"model": {"id": "acme/real", "revision": "main"}})
    await world.until(name, "Ready")


async def test_a_hub_that_is_down_leaves_what_runs_alone_and_is_waited_for(world: World, name: str) -> None:
    await world.apply(f"{name}-old", {"model": {"id": f"acme/{name}-old"}})
    await world.until(f"{name}-old", "Ready")
    world.hub.faults.append(Fault(at=("api", "resolve"), status=503))
    try:
        await world.apply(name, {"model": {"id": f"acme/{name}"}})
        await world.until(name, "ModelCached", "False", reason="HubUnreachable", timeout=60)
        assert (await world.condition(name, "Stalled"))["status"] == "False"
        await nothing_begun(world, name)
        await world.edit(f"{name}-old", {"access": {"apiKeys": [{"name": "other"}]}})
        await world.until(f"{name}-old", "Ready")
        # A change of the model waits, and the engine serves on.
        pods = {pod["metadata"]["uid"] for pod in await world.pods(f"{name}-old", "engine")}
        await world.edit(f"{name}-old", {"model": {"revision": "v2"}})
        await world.until(f"{name}-old", "ModelCached", "False", reason="HubUnreachable", timeout=60)
        assert {pod["metadata"]["uid"] for pod in await world.pods(f"{name}-old", "engine")} == pods
        # And a suspension does not wait for anything.
        await world.edit(f"{name}-old", {"lifecycle": {"state": "Suspended"}})

        async def freed() -> bool:
            return await world.pods(f"{name}-old", "engine") == []

        await world.eventually(freed, what="the GPU")
    finally:
        world.hub.faults.clear()
    await world.until(name, "Ready", timeout=90)


async def test_a_model_that_cannot_fit_is_refused_before_anything_is_paid_for(
    world: World, name: str
) -> None:
    ident = f"acme/{name}"
    world.hub.repositories[ident] = repository()
    weights = [path for path in world.hub.repositories[ident].files if path.endswith(".safetensors")]
    world.hub.declared[ident] = {path: 60 * GIB // len(weights) for path in weights}
    await world.apply(name, {"model": {"id": ident}, "gpu": {"plan": "g2-gpu-rtx4000a1-m"}})
    found = await world.until(name, "SpecValid", "False", reason="ModelTooLarge")
    assert "60.0 GiB" in found["message"]
    assert "spec.gpu" in found["message"]
    assert (await world.condition(name, "Ready"))["reason"] == "ModelTooLarge"
    await nothing_begun(world, name)
    del world.hub.declared[ident]
    await world.edit(name, {"model": {"id": f"{ident}-small"}})
    await world.until(name, "Ready")


async def test_the_volume_is_as_large_as_the_listing_asks_for(world: World, name: str) -> None:
    ident = f"acme/{name}"
    world.hub.repositories[ident] = repository()
    weights = [path for path in world.hub.repositories[ident].files if path.endswith(".safetensors")]
    world.hub.declared[ident] = {path: 14 * GIB // len(weights) for path in weights}
    await world.apply(name, {"model": {"id": ident}, "gpu": {"plan": "g2-gpu-rtx4000a2-s", "count": 2}})

    async def claim() -> Object | None:
        return await world.get(kinds.PVC, f"{name}-model")

    found = await world.eventually(claim, what="the volume")
    assert found["spec"]["resources"]["requests"]["storage"] == "32Gi"


async def test_a_download_that_found_no_room_goes_on_when_the_volume_is_made_larger(
    world: World, name: str
) -> None:
    full = "DiskFull: 3.0 GiB are needed and 1.0 GiB are free. Raise spec.storage.modelCacheSize."
    rule = world.lab.nodes.behave(
        "fail", component="fetch", sandbox=name, exit_code=EXIT_PERMANENT, message=full
    )
    await world.apply(name, {"model": {"id": f"acme/{name}"}, "storage": {"modelCacheSize": "10Gi"}})
    found = await world.until(name, "ModelCached", "False", reason="DiskFull")
    assert "spec.storage.modelCacheSize" in found["message"]
    await world.until(name, "Stalled")
    world.lab.nodes.forget(rule)
    await world.edit(name, {"storage": {"modelCacheSize": "20Gi"}})
    await world.until(name, "Ready")
    claim = await world.get(kinds.PVC, f"{name}-model")
    assert claim is not None
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


async def test_a_plan_that_the_cluster_lacks_is_named_and_a_node_of_it_is_enough(
    world: World, name: str
) -> None:
    plan = "g2-gpu-rtx4000a1-xl"
    await world.apply(name, {"model": {"id": f"acme/{name}"}, "gpu": {"plan": plan}})
    found = await world.until(name, "EngineReady", "False", reason="NoMatchingNode")
    assert "spec.gpu.plan" in found["message"]
    [node] = world.lab.nodes.add(plan)
    try:
        await world.until(name, "Ready", timeout=60)
    finally:
        await world.delete(name)
        await world.gone(name)
        world.lab.nodes.remove(node)
