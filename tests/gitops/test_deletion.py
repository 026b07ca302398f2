"""Foreground deletion, which Argo CD uses, with the operator there, and with the operator stopped and started again."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.linode.ownership import Owner
from controlplane import steps
from gitops import hands
from gitops.hands import ARGO_CD
from lab.cluster.lab import Lab
from lab.linode import faults
from lab.world import World
from results import Results

NAME, INSIDE = "public", "inside"
FOREGROUND = ("delete", "aisb", "--cascade=foreground", "--wait=false")


async def stand(world: World) -> steps.Placed:
    """One sandbox with a NodeBalancer and one without, as Argo CD applies them."""
    await world.operator.start()
    for name, spec in ((NAME, steps.public()), (INSIDE, {"lifecycle": {"state": "Suspended"}})):
        await hands.apply(world, hands.tracked(hands.sandbox(name, spec)), ARGO_CD, "--force-conflicts")
    at = await steps.placed(world, NAME, timeout=60)
    await world.until(INSIDE, "Ready", "False", reason="Suspended", timeout=60)
    await world.quiet()
    assert len(await world.children(NAME)) > 10
    return at


async def left(world: World, name: str) -> list[str]:
    """Children that are still there; the chats' volume outlives its sandbox."""
    return sorted(
        f"{kind} {child}"
        for kind, child in await world.children(name)
        if child != f"{name}-chat" or kind != "PersistentVolumeClaim"
    )


async def ended(world: World, at: steps.Placed) -> None:
    """Wait for the end of everything, here and at Linode."""
    for name in (NAME, INSIDE):
        await world.gone(name, timeout=90)

        async def childless(name: str = name) -> bool:
            return await left(world, name) == []

        await world.eventually(childless, timeout=60, what=f"the end of the children of {name}")
        kept = await world.get(kinds.PVC, f"{name}-chat")
        assert kept is not None
        assert kept["metadata"].get("ownerReferences", []) == []
    assert at.balancer not in world.linode.state.nodebalancers
    assert at.firewall not in world.linode.state.firewalls


async def test_foreground_deletion_ends_with_everything_gone(
    lab: Lab, tmp_path: pathlib.Path, results: Results
) -> None:
    lab.nodes.forget()
    async with World(lab, tmp_path, operator={"flags": steps.FLAGS}) as world:
        at = await stand(world)
        watch, mark = steps.Watchman(world), world.linode.journal.last
        # The garbage collector has removed the Service long before its NodeBalancer ends.
        world.linode.faults.add(faults.slow(4.0, "DELETE", "/nodebalancers/*"))
        await hands.kubectl(world, *FOREGROUND, NAME, INSIDE)
        await ended(world, at)
        assert watch.openings == []
        assert [path for _, path in steps.ends(world, mark)] == [path for _, path in steps.in_order(at, "")]
    row = {"Check": "foreground deletion of a public sandbox", "As": ARGO_CD}
    results.row("gitops", {**row, "Outcome": "NodeBalancer, then firewall, then the object; children gone"})


async def test_with_the_operator_stopped_the_object_waits_for_it_and_then_everything_goes(
    lab: Lab, tmp_path: pathlib.Path, results: Results
) -> None:
    lab.nodes.forget()
    async with World(lab, tmp_path, operator={"flags": steps.FLAGS}) as world:
        at = await stand(world)
        watch = steps.Watchman(world)
        assert await world.operator.stop() == 0
        await hands.kubectl(world, *FOREGROUND, NAME, INSIDE)

        async def children_gone() -> bool:
            return await left(world, NAME) == [] and await world.get(kinds.SANDBOX, INSIDE) is None

        await world.eventually(children_gone, timeout=60, what="the work of the garbage collector")
        await asyncio.sleep(3)
        waiting = await world.sandbox(NAME)
        assert waiting["metadata"]["deletionTimestamp"]
        assert names.FINALIZER in waiting["metadata"]["finalizers"]
        assert at.firewall in world.linode.state.firewalls, "the firewall outlives what it guards"
        assert watch.openings == []
        await world.operator.start()
        await ended(world, at)
        assert watch.openings == []
        system = await world.api.get(kinds.NAMESPACE, None, "kube-system")
        owner = Owner(cluster_id=system["metadata"]["uid"], uid=waiting["metadata"]["uid"])
        assert steps.firewalls_of(world, owner) == []
    row = {"Check": "foreground deletion with the operator stopped", "As": ARGO_CD}
    outcome = (
        "children, NodeBalancer and a private sandbox go; a public one and its firewall wait for the operator"
    )
    results.row("gitops", {**row, "Outcome": outcome})


@pytest.mark.parametrize("cascade", ["foreground", "background", "orphan"])
async def test_every_way_to_delete_ends(lab: Lab, tmp_path: pathlib.Path, cascade: str) -> None:
    lab.nodes.forget()
    async with World(lab, tmp_path, operator={"flags": steps.FLAGS}) as world:
        at = await stand(world)
        await hands.kubectl(world, "delete", "aisb", f"--cascade={cascade}", "--wait=false", NAME)
        await world.gone(NAME, timeout=90)
        assert at.firewall not in world.linode.state.firewalls
