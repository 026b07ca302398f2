"""Linode work beside the passes, against the simulated API on a real socket."""

from __future__ import annotations

import asyncio

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import errors as kube_errors
from ai_sandbox_operator.kube.lease import LeaseLost
from ai_sandbox_operator.linode.ownership import Owner
from ai_sandbox_operator.reconcile import keeper
from lab.linode import LinodeSimulator, faults
from unit.reconcile.linode_world import FIREWALLS, INTERVAL, KEY, NARROW, RELEASE, UID, WIDE, World, protect


async def test_the_first_answer_is_that_nothing_is_known_and_the_work_asks_for_a_pass(
    world: World,
) -> None:
    assert world.pursue(WIDE)[0] is None
    await world.quiet()
    assert world.added == [(KEY[0], UID[:8])]
    result, wait = world.pursue(WIDE)
    assert result is not None
    assert (result.view.current, result.view.problem) == (True, None)
    assert result.view.firewall_id in world.sim.state.firewalls
    assert wait == pytest.approx(INTERVAL)


async def test_a_firewall_whose_deletion_is_on_its_way_is_not_offered_for_exposure(world: World) -> None:
    """I1: the Service would name a firewall that is gone, and the NodeBalancer would be open."""
    settled = await world.settle(NARROW)
    assert settled.view.current
    held, reached, going = settled.view.firewall_id, asyncio.Event(), asyncio.Event()
    delete = world.client.delete_firewall

    async def slow(firewall_id: int) -> None:
        reached.set()
        await going.wait()
        await delete(firewall_id)

    world.client.delete_firewall = slow  # type: ignore[method-assign]
    world.pursue(RELEASE)
    await reached.wait()
    result, _ = world.pursue(NARROW)
    assert result is None or not result.view.current
    going.set()
    await world.quiet()
    again = await world.settle(NARROW)
    assert again.view.current
    assert again.view.firewall_id != held
    assert again.view.firewall_id in world.sim.state.firewalls


async def test_a_settled_goal_costs_nothing_until_the_next_check_and_then_no_write(
    world: World,
) -> None:
    await world.settle(WIDE)
    requests, writes = len(world.sim.journal), world.writes()
    world.clock.now += INTERVAL - 20
    _, wait = world.pursue(WIDE)
    assert wait == pytest.approx(20)
    assert len(world.sim.journal) == requests
    world.clock.now += 20
    await world.settle(WIDE)
    assert len(world.sim.journal) == requests + 1
    assert world.writes() == writes


async def test_drift_is_found_by_the_next_check_and_reported(world: World) -> None:
    result = await world.settle(WIDE)
    assert result.view.firewall_id is not None
    world.sim.state.open_firewall(result.view.firewall_id)
    world.clock.now += INTERVAL
    result = await world.settle(WIDE)
    assert result.view.current
    assert world.repaired


async def test_what_was_proven_for_one_allowlist_proves_nothing_for_another(world: World) -> None:
    await world.settle(WIDE)
    result, _ = world.pursue(NARROW)
    assert result is not None
    assert (result.view.current, result.view.attached) == (False, False)
    assert result.view.firewall_id is not None
    await world.quiet()
    result, _ = world.pursue(NARROW)
    assert result is not None
    assert result.view.current


async def test_a_service_that_appears_does_not_unprove_the_rules(world: World) -> None:
    await world.settle(WIDE)
    goal = protect("192.0.2.0/24", "198.51.100.0/24", annotation="7", address="203.0.113.9")
    result, _ = world.pursue(goal)
    assert result is not None
    assert (result.view.current, result.view.attached) == (True, False)


async def test_a_goal_that_changes_while_work_is_under_way_is_worked_on_at_once(world: World) -> None:
    world.sim.faults.add(faults.slow(0.05, "POST", FIREWALLS))
    world.pursue(WIDE)
    await asyncio.sleep(0.02)
    world.pursue(NARROW)
    await world.quiet()
    assert len(world.sim.state.firewalls) == 1
    result, _ = world.pursue(NARROW)
    assert result is not None
    assert result.view.current
    assert world.confirmed == 2


# -- confirmation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [False, kube_errors.Unavailable("no answer")], ids=["stale", "unreadable"])
async def test_a_goal_that_is_not_confirmed_is_not_acted_on(world: World, answer: bool | Exception) -> None:
    world.answer = answer
    world.pursue(WIDE)
    await world.quiet()
    assert world.writes() == []
    result, wait = world.pursue(WIDE)
    assert result is None
    assert wait == pytest.approx(keeper.FIRST_RETRY)
    world.answer = True
    world.clock.now += keeper.FIRST_RETRY
    assert (await world.settle(WIDE)).view.current


async def test_a_retry_of_a_goal_that_was_never_reached_is_confirmed_again(world: World) -> None:
    """Between two tries the user may have narrowed the allowlist."""
    world.sim.faults.add(faults.unavailable())
    await world.settle(WIDE)
    world.answer = False
    world.sim.faults.clear()
    world.clock.now += keeper.LONGEST_RETRY
    await world.settle(WIDE)
    assert world.confirmed == 1
    assert world.sim.state.firewalls == {}


