"""A crash at any write leads to the same end, and opens nothing on the way.

The operator is killed (SIGKILL) before or after the n-th write is committed, or while Linode works on a
request; then it is started anew. Whatever it had half done, it must reach the state of a run without a
crash, leave no second firewall behind, and be quiet at the next restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Awaitable
from typing import Any

import pytest

from lab import admits
from lab.canonical import canonical, differences
from lab.linode import faults
from lab.observer import ClosedObserver
from lab.proxy import Fault, Mode
from lab.world import World

WIDE, NARROW = "203.0.113.0/28", "203.0.113.4/32"
ADDRESSES = admits.samples(WIDE, NARROW)
CREATE = {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": WIDE}]}}
NARROWING = {"access": {"allowlist": [{"cidr": NARROW}]}}
FIREWALLS, RULES = "/networking/firewalls", "/networking/firewalls/{firewallId}/rules"
FIREWALL = "/networking/firewalls/{firewallId}"
MODES: tuple[Mode, ...] = ("kill_before", "kill_after", "drop_answer")
_numbers = itertools.count(1)


@dataclasses.dataclass
class Life:
    """One sandbox from its creation through a narrowing edit to its end."""

    world: World
    judge: ClosedObserver

    @classmethod
    def begin(cls, world: World) -> Life:
        return cls(world, ClosedObserver(world, f"crash-{next(_numbers)}", ADDRESSES))

    async def settle(self) -> dict[str, Any]:
        """Wait for the end of all work; the state that it led to."""
        world, name = self.world, self.judge.name
        await world.until(name, "Ready", timeout=90)
        await world.quiet(1.0)
        await self.judge.look("at the end")
        for side in ("outside", "inside"):
            assert self.judge.reached(side) == self.judge.wanted(side)
        self.judge.assert_closed()
        return await canonical(world, name)

    async def end(self) -> None:
        """Delete, and see that nothing is left at Linode."""
        await self.judge.delete()
        await self.world.gone(self.judge.name)
        self.judge.assert_closed()
        self.judge.detach()
        assert not self.world.linode.state.firewalls
        assert not self.world.linode.state.nodebalancers


@dataclasses.dataclass(frozen=True)
class Clean:
    """A life without a crash: the end states, and how many writes led there."""

    created: dict[str, Any]
    narrowed: dict[str, Any]
    create_writes: int
    narrow_writes: int


_learnt: list[Clean] = []


async def learn(world: World) -> Clean:
    """Learnt once; the end state is the same in every world."""
    if not _learnt:
        _learnt.append(await _learn(world))
    return _learnt[0]


async def _learn(world: World) -> Clean:
    life = Life.begin(world)
    start = len(world.proxy.journal)
    await life.judge.apply(CREATE)
    created = await life.settle()
    middle = len(world.proxy.journal)
    await life.judge.edit(NARROWING)
    narrowed = await life.settle()
    writes = len(world.proxy.attempts(start)) - len(world.proxy.attempts(middle))
    edits = len(world.proxy.attempts(middle))
    await life.end()
    return Clean(created, narrowed, writes, edits)


async def restart(world: World, *, wait: bool = True) -> None:
    await world.operator.wait()
    await world.operator.start(wait=wait)


async def restart_is_free(world: World) -> None:
    """A settled world costs a new operator no write at all, not even one without effect."""
    mark, linode = len(world.proxy.journal), world.linode.journal.last
    world.operator.kill()
    await restart(world)
    await asyncio.sleep(2.0)
    assert [str(e) for e in world.proxy.attempts(mark)] == []
    assert [str(e) for e in world.linode.journal.mutations(linode)] == []


async def killed(world: World, *, timeout: float = 20.0) -> bool:
    """Wait for the operator's end; False if it goes on, because there was no such write."""
    deadline = asyncio.get_running_loop().time() + timeout
    while world.operator.running:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def assert_same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    assert differences(expected, found) == []


async def crash_once(world: World, clean: Clean, n: int, mode: Mode) -> None:
    """One life with one crash: at write n of the creation, or of the edit beyond them."""
    life = Life.begin(world)
    fault = Fault(mode=mode, nth=n if n <= clean.create_writes else n - clean.create_writes)
    if n <= clean.create_writes:
        world.proxy.faults.append(fault)
    await life.judge.apply(CREATE)
    if n > clean.create_writes:
        await life.settle()
        world.proxy.faults.append(fault)
        await life.judge.edit(NARROWING)
    if mode != "drop_answer" and await killed(world):
        world.proxy.faults.clear()
        await restart(world)
    found = await life.settle()
    world.proxy.faults.clear()
    assert_same(clean.created if n <= clean.create_writes else clean.narrowed, found)
    await life.end()


