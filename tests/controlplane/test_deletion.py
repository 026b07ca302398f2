"""Deletion ends, or says what blocks it (I7), and takes only what is the sandbox's (I2).

Whatever went first by hand, whoever was down: afterwards Linode holds nothing of the sandbox that its
owner did not choose to leave, and never less of somebody else's than before.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import errors
from controlplane import steps
from controlplane.steps import Placed, Watchman, placed, public, stand
from lab.cluster.lab import Lab
from lab.linode.faults import Fault
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world; its operator lives elsewhere and serves the whole cluster, because one test deletes the namespace.

    A namespace that ends may take its RoleBinding first, and with it the right to finish the deletion.
    """
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("deletion")
    async with World(lab, folder, operator={"flags": steps.FLAGS}, apart=True, clusterwide=True) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def watchman(world: World) -> AsyncIterator[Watchman]:
    """Judges every change of the account during the test."""
    made = Watchman(world)
    yield made
    world.linode.faults.clear()
    if not world.operator.running:
        await world.operator.start()
    made.assert_operator_opened_nothing()
    made.assert_operator_deleted_only_ours()


@pytest.fixture
def name() -> str:
    return f"d-{uuid.uuid4().hex[:6]}"


def down(token: str | None = "operator") -> Fault:
    """Linode answers nothing to one token, or to nobody."""
    return Fault("status", status=503, token=token, times=None)


def left(world: World, at: Placed) -> tuple[bool, bool]:
    """Whether the firewall and the NodeBalancer still exist."""
    state = world.linode.state
    return at.firewall in state.firewalls, at.balancer in state.nodebalancers


async def swept(world: World, name: str) -> dict[tuple[str, str], Any]:
    """Wait for the garbage collector; what stays are volumes alone."""

    async def probe() -> bool:
        found = await world.children(name)
        return all(kind == "PersistentVolumeClaim" for kind, _ in found)

    await world.eventually(probe, what="the garbage collection of the children")
    return await world.children(name)


async def delete(world: World, name: str, propagation: str = "Background") -> None:
    path = kinds.SANDBOX.path(world.namespace, name)
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
    await world.api._request("delete", kinds.SANDBOX, "DELETE", path, body=body)


async def blocked(world: World, name: str, *, timeout: float = 20.0) -> str:
    """Wait until the sandbox says that its deletion is blocked; the message."""
    told = await world.until(name, "Ready", "False", reason="DeletionBlocked", timeout=timeout)
    return str(told["message"])


async def test_a_deleted_sandbox_leaves_nothing_but_its_chats(world: World, name: str) -> None:
    at = await stand(world, name)
    await world.delete(name)
    await world.gone(name)
    assert left(world, at) == (False, False)

    async def swept_clean() -> bool:
        return {key[1] for key in await world.children(name)} == {f"{name}-chat"}

    # The collector learns of a new kind every 30 seconds only.
    await world.eventually(swept_clean, timeout=60, what="the garbage collection")


async def _service(world: World, name: str, at: Placed) -> None:
    live = await world.api.get(kinds.SERVICE, world.namespace, name)
    await world.api.delete(kinds.SERVICE, world.namespace, name, uid=live["metadata"]["uid"])

    async def released() -> bool:
        return at.balancer not in world.linode.state.nodebalancers

    await world.eventually(released, what="the controller's deletion of the NodeBalancer")


async def _nodebalancer(world: World, _name: str, at: Placed) -> None:
    world.linode.state.delete_nodebalancer(at.balancer)


async def _firewall(world: World, _name: str, at: Placed) -> None:
    world.linode.state.delete_firewall(at.firewall)


async def _nothing(_world: World, _name: str, _at: Placed) -> None: ...


Hand = Callable[[World, str, Placed], Awaitable[None]]
HANDS: tuple[Hand, ...] = (_nothing, _service, _nodebalancer, _firewall)


async def _stand_each(world: World, name: str) -> dict[str, Placed]:
    """A sandbox for each thing that may go first by hand."""
    for first in HANDS:
        await world.apply(name + first.__name__.replace("_", "-"), public())
    return {key: await placed(world, key) for key in (name + f.__name__.replace("_", "-") for f in HANDS)}


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_deletion_while_the_operator_is_stopped_ends_after_its_start(
    world: World, name: str, propagation: str
) -> None:
    stood = await _stand_each(world, name)
    await world.operator.stop()
    for (key, at), first in zip(stood.items(), HANDS, strict=True):
        await first(world, key, at)
        await delete(world, key, propagation)
    await asyncio.sleep(0.5)
    assert [key for key in stood if await world.get(kinds.SANDBOX, key) is None] == []
    await world.operator.start()
    for key, at in stood.items():
        await world.gone(key)
        assert left(world, at) == (False, False), key


