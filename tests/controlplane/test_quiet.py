"""What the operator leaves alone: I3 the spec, I4 a settled sandbox, I5 the engine's pods.

I8 and I9 stand here too: a condition is never ahead of the truth, and one sandbox never holds up another.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pathlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from lab.cluster.lab import Lab
from lab.linode import faults
from lab.world import World

OFFICE, HOME = "203.0.113.0/28", "198.18.77.64/30"
NAME = "calm"
PUBLIC = {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": OFFICE}]}}


async def settle(world: World, name: str = NAME) -> dict[str, Any]:
    await world.until(name, "Ready", timeout=60)
    await world.quiet(1.5)
    return await world.sandbox(name)


@contextlib.asynccontextmanager
async def no_writes(world: World) -> AsyncIterator[None]:
    """Within the block nothing even tries to write, to either API."""
    mark, linode = len(world.proxy.journal), world.linode.journal.last
    yield
    assert [str(e) for e in world.proxy.attempts(mark)] == []
    assert [str(e) for e in world.linode.journal.mutations(linode)] == []


async def restart(world: World) -> None:
    world.operator.kill()
    await world.operator.wait()
    await world.operator.start()


# -- I4, I3 --------------------------------------------------------------------------------------------------


async def _quiet_for(world: World, seconds: float) -> None:
    await world.apply(NAME, PUBLIC)
    await settle(world)
    async with no_writes(world):
        await asyncio.sleep(seconds)
        await restart(world)
        await asyncio.sleep(5)


async def test_a_settled_sandbox_costs_no_write_and_neither_does_a_restart(
    lab: Lab, tmp_path: pathlib.Path
) -> None:
    """With checks of the firewall and comparisons with the API server every few seconds."""
    lab.nodes.forget()
    flags = ["--no-leader-elect", "--linode-check-interval", "2", "--resync-interval", "5"]
    async with World(lab, tmp_path, operator={"flags": flags}) as world:
        await world.operator.start()
        await _quiet_for(world, 20)
        checks = world.linode.journal.since(0, token="operator", method="GET")
        assert len(checks) >= 10, "the firewall was looked at again and again"


@pytest.mark.slow
async def test_a_settled_sandbox_costs_no_write_for_a_minute(started: World) -> None:
    await _quiet_for(started, 60)


async def test_the_operator_owns_nothing_of_a_sandbox_but_status_and_finalizer(started: World) -> None:
    world = started
    await world.apply(NAME, PUBLIC, manager="argocd")
    live = await settle(world)
    owned = [f for f in live["metadata"]["managedFields"] if f["manager"] == names.FIELD_MANAGER]
    assert owned
    for entry in owned:
        if entry.get("subresource") == "status":
            assert set(entry["fieldsV1"]) == {"f:status"}
        else:
            assert set(entry["fieldsV1"]) == {"f:metadata"}
            assert set(entry["fieldsV1"]["f:metadata"]) <= {"f:finalizers"}
            held = {k for k in entry["fieldsV1"]["f:metadata"].get("f:finalizers", {}) if k != "."}
            assert held <= {f'v:"{names.FINALIZER}"'}


async def test_a_dry_run_of_the_same_manifest_by_another_manager_shows_no_difference(started: World) -> None:
    world = started
    await world.apply(NAME, PUBLIC, manager="argocd")
    live = await settle(world)
    metadata = {"name": NAME, "namespace": world.namespace}
    manifest = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": PUBLIC}
    for manager in ("argocd", "somebody-else"):
        dry = await world.api._request(
            "apply",
            kinds.SANDBOX,
            "PATCH",
            kinds.SANDBOX.path(world.namespace, NAME),
            query={"fieldManager": manager, "force": "true", "dryRun": "All"},
            body=manifest,
            content_type=kube_client.APPLY,
        )
        for one in (dry, live):
            one["metadata"].pop("managedFields", None)
        assert dry == live


# -- I5 ------------------------------------------------------------------------------------------------------


async def engine(world: World) -> tuple[str, str]:
    """The engine's pod template, and its ReplicaSets and pods by UID."""
    deployment = await world.api.get(kinds.DEPLOYMENT, world.namespace, f"{NAME}-engine")
    replicas = kinds.Kind("apps/v1", "ReplicaSet", "replicasets")
    label = f"{names.LABEL_SANDBOX}={NAME},{names.LABEL_COMPONENT}=engine"
    uids: list[str] = []
    for kind in (replicas, kinds.POD):
        items = await world.api.list_all(kind, world.namespace, label_selector=label)
        uids += sorted(item["metadata"]["uid"] for item in items)
    return json.dumps(deployment["spec"]["template"], sort_keys=True), " ".join(uids)


async def _patch(world: World, kind: kinds.Kind, name: str, patch: Mapping[str, Any]) -> None:
    await world.api.merge_patch(kind, world.namespace, name, dict(patch))


