"""NodeBalancers, configs, nodes, and the rest of the account."""

from __future__ import annotations

from typing import Any

import pytest

from lab.linode import LinodeSimulator

NODE = {"address": "192.168.128.11:30711", "label": "lab", "weight": 100, "mode": "accept"}
CONFIG = {"port": 8000, "protocol": "tcp", "proxy_protocol": "v2", "check": "connection", "check_timeout": 3}


async def test_creation_in_one_call(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    body = {
        "region": "us-ord",
        "label": "ccm-0123456789ab",
        "firewall_id": firewall.id,
        "tags": ["lke7"],
        "type": "common",
        "configs": [{**CONFIG, "nodes": [NODE]}],
    }
    nb = (await api("POST", "/nodebalancers", body, token="ccm-token")).body
    assert nb["lke_cluster"]["id"] == 7
    assert nb["hostname"] == f"{nb['ipv4'].replace('.', '-')}.ip.linodeusercontent.com"
    configs = (await api("GET", f"/nodebalancers/{nb['id']}/configs")).body["data"]
    nodes = (await api("GET", f"/nodebalancers/{nb['id']}/configs/{configs[0]['id']}/nodes")).body["data"]
    assert (configs[0]["port"], configs[0]["stickiness"]) == (8000, "none")
    assert {k: nodes[0][k] for k in NODE} == NODE
    assert [f.id for f in sim.state.firewalls_of(nb["id"])] == [firewall.id]


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("no region", {}, 400),
    ("an unknown region", {"region": "mars-1"}, 400),
    ("a bad label", {"region": "us-ord", "label": "a b"}, 400),
    ("a taken label", {"region": "us-ord", "label": "taken"}, 400),
    ("throttle over 20", {"region": "us-ord", "client_conn_throttle": 21}, 400),
    ("two configs on one port", {"region": "us-ord", "configs": [CONFIG, CONFIG]}, 400),
    (
        "tcp and udp on one number",
        {"region": "us-ord", "configs": [CONFIG, {"port": 8000, "protocol": "udp"}]},
        200,
    ),
    ("PROXY protocol of http", {"region": "us-ord", "configs": [{**CONFIG, "protocol": "http"}]}, 400),
    ("timeout not below interval", {"region": "us-ord", "configs": [{**CONFIG, "check_timeout": 5}]}, 400),
    ("an unknown firewall", {"region": "us-ord", "firewall_id": 999}, 403),
    ("an unknown field", {"region": "us-ord", "firewall": 1}, 400),
]


