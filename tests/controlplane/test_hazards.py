"""The ten ways in which a firewall and a NodeBalancer can miss each other, one test each.

The cloud controller manager is a second actor that the operator cannot command: it detaches, deletes
and ignores firewalls by rules of its own. Each test lets it (or a person) do its worst and then asks
Linode's side, never the operator, who can reach what.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from controlplane import steps
from controlplane.steps import Watchman, annotation_of, closed, guarded, placed, public, stand
from lab.cluster.lab import Lab
from lab.linode import faults
from lab.linode.model import Snapshot
from lab.proxy import Exchange
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all hazards; each test has a sandbox of its own."""
    lab.nodes.forget()
    async with World(lab, tmp_path_factory.mktemp("hazards"), operator={"flags": steps.FLAGS}) as made:
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
    world.ccm.options.ignore_firewall_annotation = False
    if not world.operator.running:
        await world.operator.start()
    made.assert_operator_opened_nothing()
    made.assert_operator_deleted_only_ours()


@pytest.fixture
def name() -> str:
    return f"h-{uuid.uuid4().hex[:6]}"


async def test_1_the_firewall_stands_before_the_service_whose_first_write_names_it(
    world: World, name: str
) -> None:
    seen: list[tuple[Exchange, Snapshot]] = []
    world.proxy.on_write(lambda e: seen.append((e, world.linode.state.snapshot())))
    mark = world.linode.journal.last
    at = await stand(world, name)
    first, account = next(
        (e, account)
        for e, account in seen
        if e.plural == "services" and isinstance(e.body, dict) and e.body["metadata"]["name"] == name
    )
    assert first.method == "POST"
    assert first.body["spec"]["type"] == "LoadBalancer"
    assert annotation_of(first.body) == str(at.firewall)
    firewall = account.firewalls[at.firewall]
    assert firewall.status == "enabled"
    assert firewall.rules.inbound_policy == "DROP"
    assert [r["addresses"] for r in firewall.rules.inbound or ()] == [{"ipv4": [steps.ALLOWED]}]
    births = [e for e in world.linode.journal.since(mark, method="POST") if e.path == "/nodebalancers"]
    assert [e.body["firewall_id"] for e in births] == [at.firewall]


async def test_1_nobody_is_admitted_by_an_empty_allowlist(world: World, name: str) -> None:
    spec = public()
    spec["access"]["allowlist"] = []
    await world.apply(name, spec)
    at = await placed(world, name)
    now = world.linode.state.snapshot()
    assert not any(
        now.admits(at.balancer, address, port)
        for address in (steps.INSIDE, steps.OUTSIDE)
        for port in steps.PORTS
    )


async def test_2_a_removed_annotation_costs_the_firewall_and_the_operator_makes_it_again(
    world: World, name: str
) -> None:
    at = await stand(world, name)
    await world.operator.stop()
    await steps.annotate(world, kinds.SERVICE, name, {names.ANNOTATION_FIREWALL_ID: None})

    async def stripped() -> bool:
        return at.firewall not in world.linode.state.firewalls

    await world.eventually(stripped, what="the controller's deletion of the firewall")
    assert world.linode.state.snapshot().admits(at.balancer, steps.OUTSIDE, names.PORT_API)
    await world.operator.start()
    again = await guarded(world, name, at.balancer)
    assert again != at.firewall
    assert (await placed(world, name)).firewall == again


async def test_2_an_annotation_removed_under_the_operators_eyes_is_back_within_seconds(
    world: World, name: str
) -> None:
    at = await stand(world, name)
    await steps.annotate(world, kinds.SERVICE, name, {names.ANNOTATION_FIREWALL_ID: None})
    await guarded(world, name, at.balancer)
    await asyncio.sleep(1.5)  # the controller may still act on what it saw
    await guarded(world, name, at.balancer)