async def test_only_edits_of_model_engine_or_gpu_touch_the_engines_pods(started: World) -> None:
    world = started
    await world.apply(NAME, PUBLIC)
    await settle(world)
    before = await engine(world)

    async def unchanged(what: str) -> None:
        await settle(world)
        assert await engine(world) == before, what

    fresh = base64.b64encode(b"a-key-that-somebody-chose-0123456789").decode()
    await _patch(world, kinds.SECRET, f"{NAME}-api-keys", {"data": {"default": fresh}})
    await unchanged("rotation of an API key")
    await world.edit(NAME, {"access": {"apiKeys": [{"name": "default"}, {"name": "second"}]}})
    await unchanged("a further API key")
    await world.edit(NAME, {"access": {"allowlist": [{"cidr": HOME}]}})
    await unchanged("an edit of the allowlist")
    await world.edit(NAME, {"chat": {"enabled": False}})
    await unchanged("the chat turned off")
    await world.edit(NAME, {"chat": {"enabled": True, "admin": {"email": "other@example.org"}}})
    await unchanged("the chat turned on, for somebody else")
    note = {"metadata": {"annotations": {"example.org/note": "hello"}}}
    await _patch(world, kinds.SANDBOX, NAME, note)
    await _patch(world, kinds.DEPLOYMENT, f"{NAME}-engine", note)
    await unchanged("annotations")
    images = (("engine", "vllm/vllm-openai:v0.34.0"), ("gateway", "envoyproxy/envoy:v1.41.0"))
    world.operator.upgrade(*(part for name, image in images for part in (f"--{name}-image", image)))
    await restart(world)
    gateway = await world.eventually(lambda: _image(world, "gateway", "v1.41.0"), what="the new gateway")
    assert gateway
    await unchanged("an upgrade of the operator")

    await world.edit(NAME, {"engine": {"extraArgs": ["--max-num-seqs", "8"]}})
    await world.eventually(lambda: _image(world, "engine", "v0.34.0"), what="the engine's new template")
    await settle(world)
    assert (await engine(world))[1] != before[1]


async def _image(world: World, component: str, tag: str) -> bool:
    live = await world.api.get(kinds.DEPLOYMENT, world.namespace, f"{NAME}-{component}")
    return str(live["spec"]["template"]["spec"]["containers"][0]["image"]).endswith(tag)


# -- I8, I9 --------------------------------------------------------------------------------------------------


async def test_ready_is_never_true_while_no_engine_pod_is_ready(started: World, lab: Lab) -> None:
    """Ready may be late by as long as an event takes, never ahead."""
    world, late = started, 2.5
    wrong: list[str] = []
    bare_since: float | None = time.monotonic()
    rule = lab.nodes.behave("crash", component="engine", seconds=0.5)
    await world.apply(NAME, {})

    async def watch() -> None:
        nonlocal bare_since
        while True:
            ready = (await world.condition(NAME, "Ready"))["status"] == "True"
            label = f"{names.LABEL_SANDBOX}={NAME},{names.LABEL_COMPONENT}=engine"
            pods = await world.api.list_all(kinds.POD, world.namespace, label_selector=label)
            if any(_is_ready(pod) for pod in pods):
                bare_since = None
            else:
                bare_since = bare_since or time.monotonic()
                if ready and time.monotonic() - bare_since > late:
                    wrong.append(f"Ready without an engine for {time.monotonic() - bare_since:.1f} s")
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        await world.until(NAME, "EngineReady", "False", reason="CrashLoop", timeout=40)
        lab.nodes.forget(rule)
        await world.until(NAME, "Ready", timeout=40)
        rule = lab.nodes.behave("crash", component="engine", seconds=0.5)
        await world.until(NAME, "Ready", "False")
        await world.edit(NAME, {"access": {"allowlist": [{"cidr": HOME}]}})
        await asyncio.sleep(4)
        assert (await world.condition(NAME, "Ready"))["status"] == "False"
        lab.nodes.forget(rule)
        await world.until(NAME, "Ready", timeout=40)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert wrong == []


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def test_broken_sandboxes_and_a_hanging_linode_delay_no_other(lab: Lab, tmp_path: pathlib.Path) -> None:
    """Even with a single worker, because no pass waits for Linode."""
    lab.nodes.forget()
    flags = ["--no-leader-elect", "--workers", "1"]
    async with World(lab, tmp_path, operator={"flags": flags}) as world:
        await world.operator.start()
        world.linode.faults.add(faults.hang(times=None))
        for number in range(3):
            await world.apply(f"hanging-{number}", PUBLIC)
        missing = {"tokenSecretRef": {"name": "nobody", "key": "token"}}
        await world.apply("broken", {"model": missing})
        await world.eventually(lambda: _asked(world), what="a hanging call")
        await world.until("broken", "SpecValid", "False")
        await world.quiet(1.0)  # their calls hang, their own first passes are over
        began = time.monotonic()
        await world.apply(NAME, {})

        async def there() -> bool:
            return ("Deployment", f"{NAME}-gateway") in await world.children(NAME)

        await world.eventually(there, timeout=10, what="the children of the other sandbox")
        assert time.monotonic() - began < 2.0
        assert await _asked(world), "the calls still hang"


async def _asked(world: World) -> bool:
    return any(entry.status is None for entry in world.linode.journal.since(0))
