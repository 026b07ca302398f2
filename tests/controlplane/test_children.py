"""Children belong to the operator: drift ends in seconds, names of others are respected, one operator writes."""

from __future__ import annotations

import asyncio
import base64
import copy
import pathlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import errors
from controlplane import drift, steps
from controlplane.drift import EDITS, Object, essence
from controlplane.steps import placed, public
from lab.cluster.lab import Lab
from lab.operator_process import OperatorProcess
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: The sandbox whose children are edited; it stands through the module.
DRIFT = "drift"
RESTORED = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world in which `drift` is ready."""
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("children")
    async with World(lab, folder, operator={"flags": steps.FLAGS}) as made:
        await made.operator.start()
        await made.apply(DRIFT, public(lifecycle={"state": "Running"}))
        await made.until(DRIFT, "Ready")
        await placed(made, DRIFT)
        await made.quiet()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest.fixture
def name() -> str:
    return f"c-{uuid.uuid4().hex[:6]}"


async def replace(world: World, kind: kinds.Kind, name: str, change: Callable[[Object], None]) -> Object:
    """Read, change, PUT, as `kubectl edit` does; what was before."""
    while True:
        before = await world.api.get(kind, world.namespace, name)
        after = copy.deepcopy(before)
        change(after)
        try:
            path = kind.path(world.namespace, name)
            await world.api._request(
                "edit", kind, "PUT", path, body=after, query={"fieldManager": "kubectl-edit"}
            )
        except errors.Conflict:
            continue
        return before


@pytest.mark.parametrize(
    ("kind", "suffix", "change"), EDITS, ids=lambda v: getattr(v, "kind", getattr(v, "__name__", v))
)
async def test_an_edited_child_is_restored(
    world: World, kind: kinds.Kind, suffix: str, change: Callable[[Object], None]
) -> None:
    child = f"{DRIFT}-{suffix}" if suffix else DRIFT
    before = essence(await replace(world, kind, child, change))

    async def restored() -> bool:
        live = await world.get(kind, child)
        return live is not None and essence(live) == before

    await world.eventually(restored, timeout=RESTORED, what=f"the repair of {kind.kind} {child}")


async def test_a_changed_engine_is_restored_and_only_then_is_its_pod_replaced(world: World) -> None:
    child = f"{DRIFT}-engine"
    before = essence(
        await replace(world, kinds.DEPLOYMENT, child, drift.container("image", "registry.example/other:1"))
    )

    async def restored() -> bool:
        live = await world.get(kinds.DEPLOYMENT, child)
        return live is not None and essence(live)["spec"] == before["spec"]

    await world.eventually(restored, timeout=RESTORED, what="the repair of the engine")
    await world.until(DRIFT, "Ready")


async def test_every_deleted_child_comes_back(world: World) -> None:
    before = await world.children(DRIFT)
    doomed = [key for key in before if key[0] not in ("PersistentVolumeClaim", "Job")]
    doomed = [key for key in doomed if key not in (("Secret", f"{DRIFT}-ca"), ("Service", DRIFT))]
    for kind, child in doomed:
        uid = before[kind, child]["metadata"]["uid"]
        await world.api.delete(kinds.BY_NAME[kind], world.namespace, child, uid=uid)

    async def back() -> bool:
        now = await world.children(DRIFT)
        return all(
            key in now and now[key]["metadata"]["uid"] != before[key]["metadata"]["uid"] for key in doomed
        )

    # Two dozen at once, on a machine that may have other work.
    await world.eventually(back, timeout=5 * RESTORED, what="the children")
    await world.until(DRIFT, "Ready")


async def test_labels_and_annotations_of_others_survive(world: World) -> None:
    foreign = {"team.example/owner": "somebody"}
    patch = {"metadata": {"labels": foreign, "annotations": foreign}}
    targets = ((kinds.DEPLOYMENT, "gateway"), (kinds.SECRET, "gateway"), (kinds.NETWORK_POLICY, "engine"))
    for kind, suffix in targets:
        await world.api.merge_patch(kind, world.namespace, f"{DRIFT}-{suffix}", patch)
        await replace(
            world, kind, f"{DRIFT}-{suffix}", lambda live: live["metadata"]["labels"].pop(names.LABEL_NAME)
        )
    await world.quiet()
    for kind, suffix in targets:
        live = await world.api.get(kind, world.namespace, f"{DRIFT}-{suffix}")
        assert live["metadata"]["labels"][names.LABEL_NAME] == names.APP_NAME
        for field in ("labels", "annotations"):
            assert foreign.items() <= live["metadata"][field].items(), (kind.kind, field)


async def test_an_object_of_somebody_else_is_never_touched_and_blocks_nothing_else(
    world: World, name: str
) -> None:
    taken: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-engine", "namespace": world.namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    before = await world.api.create(kinds.SERVICE, taken)
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    told = await world.until(name, "SpecValid", "False", reason="NameTaken")
    assert f"Service {name}-engine" in told["message"]
    await world.until(name, "Stalled", reason="NameTaken")
    await world.until(name, "ModelCached")
    await world.until(name, "ChatReady")
    after = await world.api.get(kinds.SERVICE, world.namespace, f"{name}-engine")
    assert after == before
    await world.api.delete(kinds.SERVICE, world.namespace, f"{name}-engine", uid=before["metadata"]["uid"])
    await world.until(name, "SpecValid", timeout=70)


async def test_what_the_api_server_refuses_is_told_counted_and_made_once_it_may_be(
    world: World, name: str
) -> None:
    quota: Object = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-more-volumes", "namespace": world.namespace},
        "spec": {"hard": {"persistentvolumeclaims": "0"}},
    }
    kind = kinds.Kind("v1", "ResourceQuota", "resourcequotas", watched=False)
    made = await world.api.create(kind, quota)
    await asyncio.sleep(1.0)  # the API server's own view of quotas is that old at most
    before = await refused_passes(world)
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    told = await world.until(name, "SpecValid", "False", reason="WriteRefused")
    assert "exceeded quota: no-more-volumes" in told["message"]
    assert await refused_passes(world) > before
    await world.until(name, "NetworkProtected")
    await world.api.delete(kind, world.namespace, "no-more-volumes", uid=made["metadata"]["uid"])
    await world.until(name, "SpecValid", timeout=70)


async def refused_passes(world: World) -> float:
    """Passes, so far, of which the API server refused a part."""
    port = re.findall(r'"port": (\d+)', world.operator.log())[-1]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    counted = [
        line for line in lines if line.startswith('ai_sandbox_reconcile_seconds_count{outcome="refused"}')
    ]
    return float(counted[0].split()[-1])


async def configuration(world: World, name: str) -> str:
    return "".join((await world.values(f"{name}-gateway")).values())


async def test_a_key_that_its_owner_chose_is_kept_and_reaches_the_gateway(world: World, name: str) -> None:
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    await world.until(name, "NetworkProtected")
    generated = (await world.values(f"{name}-api-keys"))["default"]
    assert generated in await configuration(world, name)
    chosen = "sk-chosen-by-hand-0123456789abcdef0123456789"
    patch = {"data": {"default": base64.b64encode(chosen.encode()).decode()}}
    await world.api.merge_patch(kinds.SECRET, world.namespace, f"{name}-api-keys", patch)

    async def reached() -> bool:
        text = await configuration(world, name)
        return chosen in text and generated not in text

    await world.eventually(reached, timeout=RESTORED, what="the new key at the gateway")
    assert await world.values(f"{name}-api-keys") == {"default": chosen}
    await world.edit(name, {"access": {"apiKeys": [{"name": "default"}, {"name": "second"}]}})

    async def added() -> bool:
        keys = await world.values(f"{name}-api-keys")
        served = "second" in keys and keys["second"] in await configuration(world, name)
        return served and keys["default"] == chosen

    await world.eventually(added, timeout=RESTORED, what="the second key")
    second = (await world.values(f"{name}-api-keys"))["second"]
    await world.edit(name, {"access": {"apiKeys": [{"name": "second"}]}})

    async def removed() -> bool:
        return await world.values(f"{name}-api-keys") == {
            "second": second
        } and chosen not in await configuration(world, name)

    await world.eventually(removed, timeout=RESTORED, what="the end of the first key")
    assert second in await configuration(world, name)


async def test_after_a_kill_of_the_leader_the_other_one_takes_over(
    world: World, name: str, tmp_path: pathlib.Path
) -> None:
    standby = OperatorProcess(
        kubeconfig=world.proxy.kubeconfig(tmp_path / "standby.kubeconfig"),
        linode_url=world.linode.url,
        log_path=tmp_path / "standby.log",
        namespaces=(world.namespace,),
        lease_namespace=world.namespace,
        pod_proxy=world.lab.pod_proxy,
        hub_endpoint=world.hub_url,
        flags=steps.FLAGS,
    )
    await standby.start(wait=False)
    try:

        async def warm() -> bool:
            return '"message": "serving health and metrics"' in standby.log()

        await world.eventually(warm, what="the standby")
        await asyncio.sleep(2.0)
        assert '"message": "reconciling"' not in standby.log(), "there is one leader"
        world.operator.kill()
        await world.operator.wait()
        began = time.monotonic()
        await world.apply(name, {"lifecycle": {"state": "Suspended"}})
        await world.until(name, "NetworkProtected", timeout=10)
        assert time.monotonic() - began < 10
        assert standby.running
    finally:
        code = await standby.stop()
    assert code == 0
    await world.operator.start()


async def test_sigterm_ends_it_cleanly_and_frees_the_lease(world: World, name: str) -> None:
    began = time.monotonic()
    assert await world.operator.stop() == 0
    assert time.monotonic() - began < 10
    lease = await world.api.get(kinds.LEASE, world.namespace, "ai-sandbox-operator")
    assert lease["spec"]["holderIdentity"] == ""
    mark = len(world.proxy.journal)
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    await asyncio.sleep(0.5)
    assert world.proxy.attempts(mark) == []
    began = time.monotonic()
    await world.operator.start()
    await world.until(name, "NetworkProtected", timeout=10)
    assert time.monotonic() - began < 10, "a freed lease is taken at once"