async def test_3_a_deleted_firewall_is_made_again_and_attached_before_it_is_named(
    world: World, name: str
) -> None:
    at = await stand(world, name)
    mark = len(world.proxy.journal)
    attached_at_write: list[tuple[str | None, list[int]]] = []

    def note(exchange: Exchange) -> None:
        if exchange.plural == "services" and exchange.path.endswith(f"/{name}"):
            on = [one.id for one in world.linode.state.firewalls_of(at.balancer)]
            attached_at_write.append((annotation_of(exchange.body), on))

    world.proxy.on_write(note)
    world.linode.state.delete_firewall(at.firewall)
    again = await guarded(world, name, at.balancer)
    assert again != at.firewall
    named = [(value, on) for value, on in attached_at_write if value is not None]
    assert named == [(str(again), [again])]
    assert [annotation_of(e.body) for e in steps.service_writes(world, name, mark)] == [str(again)]


async def test_4_the_id_stays_through_edits_and_a_restart(world: World, name: str) -> None:
    at = await stand(world, name)
    mark = len(world.proxy.journal)
    await world.edit(name, {"access": {"allowlist": [{"cidr": "203.0.113.8/30"}]}})
    await placed(world, name)
    await world.edit(name, {"chat": {"enabled": False}})
    await placed(world, name)
    assert await world.operator.stop() == 0
    await world.operator.start()
    await world.edit(name, {"chat": {"enabled": True}, "access": {"allowlist": [{"cidr": steps.ALLOWED}]}})
    await placed(world, name)
    assert await guarded(world, name, at.balancer) == at.firewall
    named = {annotation_of(e.body) for e in steps.service_writes(world, name, mark)} - {None}
    assert named == {str(at.firewall)}


async def test_4_a_firewall_that_somebody_swapped_is_put_back_in_one_step(world: World, name: str) -> None:
    at = await stand(world, name)
    other = world.linode.state.create_firewall(f"other-{name}", tags=["somebody"])
    world.linode.state.open_firewall(other.id)
    mark = world.linode.journal.last
    world.linode.state.detach(at.balancer)
    world.linode.state.attach(other.id, at.balancer)
    assert await guarded(world, name, at.balancer) == at.firewall
    writes = [(e.method, e.path, e.body) for e in world.linode.journal.writes(mark, token="operator")]
    path = f"/nodebalancers/{at.balancer}/firewalls"
    assert writes == [("PUT", path, {"firewall_ids": [at.firewall]})]
    assert other.id in world.linode.state.firewalls


async def test_5_an_acl_annotation_is_removed_at_once(world: World, name: str) -> None:
    at = await stand(world, name)
    acl = '{"allowList":{"ipv4":["0.0.0.0/0"]}}'
    await steps.annotate(world, kinds.SERVICE, name, {names.ANNOTATION_FIREWALL_ACL: acl})

    async def removed() -> bool:
        service = await world.get(kinds.SERVICE, name)
        assert service is not None
        return names.ANNOTATION_FIREWALL_ACL not in service["metadata"]["annotations"]

    await world.eventually(removed, timeout=3, what="the removal of the annotation")
    assert await guarded(world, name, at.balancer) == at.firewall


async def test_5_an_acl_annotation_is_removed_before_the_service_is_deleted(world: World, name: str) -> None:
    at = await stand(world, name)
    await world.operator.stop()
    acl = '{"allowList":{"ipv4":["203.0.113.0/24"]}}'
    await steps.annotate(world, kinds.SERVICE, name, {names.ANNOTATION_FIREWALL_ACL: acl})
    await world.delete(name)
    mark = world.linode.journal.last
    await world.operator.start()
    await world.gone(name)
    assert steps.ends(world, mark) == steps.in_order(at, "ccm")


async def test_6_service_then_nodebalancer_then_firewall_then_finalizer(
    world: World, watchman: Watchman, name: str
) -> None:
    at = await stand(world, name)
    mark = world.linode.journal.last
    await world.delete(name)
    await world.gone(name)
    assert steps.ends(world, mark) == steps.in_order(at, "ccm")
    # Gone by id, as Linode itself said, before the firewall was touched.
    asked = world.linode.journal.since(mark, token="operator")
    last = next(e.index for e in asked if e.method == "DELETE")
    assert any(
        e.path == f"/nodebalancers/{at.balancer}" and e.status == 404 and e.index < last for e in asked
    )
    assert steps.released_at(world, name) > max(e.time for e in asked if e.method == "DELETE")
    assert watchman.openings == []