async def test_i1_a_spec_that_changes_during_a_slow_look_is_never_written(world: World) -> None:
    await world.settle(NARROW)
    written = world.writes()
    world.sim.faults.add(faults.slow(0.1, "GET", FIREWALLS + "/{firewallId}"))
    world.pursue(WIDE)
    await asyncio.sleep(0.03)
    world.answer = False  # the user takes it back while the operator still looks
    await world.quiet()
    assert world.writes() == written


async def test_nothing_is_written_by_who_is_not_the_leader(sim: LinodeSimulator) -> None:
    def guard() -> None:
        raise LeaseLost("not the leader")

    world = World(sim, guard=guard)
    world.pursue(WIDE)
    await world.quiet()
    assert len(sim.journal) == 0
    await world.close()


async def test_i8_a_lease_that_is_renewed_late_is_no_word_about_linode(sim: LinodeSimulator) -> None:
    late = False

    def guard() -> None:
        if late:
            raise LeaseLost("not the leader")

    world = World(sim, guard=guard)
    before = await world.settle(WIDE)
    late = True
    world.clock.now += 2 * INTERVAL
    world.pursue(WIDE)
    assert (await world.settle(WIDE)).view == before.view
    asked, late = len(sim.journal), False
    world.clock.now += INTERVAL
    assert (await world.settle(WIDE)).view == before.view
    assert len(sim.journal) > asked
    await world.close()


# -- failures ----------------------------------------------------------------------------------------------


async def test_failures_back_off_and_success_forgets_them(world: World) -> None:
    world.sim.faults.add(faults.Fault(status=500, reason="oops", times=None))
    waits = []
    for _ in range(9):
        await world.settle(WIDE)
        result, wait = world.pursue(WIDE)
        assert result is not None
        assert result.view.problem is not None
        assert result.view.problem.reason is Reason.LinodeUnavailable
        waits.append(wait)
        world.clock.now += wait
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(keeper.LONGEST_RETRY)
    world.sim.faults.clear()
    assert (await world.settle(WIDE)).view.problem is None


async def test_between_retries_nothing_is_tried(world: World) -> None:
    world.sim.faults.add(faults.unavailable())
    await world.settle(WIDE)
    requests = len(world.sim.journal)
    for _ in range(5):
        await world.settle(WIDE)
    assert len(world.sim.journal) == requests


async def test_another_goal_is_not_made_to_wait_for_the_failures_of_the_last(world: World) -> None:
    world.sim.faults.add(faults.unavailable(times=1))
    await world.settle(WIDE)
    assert (await world.settle(NARROW)).view.current


async def test_failing_for_days_stays_a_failure(world: World) -> None:
    world.token = None
    await world.settle(WIDE)
    entry = world.keeper._entries[UID]
    entry.failures = 5000
    world.clock.now += keeper.LONGEST_RETRY
    result = await world.settle(WIDE)
    assert result.view.problem is not None
    assert result.view.problem.reason is Reason.NoLinodeToken
    assert entry.failures == 5001
    assert entry.retry_at > world.clock.now


async def test_a_failed_check_says_what_was_known_and_proves_nothing(world: World) -> None:
    before = await world.settle(WIDE)
    world.sim.faults.add(faults.unavailable())
    world.clock.now += INTERVAL
    result = await world.settle(WIDE)
    assert result.view.firewall_id == before.view.firewall_id
    assert not result.view.current


async def test_after_a_restart_the_ids_of_the_status_are_known_though_linode_is_down(
    world: World,
) -> None:
    world.sim.faults.add(faults.unavailable())
    result = await world.settle(WIDE, known=keeper.Known(firewall_id=7, nodebalancer_id=8))
    assert (result.view.firewall_id, result.view.nodebalancer_id) == (7, 8)
    assert not result.view.current


async def test_one_slow_sandbox_delays_no_other(world: World) -> None:
    other = Owner(cluster_id="lke7", uid="11111111-2222-3333-4444-555555555555")
    world.sim.faults.add(faults.hang("GET", FIREWALLS, times=1))
    world.pursue(WIDE)
    await asyncio.sleep(0.05)
    goal = protect("192.0.2.0/24", owner=other)
    world.pursue(goal, uid=other.uid)
    task = world.keeper._entries[other.uid].task
    assert task is not None
    await asyncio.wait_for(task, 5)
    result, _ = world.pursue(goal, uid=other.uid)
    assert result is not None
    assert result.view.current
    assert world.pursue(WIDE)[0] is None


async def test_a_pass_while_work_is_under_way_starts_no_second_work_and_does_not_spin(
    world: World,
) -> None:
    world.sim.faults.add(faults.hang(times=1))
    world.pursue(WIDE)
    task = world.keeper._entries[UID].task
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert world.pursue(WIDE) == (None, INTERVAL)
    assert world.keeper._entries[UID].task is task


@pytest.mark.parametrize("how", ["close", "forget"])
async def test_work_that_hangs_ends_when_nobody_wants_it(world: World, how: str) -> None:
    world.sim.faults.add(faults.hang(times=1))
    world.pursue(WIDE)
    task = world.keeper._entries[UID].task
    assert task is not None
    await asyncio.sleep(0.02)
    if how == "close":
        await world.keeper.close()
    else:
        world.keeper.forget(UID)
        assert world.keeper._entries == {}
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    world.keeper.forget("never heard of")
    assert world.added == []
