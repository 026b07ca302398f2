"""Linode misbehaves: vandals, outages, limits, tokens. What is open never grows, and others go on.

Every test judges Linode's side of the account; the operator's word counts only for the conditions that
a person reads. The token comes from a file, as in a pod, so that rotation needs no restart.
"""

from __future__ import annotations

import ipaddress
import pathlib
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from controlplane import steps
from controlplane.steps import Watchman, closed, guarded, placed, public, stand
from lab import layers
from lab.cluster.lab import Lab
from lab.linode import Token, faults
from lab.linode.faults import Fault
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")
NARROW = "203.0.113.8/30"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text("operator-token")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, token_file: pathlib.Path
) -> AsyncIterator[World]:
    """One world; sandbox `other` stands in it all the time."""
    lab.nodes.forget()
    options = {"flags": steps.FLAGS, "token": None, "token_file": token_file}
    folder = tmp_path_factory.mktemp("faults")
    async with World(lab, folder, operator=options, through_proxy=False) as made:
        await made.operator.start()
        await stand(made, "other")
        await made.apply("inside", {"lifecycle": {"state": "Suspended"}})
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def watchman(world: World, token_file: pathlib.Path) -> AsyncIterator[Watchman]:
    """Judges every change of the account during the test, and ends the fault after it."""
    pid = world.operator.pid
    made = Watchman(world)
    yield made
    world.linode.faults.clear()
    token_file.write_text("operator-token")
    made.assert_operator_opened_nothing()
    made.assert_operator_deleted_only_ours()
    assert world.operator.pid == pid, "no fault of Linode's may end the operator"
    assert world.operator.running


@pytest.fixture
def name() -> str:
    return f"f-{uuid.uuid4().hex[:6]}"


async def others_go_on(world: World) -> None:
    """An edit of a sandbox that needs nothing from Linode takes effect at once."""
    cidr = f"198.51.100.{uuid.uuid4().int % 250}/32"
    await world.edit("inside", {"access": {"allowlist": [{"cidr": cidr}]}})

    async def admitted() -> bool:
        policy = await world.get(kinds.NETWORK_POLICY, "inside-gateway")
        return policy is not None and (cidr, "API") in layers.policy(policy)

    await world.eventually(admitted, timeout=4, what="the edit of a sandbox inside the cluster")


def rules_of(world: World, firewall: int) -> layers.Layer:
    return layers.firewall(world.linode.state.firewall(firewall).rules.content())


def both(*cidrs: str) -> layers.Layer:
    return frozenset((cidr, target) for cidr in cidrs for target in ("API", "Chat"))


@pytest.mark.parametrize("act", ["opened", "disabled", "rules removed", "tags removed", "detached"])
async def test_a_vandalised_firewall_is_repaired_within_the_check_interval(world: World, act: str) -> None:
    at = await placed(world, "other")
    state = world.linode.state
    whose = await steps.owner(world, "other")
    match act:
        case "opened":
            state.open_firewall(at.firewall)
        case "disabled":
            state.disable_firewall(at.firewall)
        case "rules removed":
            state.set_rules(
                at.firewall,
                {"inbound": [], "inbound_policy": "DROP", "outbound": [], "outbound_policy": "ACCEPT"},
            )
        case "tags removed":
            state.tag_firewall(at.firewall, [])
        case "detached":
            state.detach(at.balancer)

    async def repaired() -> bool:
        live = state.firewall(at.firewall)
        return (
            live.status == "enabled"
            and whose.owns(live.tags)
            and rules_of(world, at.firewall) == both(steps.ALLOWED)
            and [one.id for one in state.firewalls_of(at.balancer)] == [at.firewall]
            and closed(world, at.balancer)
        )

    # A detached one is left to the cloud controller for the grace of three seconds.
    await world.eventually(repaired, timeout=9 if act == "detached" else 5, what="the repair")
    assert await placed(world, "other") == at


async def test_a_foreign_firewall_with_our_label_is_named_and_never_changed(world: World, name: str) -> None:
    await world.apply(name, {"lifecycle": {"state": "Suspended"}})
    whose = await steps.owner(world, name)
    foreign = world.linode.state.create_firewall(whose.label, tags=["somebody"])
    world.linode.state.open_firewall(foreign.id)
    mark = world.linode.journal.last
    await world.apply(name, public())
    told = await world.until(name, "NetworkProtected", "False", reason="ForeignFirewall")
    assert whose.label in told["message"]
    assert f"id {foreign.id}" in told["message"]
    await others_go_on(world)
    assert await world.get(kinds.SERVICE, name) is None
    touched = [e for e in world.linode.journal.mutations(mark, token="operator") if str(foreign.id) in e.path]
    assert touched == []
    world.linode.state.relabel_firewall(foreign.id, "somebodys-own")
    at = await placed(world, name, timeout=15)
    assert at.firewall != foreign.id
    assert closed(world, at.balancer)


async def test_retry_after_of_a_429_is_honoured(world: World, name: str) -> None:
    at = await stand(world, name)
    path = f"/networking/firewalls/{at.firewall}/rules"
    world.linode.faults.add(faults.throttled(3, "PUT", path))
    mark = world.linode.journal.last
    await world.edit(name, {"access": {"allowlist": [{"cidr": NARROW}]}})
    await world.until(name, "NetworkProtected", "False", reason="LinodeUnavailable")
    await others_go_on(world)
    await placed(world, name)
    first, second = (e for e in world.linode.journal.since(mark, "operator", "PUT") if e.path == path)
    assert (first.status, second.status) == (429, 200)
    between = [
        e
        for e in world.linode.journal.since(first.index, "operator")
        if e.time < first.time + 2.9 and e.template not in ("/networking/firewalls", "/nodebalancers")
    ]
    assert between == []
    assert rules_of(world, at.firewall) == both(NARROW)