async def test_7_ids_are_recorded_before_the_nodebalancer_exists(world: World, name: str) -> None:
    world.ccm.options.creation_delay = 2.0
    try:
        await world.apply(name, public())

        async def recorded() -> int | None:
            found: int | None = (
                ((await world.sandbox(name)).get("status") or {}).get("linode", {}).get("firewallID")
            )
            return found

        firewall = await world.eventually(recorded, what="the firewall's id in the status")
        whose = await steps.owner(world, name)
        assert not [b for b in world.linode.state.nodebalancers.values() if whose.owns(b.tags)]
    finally:
        world.ccm.options.creation_delay = 0.0
    assert (await placed(world, name)).firewall == firewall


async def test_7_a_nodebalancer_that_the_controller_forgot_goes_with_the_sandbox(
    world: World, watchman: Watchman, name: str
) -> None:
    at = await stand(world, name)
    await world.operator.stop()
    await steps.patch_status(world, kinds.SERVICE, name, {"loadBalancer": {"ingress": None}})
    await steps.patch_status(world, kinds.SANDBOX, name, {"linode": None})
    await world.delete(name)
    mark = world.linode.journal.last
    await world.operator.start()
    await world.gone(name)
    assert at.balancer not in world.linode.state.nodebalancers
    assert at.firewall not in world.linode.state.firewalls
    assert steps.ends(world, mark) == steps.in_order(at, "operator")
    assert watchman.openings == []


async def test_8_an_ignored_annotation_is_told_and_the_operator_attaches_after_its_grace(
    world: World, watchman: Watchman, name: str
) -> None:
    world.ccm.options.ignore_firewall_annotation = True
    await world.apply(name, public())
    told = await world.until(name, "NetworkProtected", "False", reason="NotAttached")
    assert "NodeBalancer" in told["message"]
    at = await placed(world, name, timeout=12)
    assert closed(world, at.balancer)
    assert {who for who, *_ in watchman.openings} == {"ccm"}
    # Equal now, so the controller finds nothing to do when it honours the annotation again.
    world.ccm.options.ignore_firewall_annotation = False
    mark = world.linode.journal.last
    await world.ccm.restart()
    await asyncio.sleep(1.0)
    assert closed(world, at.balancer)
    assert [e for e in world.linode.journal.writes(mark) if "firewall" in e.path] == []


@pytest.mark.parametrize("fault", ["lost_reply", "gateway_timeout"])
async def test_9_a_lost_reply_to_the_creation_leaves_one_firewall(
    world: World, name: str, fault: str
) -> None:
    struck = world.linode.faults.add(getattr(faults, fault)("POST", "/networking/firewalls"))
    at = await stand(world, name)
    assert struck.struck == 1
    assert steps.firewalls_of(world, await steps.owner(world, name)) == [at.firewall]


async def test_10_what_a_deleted_cluster_left_is_listed_and_not_touched(world: World, name: str) -> None:
    living, dead = f"{name}-l", f"{name}-d"
    kept, left = await stand(world, living), await stand(world, dead)
    code, output = await steps.command(world, "orphans")
    assert (code, f"Firewall {left.firewall} " in output) == (0, False), output
    # As if the cluster had ended: neither the finalizer nor the controller ever runs.
    await world.operator.stop()
    await world.ccm.stop()
    await steps.vanish(world, dead)
    mark = world.linode.journal.last
    code, output = await steps.command(world, "orphans")
    await world.ccm.start()
    assert code == 0, output
    assert f"Cloud Firewall {left.firewall} " in output
    assert f"NodeBalancer {left.balancer} " in output
    assert str(kept.firewall) not in output
    assert world.linode.journal.mutations(mark, token="operator") == []
    still = (*world.linode.state.firewalls, *world.linode.state.nodebalancers)
    assert {left.firewall, left.balancer} <= set(still)
