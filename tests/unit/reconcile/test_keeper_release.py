"""The keeper attaches what nobody else attaches, and lets go in the order that never exposes."""

from __future__ import annotations

from ai_sandbox_operator.reconcile import keeper
from unit.reconcile.linode_world import NARROW, OWNER, RELEASE, World, protect


async def test_attached_is_said_only_of_a_nodebalancer_that_was_seen_with_the_firewall(
    world: World,
) -> None:
    ident = (await world.settle(NARROW)).view.firewall_id
    balancer = world.sim.state.create_nodebalancer("ccm-1", tags=list(OWNER.tags))
    goal = protect("192.0.2.0/24", annotation=str(ident), address=balancer.ipv4)
    result = await world.settle(goal)
    assert not result.view.attached
    _, wait = world.pursue(goal)
    assert wait <= 2 * keeper.FIRST_RETRY
    assert ident is not None
    world.sim.state.attach(ident, balancer.id)
    world.clock.now += 2 * keeper.FIRST_RETRY
    result = await world.settle(goal)
    assert (result.view.attached, result.view.nodebalancer_id) == (True, balancer.id)


async def test_what_nobody_attaches_in_time_is_attached(world: World) -> None:
    ident = (await world.settle(NARROW)).view.firewall_id
    balancer = world.sim.state.create_nodebalancer("ccm-1", tags=list(OWNER.tags))
    goal = protect("192.0.2.0/24", annotation=str(ident), address=balancer.ipv4)
    await world.settle(goal)
    world.clock.now += keeper.ATTACH_GRACE + 1
    result = await world.settle(goal)
    assert result.view.attached
    assert [f.id for f in world.sim.state.firewalls_of(balancer.id)] == [ident]
    assert world.repaired


async def test_a_release_is_done_when_nothing_is_left(world: World) -> None:
    await world.settle(NARROW)
    result, _ = world.pursue(RELEASE)
    assert result is not None
    assert not result.released
    await world.quiet()
    result, _ = world.pursue(RELEASE)
    assert result is not None
    assert result.released
    assert world.sim.state.firewalls == {}


async def test_a_firewall_stays_while_its_nodebalancer_does_and_the_service_is_looked_at_each_time(
    world: World,
) -> None:
    ident = (await world.settle(NARROW)).view.firewall_id
    balancer = world.sim.state.create_nodebalancer("ccm-1", firewall_id=ident, tags=list(OWNER.tags))
    goal = protect("192.0.2.0/24", annotation=str(ident), address=balancer.ipv4)
    await world.settle(goal)
    result = await world.settle(RELEASE)
    assert not result.released
    assert result.waiting_for
    assert list(world.sim.state.firewalls) == [ident]
    asked = world.confirmed
    world.answer = False
    world.clock.now += 2 * keeper.FIRST_RETRY
    writes = world.writes()
    await world.settle(RELEASE)
    assert (world.confirmed, world.writes()) == (asked + 1, writes)
    world.answer = True
    world.sim.state.delete_nodebalancer(balancer.id)
    world.clock.now += 2 * keeper.FIRST_RETRY
    assert (await world.settle(RELEASE)).released


async def test_a_release_that_is_called_off_protects_again(world: World) -> None:
    await world.settle(NARROW)
    assert (await world.settle(RELEASE)).released
    result, _ = world.pursue(NARROW)
    assert result is not None
    assert not result.view.current
    assert (await world.settle(NARROW)).view.current
    assert len(world.sim.state.firewalls) == 1