OUTAGES = {
    "500": Fault("status", status=500, times=None),
    "502 with a page of HTML": Fault("status", status=502, body="<html>Bad gateway</html>", times=None),
    "503": faults.unavailable(),
    "maintenance": Fault("status", maintenance="Whole system", retry_after="3", times=None),
    "reset": faults.reset("*", "*", times=None),
    "busy": faults.busy(times=None),
    "hang": faults.hang(times=None),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_keeps_what_is_narrow_and_ends_by_itself(
    world: World, name: str, outage: str
) -> None:
    at = await stand(world, name)
    fault = OUTAGES[outage]
    fault.path, fault.token = f"/networking/firewalls/{at.firewall}*", "operator"
    world.linode.faults.add(fault)
    await world.edit(name, {"access": {"allowlist": [{"cidr": NARROW}, {"cidr": "198.51.100.0/24"}]}})
    told = await world.until(name, "NetworkProtected", "False", reason="LinodeUnavailable", timeout=20)
    assert told["message"]
    assert rules_of(world, at.firewall) == both(steps.ALLOWED)
    assert world.linode.state.firewalls_of(at.balancer)[0].id == at.firewall
    await others_go_on(world)
    world.linode.faults.clear()
    assert await placed(world, name, timeout=25) == at
    assert rules_of(world, at.firewall) == both(NARROW, "198.51.100.0/24")


async def test_a_rotated_token_is_used_without_a_restart(world: World, token_file: pathlib.Path) -> None:
    at = await placed(world, "other")
    world.linode.state.add_token(Token("rotated", "rotated-token-2"))
    token_file.write_text("rotated-token-2\n")
    mark = world.linode.journal.last

    async def used() -> bool:
        return bool(world.linode.journal.since(mark, token="rotated"))

    await world.eventually(used, timeout=5, what="the new token")
    last = world.linode.journal.last
    world.linode.state.open_firewall(at.firewall)
    await guarded(world, "other", at.balancer)
    assert world.linode.journal.since(last, token="operator") == []


async def test_an_expired_token_is_told_and_a_new_one_mends_it(
    world: World, token_file: pathlib.Path, name: str
) -> None:
    at = await stand(world, name)
    world.linode.state.add_token(Token("brief", "brief-token-3"))
    token_file.write_text("brief-token-3")

    async def used() -> bool:
        return bool(world.linode.journal.since(0, token="brief"))

    await world.eventually(used, timeout=5, what="the brief token")
    world.linode.state.expire_token("brief")
    told = await world.until(name, "NetworkProtected", "False", reason="LinodeUnavailable")
    assert "401" in told["message"]
    assert "token" in told["message"]
    assert "brief-token-3" not in await world.describe()
    await others_go_on(world)
    assert closed(world, at.balancer)
    token_file.write_text("operator-token")
    assert await placed(world, name, timeout=15) == at


async def test_without_a_token_nothing_is_exposed_until_there_is_one(
    world: World, token_file: pathlib.Path, name: str
) -> None:
    token_file.unlink()
    mark = world.linode.journal.last
    await world.apply(name, public())
    told = await world.until(name, "NetworkProtected", "False", reason="NoLinodeToken")
    assert "firewall:read_write" in told["message"]
    assert (await world.condition(name, "Exposed"))["status"] == "False"
    await others_go_on(world)
    assert await world.get(kinds.SERVICE, name) is None
    assert world.linode.journal.mutations(mark) == []
    token_file.write_text("operator-token")
    at = await placed(world, name, timeout=20)
    assert closed(world, at.balancer)


async def test_a_token_without_a_scope_is_told_by_the_scopes_name(
    world: World, token_file: pathlib.Path, name: str
) -> None:
    scopes = ("firewall:read_only", "nodebalancers:read_write")
    world.linode.state.add_token(Token("reader", "reader-token-4", scopes=scopes))
    token_file.write_text("reader-token-4")
    await world.apply(name, public())
    told = await world.until(name, "NetworkProtected", "False", reason="LinodeUnavailable")
    assert "firewall:read_write" in told["message"]
    await others_go_on(world)
    assert await world.get(kinds.SERVICE, name) is None
    token_file.write_text("operator-token")
    at = await placed(world, name, timeout=20)
    assert closed(world, at.balancer)


async def test_a_thousand_networks_fit_and_are_admitted_exactly(world: World, name: str) -> None:
    # Every second address, so that no two join.
    networks = [f"198.18.{i // 128}.{i % 128 * 2}/32" for i in range(1000)]
    await world.apply(name, public(*networks))
    at = await placed(world, name, timeout=60)
    rules = world.linode.state.firewall(at.firewall).rules
    assert len(rules.inbound or ()) <= 25
    assert max(len(r["addresses"]["ipv4"]) for r in rules.inbound or ()) <= 255
    assert rules_of(world, at.firewall) == both(*networks)
    now = world.linode.state.snapshot()
    for network in networks[::97]:
        address = ipaddress.ip_network(network).network_address
        assert now.admits(at.balancer, str(address), names.PORT_API)
        assert not now.admits(at.balancer, str(address + 1), names.PORT_API)