async def test_deletion_ends_after_something_went_first_by_hand(world: World, name: str) -> None:
    stood = await _stand_each(world, name)
    owners = {key: await steps.owner(world, key) for key in stood}
    for (key, at), first in zip(stood.items(), HANDS, strict=True):
        await first(world, key, at)
        await world.delete(key)
    for key, whose in owners.items():
        await world.gone(key)
        assert steps.firewalls_of(world, whose) == [], key
        assert [n for n in world.linode.state.nodebalancers.values() if whose.owns(n.tags)] == [], key


@pytest.mark.parametrize("token", ["operator", None])
async def test_with_linode_down_the_gpu_is_free_at_once_and_the_block_is_told(
    world: World, name: str, token: str | None
) -> None:
    at = await stand(world, name, lifecycle={"state": "Running"})
    world.linode.faults.add(down(token))
    await world.delete(name)

    async def freed() -> bool:
        return await world.get(kinds.DEPLOYMENT, f"{name}-engine") is None

    await world.eventually(freed, timeout=3, what="the end of the engine")
    message = await blocked(world, name)
    assert f"Cloud Firewall {at.firewall}" in message
    assert f"NodeBalancer {at.balancer}" in message
    command = f"kubectl annotate aisandboxes.{names.GROUP} {name} -n {world.namespace} "
    assert command + f"{names.ANNOTATION_ABANDON}=true" in message
    assert await world.get(kinds.SANDBOX, name) is not None
    world.linode.faults.clear()
    await world.gone(name, timeout=40)
    assert left(world, at) == (False, False)


@pytest.mark.parametrize("token", ["operator", None])
async def test_the_abandon_annotation_ends_it_and_leaves_the_linode_objects(
    world: World, name: str, token: str | None
) -> None:
    at = await stand(world, name)
    world.linode.faults.add(down(token))
    await world.delete(name)
    message = await blocked(world, name)
    arguments = message[message.index("kubectl annotate") :].split()[1:7]
    await asyncio.to_thread(world.lab.plane.kubectl, *(argument.rstrip(".") for argument in arguments))
    await world.gone(name, timeout=8)
    assert left(world, at)[0]
    world.linode.faults.clear()
    await asyncio.sleep(2.5)
    assert left(world, at)[0], "an abandoned firewall stays"


async def test_what_lost_its_tags_is_not_deleted_but_named(world: World, name: str) -> None:
    at = await stand(world, name)
    await world.operator.stop()
    await steps.patch_status(world, kinds.SERVICE, name, {"loadBalancer": {"ingress": None}})
    world.linode.state.tag_nodebalancer(at.balancer, ["somebody"])
    await world.delete(name)
    await world.operator.start()
    message = await blocked(world, name)
    assert f"NodeBalancer {at.balancer}" in message
    assert left(world, at) == (True, True), "and its firewall keeps guarding it"
    world.linode.state.delete_nodebalancer(at.balancer)
    await world.gone(name)
    assert left(world, at) == (False, False)


async def test_a_namesake_made_at_once_keeps_its_own_firewall(world: World, name: str) -> None:
    at = await stand(world, name)
    old = await steps.owner(world, name)
    await world.delete(name)

    async def made_again() -> bool:
        if await world.get(kinds.SANDBOX, name) is not None:
            return False
        await world.apply(name, public())
        return True

    await world.eventually(made_again, what="the end of the first")
    again = await placed(world, name)
    new = await steps.owner(world, name)
    assert new.uid != old.uid
    assert (steps.firewalls_of(world, old), steps.firewalls_of(world, new)) == ([], [again.firewall])
    assert again.balancer != at.balancer
    await world.quiet()
    assert await placed(world, name) == again


async def test_kept_chats_are_adopted_by_the_next_sandbox_of_the_name(world: World, name: str) -> None:
    await world.apply(name, {})
    await world.until(name, "Ready")
    before = await world.get(kinds.PVC, f"{name}-chat")
    await world.delete(name)
    await world.gone(name)
    await swept(world, name)
    await world.apply(name, {})
    await world.until(name, "Ready")
    after = await world.get(kinds.PVC, f"{name}-chat")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_kept_chats_that_lost_their_labels_are_named_with_the_labels_that_bring_them_back(
    world: World, name: str
) -> None:
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    await world.until(name, "NetworkProtected")
    claim = f"{name}-chat"
    kept = await world.eventually(lambda: world.get(kinds.PVC, claim), what="the chat's volume")
    await world.delete(name)
    await world.gone(name)
    await swept(world, name)
    bare = {"metadata": {"labels": dict.fromkeys(kept["metadata"]["labels"])}}
    await world.api.merge_patch(kinds.PVC, world.namespace, claim, bare)
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    told = await world.until(name, "SpecValid", "False", reason="NameTaken")
    labels = re.search(r"PersistentVolumeClaim \S+ exists .* label it with (.*) again", told["message"])
    assert labels is not None, told["message"]
    given = dict(pair.split("=", 1) for pair in labels.group(1).split())
    await world.api.merge_patch(kinds.PVC, world.namespace, claim, {"metadata": {"labels": given}})
    await world.until(name, "SpecValid", timeout=70)
    after = await world.get(kinds.PVC, claim)
    assert after is not None
    assert after["metadata"]["uid"] == kept["metadata"]["uid"]


