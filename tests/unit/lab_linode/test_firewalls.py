"""Versions, fingerprints, history, assignments: what a drift check and a repair rely on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab.linode import LinodeSimulator
from lab.linode.behaviour import Reply
from lab.linode.state import CLOSED, EVERYBODY

TIME = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$")
RULE = {"action": "ACCEPT", "protocol": "TCP", "ports": "8000", "addresses": {"ipv4": ["203.0.113.4/32"]}}
OPEN = {**CLOSED, "inbound": [RULE]}


async def test_version_grows_on_change_only(sim: LinodeSimulator, api: Any) -> None:
    path = f"/networking/firewalls/{sim.state.create_firewall('one').id}/rules"
    first = (await api("GET", path)).body
    same = (await api("PUT", path, CLOSED)).body
    changed = (await api("PUT", path, OPEN)).body
    back = (await api("PUT", path, CLOSED)).body
    assert [one["version"] for one in (first, same, changed, back)] == [1, 1, 2, 3]
    assert first["fingerprint"] == same["fingerprint"] == back["fingerprint"] != changed["fingerprint"]
    assert [entry.wrote for entry in sim.journal.mutations()] == [False, True, True]


async def test_fingerprint_depends_on_content_alone(sim: LinodeSimulator) -> None:
    one = sim.state.create_firewall("one", OPEN)
    two = sim.state.create_firewall("two", OPEN)
    null = sim.state.create_firewall("null", {**OPEN, "outbound": None})
    assert one.rules.fingerprint == two.rules.fingerprint
    assert re.fullmatch(r"[0-9a-f]{8}", one.rules.fingerprint)
    assert null.rules.fingerprint != one.rules.fingerprint, "null and [] are different contents"


async def test_order_is_content(sim: LinodeSimulator, api: Any) -> None:
    other = {**RULE, "ports": "3000"}
    firewall = sim.state.create_firewall("one", {**CLOSED, "inbound": [RULE, other]})
    answer = await api(
        "PUT", f"/networking/firewalls/{firewall.id}/rules", {**CLOSED, "inbound": [other, RULE]}
    )
    assert answer.body["version"] == 2


@pytest.mark.parametrize("canonical", [False, True])
async def test_spelling_of_addresses_is_a_switch(sim: LinodeSimulator, api: Any, canonical: bool) -> None:
    sim.state.behaviour.canonical_addresses = canonical
    addresses = {"ipv4": ["192.0.2.5/24"], "ipv6": ["2001:DB8::1/128"]}
    firewall = sim.state.create_firewall("one", {**CLOSED, "inbound": [{**RULE, "addresses": addresses}]})
    answer = await api("GET", f"/networking/firewalls/{firewall.id}/rules")
    wanted = {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8::1/128"]} if canonical else addresses
    assert answer.body["inbound"][0]["addresses"] == wanted


async def test_history(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    sim.state.set_rules(firewall.id, OPEN)
    path = f"/networking/firewalls/{firewall.id}/history"
    versions = [one["rules"]["version"] for one in (await api("GET", path)).body["data"]]
    old = (await api("GET", f"{path}/rules/1")).body
    assert versions == [2, 1]
    assert old["rules"]["inbound"] == []
    assert (await api("GET", f"{path}/rules/3")).status == 404


async def test_times_have_no_offset_and_creation_answers_200(api: Any) -> None:
    answer = await api("POST", "/networking/firewalls", {"label": "one", "rules": CLOSED, "tags": ["b", "a"]})
    assert answer.status == 200
    assert TIME.match(answer.body["created"])
    assert answer.body["tags"] == ["a", "b"]
    assert (await api("DELETE", f"/networking/firewalls/{answer.body['id']}")).body == {}


async def test_entities_and_the_nodebalancers_list_agree(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    nbs = [sim.state.create_nodebalancer(f"nb-{n}", firewall.id) for n in (1, 2)]
    shown = (await api("GET", f"/networking/firewalls/{firewall.id}")).body["entities"]
    devices = (await api("GET", f"/networking/firewalls/{firewall.id}/devices")).body["data"]
    assert [entity["id"] for entity in shown] == [nb.id for nb in nbs]
    assert [device["entity"]["id"] for device in devices] == [nb.id for nb in nbs]
    assert {device["id"] for device in devices}.isdisjoint({nb.id for nb in nbs}), "device id is its own"
    sim.state.detach(nbs[0].id)
    assert (await api("GET", f"/nodebalancers/{nbs[0].id}/firewalls")).body["data"] == []
    assert len((await api("GET", f"/networking/firewalls/{firewall.id}")).body["entities"]) == 1


async def test_deletion_works_while_attached_and_opens_the_nodebalancer(
    sim: LinodeSimulator, api: Any
) -> None:
    firewall = sim.state.create_firewall("one")
    nb = sim.state.create_nodebalancer("nb-1", firewall.id)
    assert not sim.state.snapshot().admits(nb.id, "203.0.113.4", 8000)
    assert (await api("DELETE", f"/networking/firewalls/{firewall.id}")).status == 200
    assert (await api("GET", f"/nodebalancers/{nb.id}/firewalls")).body["results"] == 0
    assert sim.state.snapshot().admits(nb.id, "203.0.113.4", 8000)
    assert (await api("GET", f"/networking/firewalls/{firewall.id}")).status == 404


async def test_a_second_firewall_is_refused_with_the_configured_reply(sim: LinodeSimulator, api: Any) -> None:
    one, two = sim.state.create_firewall("one"), sim.state.create_firewall("two")
    nb = sim.state.create_nodebalancer("nb-1", one.id)
    body = {"id": nb.id, "type": "nodebalancer"}
    assert (await api("POST", f"/networking/firewalls/{two.id}/devices", body)).status == 400
    assert (await api("POST", f"/networking/firewalls/{one.id}/devices", body)).status == 400
    sim.state.behaviour.second_firewall_reply = Reply(409, "conflict")
    assert (await api("POST", f"/networking/firewalls/{two.id}/devices", body)).status == 409
    sim.state.behaviour.same_device = "same"
    assert (await api("POST", f"/networking/firewalls/{one.id}/devices", body)).status == 200
    sim.state.behaviour.second_firewall = "replace"
    assert (await api("POST", f"/networking/firewalls/{two.id}/devices", body)).status == 200
    assert [f.id for f in sim.state.firewalls_of(nb.id)] == [two.id]


async def test_assignment_by_the_nodebalancer(sim: LinodeSimulator, api: Any) -> None:
    one, two = sim.state.create_firewall("one"), sim.state.create_firewall("two")
    nb = sim.state.create_nodebalancer("nb-1", one.id)
    path = f"/nodebalancers/{nb.id}/firewalls"
    assert (await api("PUT", path, {"firewall_ids": [one.id, two.id]})).status == 400
    assert (await api("PUT", path, {"firewall_ids": [999]})).status == 400
    swapped = await api("PUT", path, {"firewall_ids": [two.id]})
    assert [f["id"] for f in swapped.body["data"]] == [two.id]
    mark = sim.journal.last
    await api("PUT", path, {"firewall_ids": [two.id]})
    assert sim.journal.writes(mark) == [], "what is there already is no write"
    assert (await api("PUT", path, {"firewall_ids": []})).body["data"] == []


async def test_default_firewall(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("default")
    body = {"default_firewall_ids": {"nodebalancer": firewall.id}}
    answer = await api("PUT", "/networking/firewalls/settings", body)
    assert answer.body["default_firewall_ids"] == {
        "linode": None,
        "nodebalancer": firewall.id,
        "public_interface": None,
        "vpc_interface": None,
    }
    nb = (await api("POST", "/nodebalancers", {"region": "us-ord"})).body
    assert [f.id for f in sim.state.firewalls_of(nb["id"])] == [firewall.id]
    assert (await api("DELETE", f"/networking/firewalls/{firewall.id}")).status == 400
    bad = {"default_firewall_ids": {"nodebalancer": 999}}
    assert (await api("PUT", "/networking/firewalls/settings", bad)).status == 400


async def test_disabled_lets_everything_pass(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    nb = sim.state.create_nodebalancer("nb-1", firewall.id)
    answer = await api("PUT", f"/networking/firewalls/{firewall.id}", {"status": "disabled"})
    assert answer.body["status"] == "disabled"
    assert sim.state.snapshot().admits(nb.id, "203.0.113.4", 8000)


async def test_every_action_has_an_event(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    nb = sim.state.create_nodebalancer("nb-1", firewall.id)
    sim.state.open_firewall(firewall.id)
    sim.state.disable_firewall(firewall.id)
    sim.state.enable_firewall(firewall.id)
    sim.state.tag_firewall(firewall.id, ["x"])
    sim.state.detach(nb.id)
    sim.state.delete_firewall(firewall.id)
    answer = await api("GET", "/account/events", X_Filter='{"entity.type": "firewall"}')
    assert [event["action"] for event in reversed(answer.body["data"])] == [
        "firewall_create",
        "firewall_device_add",
        "firewall_rules_update",
        "firewall_apply",
        "firewall_disable",
        "firewall_enable",
        "firewall_update",
        "firewall_device_remove",
        "firewall_delete",
    ]
    assert {event["username"] for event in answer.body["data"]} == {"person"}


async def test_first_match_wins(sim: LinodeSimulator) -> None:
    drop = {**RULE, "action": "DROP", "addresses": {"ipv4": ["203.0.113.0/25"]}}
    firewall = sim.state.create_firewall(
        "one", {**CLOSED, "inbound": [drop, {**EVERYBODY, "ports": "1-9000"}]}
    )
    nb = sim.state.create_nodebalancer("nb-1", firewall.id)
    taken = sim.state.snapshot()
    table = {
        ("203.0.113.4", 8000): False,
        ("203.0.113.200", 8000): True,
        ("203.0.113.4", 8001): True,
        ("2001:db8::1", 8000): True,
        ("203.0.113.200", 9001): False,
    }
    assert {case: taken.admits(nb.id, *case) for case in table} == table
