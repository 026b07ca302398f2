"""I1: a sandbox is closed at every instant to whom its spec does not name.

Each test takes a sandbox through one change of its life while a judge looks at the whole state after
every single write. At the end of a change exactly the named clients get in: a sandbox that lets nobody
in would be closed too.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from lab import admits
from lab.linode import faults
from lab.observer import ClosedObserver
from lab.proxy import Fault
from lab.world import World

OFFICE, HOME, OFFICE_SIX = "203.0.113.0/28", "198.18.77.64/30", "2001:db8:1::/64"
DESK = "203.0.113.4/32"
ADDRESSES = admits.samples(OFFICE, HOME, OFFICE_SIX, DESK)
NAME = "closed"


@pytest.fixture
def judge(started: World) -> ClosedObserver:
    return ClosedObserver(started, NAME, ADDRESSES)


def access(*entries: str | tuple[str, list[str]], **rest: Any) -> dict[str, Any]:
    """A spec with an allowlist; entries are networks, or networks with their targets."""
    allowlist = [
        {"cidr": entry} if isinstance(entry, str) else {"cidr": entry[0], "to": entry[1]} for entry in entries
    ]
    return {"access": {"exposure": "NodeBalancer", "allowlist": allowlist, **rest}}


async def settled(judge: ClosedObserver) -> None:
    """Wait until the spec holds; then exactly those whom it names get in."""
    await judge.world.until(judge.name, "Ready")

    async def open_to_all_named() -> bool:
        await judge.look("at the end")
        return all(judge.reached(side) == judge.wanted(side) for side in ("outside", "inside"))

    await judge.world.eventually(open_to_all_named, timeout=15, what="access as the spec says")
    judge.assert_closed()


async def test_closed_while_a_sandbox_without_exposure_is_created(judge: ClosedObserver) -> None:
    await judge.apply(access(OFFICE, exposure="ClusterIP"))
    await settled(judge)
    assert judge.reached("inside")
    assert not judge.world.linode.journal.mutations(0)


async def test_closed_while_an_exposed_sandbox_is_created_suspended_resumed_and_deleted(
    judge: ClosedObserver,
) -> None:
    await judge.apply(access(OFFICE, (OFFICE_SIX, ["API"])))
    await settled(judge)
    assert ("2001:db8:1::", "API") in judge.reached("outside")
    await judge.edit({"lifecycle": {"state": "Suspended"}})
    await judge.world.until(NAME, "EngineReady", "False")
    await judge.world.quiet()
    await judge.edit({"lifecycle": {"state": "Running"}})
    await settled(judge)
    await judge.delete()
    await judge.world.gone(NAME)
    await judge.look("after the end")
    judge.assert_closed()
    assert not judge.world.linode.state.firewalls
    assert not judge.world.linode.state.nodebalancers


async def test_closed_while_the_allowlist_is_widened_narrowed_and_swapped(judge: ClosedObserver) -> None:
    await judge.apply(access(OFFICE))
    await settled(judge)
    for entries in (
        [OFFICE, OFFICE_SIX],  # wider
        [DESK, OFFICE_SIX],  # narrower within an entry
        [DESK],  # narrower by an entry
        [HOME],  # another one
        [],  # nobody
        [HOME, (OFFICE, ["API"])],
    ):
        await judge.edit(access(*entries))
        await settled(judge)


async def test_closed_while_targets_of_entries_are_exchanged(judge: ClosedObserver) -> None:
    await judge.apply(access((OFFICE, ["API"]), (HOME, ["Chat"])))
    await settled(judge)
    await judge.edit(access((OFFICE, ["Chat"]), (HOME, ["API"])))
    await settled(judge)
    await judge.edit(access((OFFICE, ["Chat", "API"]), (HOME, ["API"])))
    await settled(judge)


async def test_closed_while_the_chat_is_turned_off_and_on(judge: ClosedObserver) -> None:
    await judge.apply(access(OFFICE))
    await settled(judge)
    await judge.edit({"chat": {"enabled": False}})
    await settled(judge)
    assert not any(target == "Chat" for _, target in judge.reached("outside"))
    await judge.edit({"chat": {"enabled": True}})
    await settled(judge)


async def test_closed_while_the_exposure_is_taken_away_and_given_again(judge: ClosedObserver) -> None:
    world = judge.world
    await judge.apply(access(OFFICE))
    await settled(judge)
    await judge.edit({"access": {"exposure": "ClusterIP"}})

    async def released() -> bool:
        return not (world.linode.state.firewalls or world.linode.state.nodebalancers)

    await world.eventually(released, what="the release of firewall and NodeBalancer")
    await settled(judge)
    await judge.edit({"access": {"exposure": "NodeBalancer"}})
    await settled(judge)
    assert judge.reached("outside")


async def test_closed_while_a_namesake_replaces_a_deleted_sandbox(judge: ClosedObserver) -> None:
    world = judge.world
    await judge.apply(access(OFFICE))
    await settled(judge)
    first = (await world.sandbox(NAME))["metadata"]["uid"]
    await judge.delete()
    await world.gone(NAME)
    await judge.apply(access(HOME))
    await settled(judge)
    assert (await world.sandbox(NAME))["metadata"]["uid"] != first
    assert len(world.linode.state.firewalls) == 1
    assert len(world.linode.state.nodebalancers) == 1


async def test_policies_and_gateway_narrow_at_once_while_linode_refuses(judge: ClosedObserver) -> None:
    world = judge.world
    await judge.apply(access(OFFICE, OFFICE_SIX))
    await settled(judge)
    world.linode.faults.add(faults.unavailable("/networking/firewalls*"))
    await judge.edit(access(DESK, HOME))

    async def narrow() -> bool:
        await judge.look()
        return judge.reached("inside") == judge.wanted("inside")

    await world.eventually(narrow, timeout=5, what="narrow policies and gateway")
    assert judge.reached("outside") < judge.wanted("outside"), "the firewall does not know the new entry yet"
    await world.until(NAME, "NetworkProtected", "False", reason="LinodeUnavailable")
    world.linode.faults.clear()
    await settled(judge)


async def test_policies_and_gateway_narrow_at_once_while_linode_is_slow(judge: ClosedObserver) -> None:
    world = judge.world
    await judge.apply(access(OFFICE, OFFICE_SIX))
    await settled(judge)
    world.linode.faults.add(faults.slow(4.0, "*", "/networking/firewalls*"))
    await judge.edit(access(HOME))

    async def nobody_outside() -> bool:
        await judge.look()
        return not judge.reached("outside")

    await world.eventually(nobody_outside, timeout=3, what="a gateway that turns away who was removed")
    world.linode.faults.clear()
    await settled(judge)


async def test_closed_when_a_second_edit_takes_back_the_first(judge: ClosedObserver) -> None:
    await judge.apply(access(OFFICE))
    await settled(judge)
    for pause in (0.0, 0.02, 0.1, 0.3):
        await judge.edit(access(OFFICE, HOME))
        await asyncio.sleep(pause)
        await judge.edit(access(DESK))
        await settled(judge)
        await judge.edit(access(OFFICE))
        await settled(judge)


async def test_rules_are_not_sent_again_without_a_look_at_the_spec(judge: ClosedObserver) -> None:
    """A refused write is taken back by the next edit; no repetition may carry it out after all."""
    world, rules = judge.world, "/networking/firewalls/{firewallId}/rules"
    await judge.apply(access(DESK))
    await settled(judge)
    mark = world.linode.journal.last
    world.linode.faults.add(faults.unavailable(rules, times=1))
    await judge.edit(access(OFFICE, HOME))
    await world.eventually(lambda: _asked(world, rules), what="a refused write of the rules")
    await judge.edit(access(DESK))
    await settled(judge)
    assert [str(e) for e in world.linode.journal.writes(mark)] == []


async def test_a_firewall_that_is_still_being_written_never_ends_wider_than_the_spec(
    judge: ClosedObserver,
) -> None:
    world = judge.world
    await judge.apply(access(DESK))
    await settled(judge)
    put = "/networking/firewalls/{firewallId}/rules"
    world.linode.faults.add(faults.slow(1.0, "PUT", put, times=1))
    await judge.edit(access(DESK, HOME))
    await world.eventually(lambda: _asked(world, put), what="the first write of the rules")
    await judge.edit(access(OFFICE))
    await settled(judge)
    (firewall,) = world.linode.state.firewalls.values()
    assert admits.firewall(firewall, ADDRESSES) == judge.wanted("outside")


async def test_a_stale_view_does_not_reopen_the_firewall(started: World) -> None:
    """The operator could not write a wide allowlist at once; meanwhile it is taken back, unseen."""
    world, rules = started, "/networking/firewalls/{firewallId}/rules"
    judge = ClosedObserver(world, NAME, ADDRESSES, reaction=0.3)
    await judge.apply(access(DESK))
    await settled(judge)
    fault = world.linode.faults.add(faults.unavailable(rules))
    await judge.edit(access(OFFICE, HOME))
    await world.until(NAME, "NetworkProtected", "False", reason="LinodeUnavailable")
    await asyncio.sleep(0.5)
    world.proxy.flowing.clear()  # its answers would tell it, too: it has nothing to write now
    await judge.edit(access(DESK))
    mark = world.linode.journal.last
    world.linode.faults.remove(fault.id)
    await asyncio.sleep(5)
    assert [str(e) for e in world.linode.journal.writes(mark)] == []
    world.proxy.flowing.set()
    await settled(judge)


async def _asked(world: World, template: str) -> bool:
    return any(e.template == template and e.method == "PUT" for e in world.linode.journal.since(0))


async def test_closed_while_the_network_policies_cannot_be_written(judge: ClosedObserver) -> None:
    """No pod may start before its policies; when they come, everything follows."""
    world = judge.world
    refused = Fault(mode="status", nth=0, plural="networkpolicies", status=500)
    world.proxy.faults.append(refused)
    await judge.apply(access(OFFICE))
    await world.eventually(lambda: _fired(refused), what="a refused policy")
    await asyncio.sleep(2)
    assert await world.api.list_all(kinds.POD, world.namespace) == []
    assert await world.get(kinds.SERVICE, NAME) is None
    world.proxy.faults.clear()
    await settled(judge)


async def _fired(fault: Fault) -> bool:
    return bool(fault.fired)