async def test_killed_at_every_single_write_in_turn_it_gets_there_all_the_same(started: World) -> None:
    """Each operator lives for one write, the next one goes on; every fifth dies before its first."""
    world = started
    clean = await learn(world)
    life = Life.begin(world)
    committed = await _one_write_per_life(world, life.judge.apply(CREATE), limit=3 * clean.create_writes)
    # Statuses on the way fall together in short lives, and there are more of them on a busy machine.
    assert 2 * committed >= clean.create_writes
    assert_same(clean.created, await life.settle())
    await restart_is_free(world)
    assert await _one_write_per_life(world, life.judge.edit(NARROWING), limit=20) >= 2
    assert_same(clean.narrowed, await life.settle())
    await restart_is_free(world)
    await life.end()


async def _one_write_per_life(world: World, act: Awaitable[None], *, limit: int) -> int:
    """Kill at each next write until one operator has nothing left to write; how many were committed."""
    committed = 0
    for n in range(limit):
        fault = Fault(mode="kill_before" if n % 5 == 4 else "kill_after")
        world.proxy.faults[:] = [fault]  # before the start: the first write may come at once
        mark = len(world.proxy.journal)
        await (act if n == 0 else restart(world, wait=False))
        if not await killed(world, timeout=8.0):
            world.proxy.faults.clear()
            return committed
        written = [e for e in world.proxy.attempts(mark) if e.effective is not None]
        assert len(written) == (fault.mode == "kill_after"), [str(e) for e in written]
        committed += len(written)
    raise AssertionError(f"still writing after {limit} lives:\n{await world.describe()}")


async def test_a_crash_or_a_lost_answer_at_a_sampled_write_leads_to_the_same_end(started: World) -> None:
    clean = await learn(started)
    chance = random.Random(20240229)
    total = clean.create_writes + clean.narrow_writes
    for n, mode in zip(sorted(chance.sample(range(1, total + 1), 6)), itertools.cycle(MODES), strict=False):
        await crash_once(started, clean, n, mode)
    await restart_is_free(started)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES)
async def test_a_crash_or_a_lost_answer_at_any_write_leads_to_the_same_end(
    started: World, mode: Mode
) -> None:
    clean = await learn(started)
    for n in range(1, clean.create_writes + clean.narrow_writes + 1):
        await crash_once(started, clean, n, mode)
        await restart_is_free(started)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
async def test_killed_while_linode_works_on_a_write_it_gets_there_all_the_same(
    started: World, after_effect: bool
) -> None:
    world = started
    clean = await learn(world)
    life = Life.begin(world)
    await _killed_at(world, "POST", FIREWALLS, after_effect, life.judge.apply(CREATE))
    assert_same(clean.created, await life.settle())
    await _killed_at(world, "PUT", RULES, after_effect, life.judge.edit(NARROWING))
    assert_same(clean.narrowed, await life.settle())
    await restart_is_free(world)
    await _killed_at(world, "DELETE", FIREWALL, after_effect, life.judge.delete())
    await world.gone(life.judge.name)
    life.judge.assert_closed()
    assert not world.linode.state.firewalls


async def _killed_at(world: World, method: str, path: str, after_effect: bool, act: Any) -> None:
    """Let the request hang before or after its effect, and kill the operator meanwhile."""
    fault = world.linode.faults.add(faults.hang(method, path, after_effect=after_effect))
    await act

    async def struck() -> bool:
        return fault.struck > 0

    await world.eventually(struck, what=f"{method} {path}")
    await asyncio.sleep(0.05)
    world.operator.kill()
    world.linode.faults.clear()
    await restart(world)


@pytest.mark.parametrize("lose", [faults.lost_reply, faults.reset, faults.gateway_timeout])
async def test_a_lost_answer_of_linode_makes_no_second_firewall(started: World, lose: Any) -> None:
    world = started
    clean = await learn(world)
    life = Life.begin(world)
    world.linode.faults.add(lose("POST", FIREWALLS))
    await life.judge.apply(CREATE)
    assert_same(clean.created, await life.settle())
    world.linode.faults.add(lose("PUT", RULES))
    await life.judge.edit(NARROWING)
    assert_same(clean.narrowed, await life.settle())
    world.linode.faults.add(lose("DELETE", FIREWALL))
    await life.end()