@pytest.mark.parametrize(("body", "status"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
async def test_refusals(sim: LinodeSimulator, api: Any, body: dict[str, Any], status: int) -> None:
    sim.state.create_nodebalancer("taken")
    assert (await api("POST", "/nodebalancers", body)).status == status
    assert len(sim.state.nodebalancers) == (2 if status == 200 else 1)


async def test_unknown_firewall_may_be_accepted(sim: LinodeSimulator, api: Any) -> None:
    sim.state.behaviour.unknown_firewall_at_birth = "accept"
    nb = (await api("POST", "/nodebalancers", {"region": "us-ord", "firewall_id": 999})).body
    assert sim.state.firewalls_of(nb["id"]) == []


async def test_rebuild_keeps_nodes_by_id_and_the_same_again_is_no_write(
    sim: LinodeSimulator, api: Any
) -> None:
    nb = sim.state.create_nodebalancer("nb-1", configs=[{**CONFIG, "nodes": [NODE]}])
    config = next(iter(nb.configs.values()))
    node = next(iter(config.nodes))
    path = f"/nodebalancers/{nb.id}/configs/{config.id}/rebuild"
    assert (await api("POST", path, {**CONFIG, "nodes": [{**NODE, "id": node}]})).status == 200
    assert sim.journal.writes() == []
    other = {**NODE, "address": "192.168.128.12:30711", "label": "other"}
    await api("POST", path, {**CONFIG, "nodes": [{**NODE, "id": node}, other]})
    assert next(iter(config.nodes)) == node
    assert len(config.nodes) == 2
    assert (await api("POST", path, {**CONFIG, "nodes": [{**NODE, "id": 999}]})).status == 400


async def test_single_configs_and_nodes(sim: LinodeSimulator, api: Any) -> None:
    nb = sim.state.create_nodebalancer("nb-1")
    path = f"/nodebalancers/{nb.id}/configs"
    config = (await api("POST", path, CONFIG)).body
    assert (await api("POST", path, CONFIG)).status == 400
    changed = await api("PUT", f"{path}/{config['id']}", {"algorithm": "source"})
    assert changed.body["algorithm"] == "source"
    node = (await api("POST", f"{path}/{config['id']}/nodes", NODE)).body
    drained = await api("PUT", f"{path}/{config['id']}/nodes/{node['id']}", {"mode": "drain"})
    assert drained.body["mode"] == "drain"
    assert (await api("DELETE", f"{path}/{config['id']}/nodes/{node['id']}")).body == {}
    assert (await api("GET", f"{path}/{config['id']}/nodes/{node['id']}")).status == 404
    assert (await api("DELETE", f"{path}/{config['id']}")).body == {}
    assert (await api("GET", f"{path}/{config['id']}")).status == 404


async def test_deletion_leaves_the_firewall_and_a_lock_prevents_it(sim: LinodeSimulator, api: Any) -> None:
    firewall = sim.state.create_firewall("one")
    nb = sim.state.create_nodebalancer("nb-1", firewall.id)
    sim.state.lock_nodebalancer(nb.id)
    assert (await api("DELETE", f"/nodebalancers/{nb.id}")).status == 400
    sim.state.nodebalancers[nb.id].locks = []
    assert (await api("DELETE", f"/nodebalancers/{nb.id}")).status == 200
    assert (await api("GET", f"/nodebalancers/{nb.id}")).status == 404
    assert (await api("GET", f"/networking/firewalls/{firewall.id}")).body["entities"] == []


async def test_certificates_are_redacted(sim: LinodeSimulator, api: Any) -> None:
    nb = sim.state.create_nodebalancer("nb-1")
    body = {"port": 443, "protocol": "https", "ssl_cert": "CERT", "ssl_key": "KEY"}
    answer = await api("POST", f"/nodebalancers/{nb.id}/configs", body)
    assert (answer.body["ssl_cert"], answer.body["ssl_key"]) == ("<REDACTED>", "<REDACTED>")


async def test_linodes_and_addresses(sim: LinodeSimulator, api: Any) -> None:
    sim.state.add_linode("node-1", "192.168.128.11", ident=1001)
    firewall = sim.state.create_firewall("nodes")
    sim.state.attach_linode(firewall.id, 1001)
    linode = (await api("GET", "/linode/instances/1001")).body
    ips = (await api("GET", "/linode/instances/1001/ips")).body["ipv4"]
    assert "192.168.128.11" in linode["ipv4"]
    assert ips["private"][0]["address"] == "192.168.128.11"
    assert (await api("GET", "/linode/instances/1001/firewalls")).body["results"] == 1
    assert (await api("GET", "/linode/instances/1002/firewalls")).status == 404
    reserved = (await api("POST", "/networking/reserved/ips", {"region": "us-ord"})).body["address"]
    assert (await api("GET", f"/networking/reserved/ips/{reserved}")).body["reserved"] is True
    assert (await api("DELETE", f"/networking/reserved/ips/{reserved}")).body == {}
    assert (await api("GET", f"/networking/ips/{reserved}")).status == 404


async def test_the_catalogue_can_be_set(sim: LinodeSimulator, api: Any) -> None:
    plan = (await api("GET", "/linode/types")).body["data"][0]
    sim.state.static["get-linode-types"] = [{**plan, "id": "g2-gpu-rtx4000a1-m", "gpus": 1}]
    assert (await api("GET", "/linode/types/g2-gpu-rtx4000a1-m", token=None)).body["gpus"] == 1
    assert (await api("GET", "/linode/types/g9", token=None)).status == 404