@pytest.mark.parametrize("keep", [True, False])
async def test_the_model_cache_stays_if_and_only_if_the_spec_says_so(
    world: World, name: str, keep: bool
) -> None:
    # Turned on the live object, because that is when owner references have to change.
    retain = {"modelCache": not keep, "chat": not keep}
    await world.apply(name, {"storage": {"retain": retain}, "lifecycle": {"state": "Suspended"}})
    await world.until(name, "ModelCached")
    await world.edit(name, {"storage": {"retain": {"modelCache": keep, "chat": keep}}})

    async def owned() -> bool:
        found = [await world.get(kinds.PVC, f"{name}-{which}") for which in ("model", "chat")]
        return all(bool(claim and claim["metadata"].get("ownerReferences")) is not keep for claim in found)

    await world.eventually(owned, timeout=5, what="the owners of the volumes")
    await world.delete(name)
    await world.gone(name)
    await swept(world, name)
    await asyncio.sleep(1.0)

    async def claims() -> bool:
        kept = {key[1] for key in await world.children(name)}
        return kept == ({f"{name}-model", f"{name}-chat"} if keep else set())

    await world.eventually(claims, timeout=10, what="the volumes that are to stay")


async def policies(world: World, name: str) -> list[str]:
    return sorted(child for kind, child in await world.children(name) if kind == "NetworkPolicy")


@pytest.mark.parametrize("way_out", ["the pod ends", "abandon"])
async def test_i1_policies_outlive_the_pods_and_a_pod_that_does_not_end_is_told(
    world: World, name: str, way_out: str
) -> None:
    at = await stand(world, name)
    held = [pod["metadata"]["name"] for pod in await world.pods(name, "gateway")]
    stood = await policies(world, name)
    for pod in held:
        # What ends on a lost node has an end in sight that never comes, and so has what waits for a finalizer.
        body = {"metadata": {"finalizers": ["tests.example.com/lost"]}}
        await world.api.merge_patch(kinds.POD, world.namespace, pod, body)
    await world.delete(name)

    async def released() -> bool:
        return left(world, at) == (False, False)

    await world.eventually(released, what="the end of NodeBalancer and firewall")
    await _message(world, name, "2 pods (", " ending", *held)
    for pod in held:
        path = kinds.POD.path(world.namespace, pod)
        await world.api._request("delete", kinds.POD, "DELETE", path, body={"gracePeriodSeconds": 0})
    await blocked(world, name)
    await _message(world, name, "2 pods (", " overdue", *held)
    assert await policies(world, name) == stood != []
    if way_out == "abandon":
        annotations = {"metadata": {"annotations": {names.ANNOTATION_ABANDON: "true"}}}
        await world.api.merge_patch(kinds.SANDBOX, world.namespace, name, annotations)
        await world.gone(name)
    for pod in held:
        await world.api.merge_patch(kinds.POD, world.namespace, pod, {"metadata": {"finalizers": None}})
    await world.gone(name)
    await swept(world, name)


async def _message(world: World, name: str, *words: str) -> str:
    """The message of Ready, as soon as it has the words."""

    async def probe() -> str | None:
        message = str((await world.condition(name, "Ready"))["message"])
        return message if all(word in message for word in words) else None

    return await world.eventually(probe, what=f"a message with {words}")


async def test_a_finalizer_that_lost_a_race_is_a_conflict_and_no_refusal(world: World, name: str) -> None:
    """What the operator makes of the answer of a real API server to a failed `test`."""
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "add", "path": "/metadata/finalizers", "value": [names.FINALIZER]},
    ]
    with pytest.raises(errors.Conflict):
        await world.api.json_patch(kinds.SANDBOX, world.namespace, name, operations)
    broken = [{"op": "replace", "path": "/spec/lifecycle/state", "value": "Sideways"}]
    with pytest.raises(errors.Invalid):
        await world.api.json_patch(kinds.SANDBOX, world.namespace, name, broken)
    await world.delete(name)
    await world.gone(name)


async def test_a_deleted_namespace_ends_and_takes_everything(world: World, name: str) -> None:
    """The last of the module: its namespace is gone afterwards."""
    at = await stand(world, name)
    path = kinds.NAMESPACE.path(None, world.namespace)
    await world.api._request("delete", kinds.NAMESPACE, "DELETE", path)

    async def ended() -> bool:
        try:
            await world.api.get(kinds.NAMESPACE, None, world.namespace)
        except errors.NotFound:
            return True
        return False

    await world.eventually(ended, timeout=60, what="the end of the namespace")
    assert left(world, at) == (False, False)
    assert world.operator.running
