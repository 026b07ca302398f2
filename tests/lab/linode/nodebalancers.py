"""What the NodeBalancer operations do and refuse.

Refused: a duplicate label, a region that does not exist, two configs on one port, deletion while locked,
fields that a protocol does not have. A new NodeBalancer gets the firewall named at birth, else the
account's default, else none: then it is open. Source: Linode API description (NodeBalancer operations);
the CCM's requests as recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.linode import firewalls
from lab.linode.errors import Json, bad_request, not_found
from lab.linode.model import Config, Node, NodeBalancer
from lab.linode.store import Store

DUPLICATE_LABEL = "Label must be unique among your NodeBalancers"
CONFIG_DEFAULTS: dict[str, Json] = {
    "port": 80,
    "protocol": "http",
    "algorithm": "roundrobin",
    "check": "none",
    "check_interval": 5,
    "check_timeout": 3,
    "check_attempts": 2,
    "check_path": "",
    "check_body": "",
    "check_passive": True,
    "proxy_protocol": "none",
}
NODE_DEFAULTS: dict[str, Json] = {"weight": 100, "mode": "accept"}
REGIONS = ("us-ord", "us-east", "us-iad", "us-lax", "eu-central", "gb-lon", "id-cgk", "br-gru")


def entity_of(nb: NodeBalancer) -> dict[str, Json]:
    return {"id": nb.id, "label": nb.label, "type": "nodebalancer", "url": f"/v4/nodebalancers/{nb.id}"}


def _check_label(store: Store, label: str, own: int | None = None) -> None:
    if any(nb.label == label and nb.id != own for nb in store.nodebalancers.values()):
        raise bad_request(DUPLICATE_LABEL, "label")


def _config_values(body: Mapping[str, Json]) -> dict[str, Json]:
    values = {**CONFIG_DEFAULTS, **{k: v for k, v in body.items() if k not in ("nodes", "id")}}
    if values["protocol"] != "tcp" and values["proxy_protocol"] != "none":
        raise bad_request("proxy_protocol is only available for tcp", "proxy_protocol")
    if values["check"] != "none" and values["check_timeout"] >= values["check_interval"]:
        raise bad_request("check_timeout must be less than check_interval", "check_timeout")
    defaults: dict[str, Json] = {
        "stickiness": "none" if values["protocol"] in ("tcp", "udp") else "table",
        "cipher_suite": "none" if values["protocol"] in ("tcp", "udp") else "recommended",
        "ssl_cert": None,
        "ssl_key": None,
        "ssl_commonname": "",
        "ssl_fingerprint": "",
    }
    return {**defaults, **values}


def _same_port(a: Mapping[str, Json], b: Mapping[str, Json]) -> bool:
    """A port is unique among tcp, http and https; a udp config may share the number."""
    return bool(a["port"] == b["port"] and (a["protocol"] == "udp") == (b["protocol"] == "udp"))


def _check_ports(configs: list[dict[str, Json]]) -> None:
    for index, values in enumerate(configs):
        if any(_same_port(values, other) for other in configs[:index]):
            raise bad_request("Port must be unique among the configs of a NodeBalancer", "port")


def _nodes(store: Store, body: Mapping[str, Json], present: Mapping[int, Node]) -> dict[int, Node]:
    """Nodes as a create or rebuild asks: an id keeps a node, without one the node is new."""
    nodes: dict[int, Node] = {}
    for item in body.get("nodes") or []:
        ident = item.get("id")
        if ident is not None and ident not in present:
            raise bad_request("Node not found", "nodes")
        values = {**NODE_DEFAULTS, **{k: v for k, v in item.items() if k != "id"}}
        number = store.new_id() if ident is None else int(ident)
        nodes[number] = Node(number, values)
    return nodes


def create(store: Store, body: Mapping[str, Json], lke_cluster_id: int | None = None) -> NodeBalancer:
    """POST /nodebalancers: address, configs, nodes and firewall in one call."""
    if body["region"] not in REGIONS:
        raise bad_request("region is not valid", "region")
    values = [_config_values(config) for config in body.get("configs") or []]
    _check_ports(values)
    firewall_id = firewalls.birth_firewall(store, body.get("firewall_id"))
    ident = store.new_id()
    label = body.get("label") or f"nodebalancer{ident}"
    _check_label(store, label)
    now = store.now()
    ipv4 = body.get("ipv4") or f"198.51.{100 + ident // 256}.{ident % 256}"
    nb = NodeBalancer(
        id=ident,
        label=label,
        region=body["region"],
        ipv4=ipv4,
        ipv6=f"2600:3c06:e727:1::{ident:x}",
        hostname=f"{ipv4.replace('.', '-')}.ip.linodeusercontent.com",
        created=now,
        updated=now,
        tags=list(body.get("tags") or []),
        type=body.get("type", "common"),
        client_conn_throttle=body.get("client_conn_throttle", 0),
        client_udp_sess_throttle=body.get("client_udp_sess_throttle", 0),
        lke_cluster_id=lke_cluster_id,
    )
    for raw, value in zip(body.get("configs") or [], values, strict=True):
        config = Config(store.new_id(), value)
        config.nodes = _nodes(store, raw, {})
        nb.configs[config.id] = config
    store.nodebalancers[nb.id] = nb
    store.changed("nodebalancer_create", entity_of(nb))
    if firewall_id is not None:
        firewalls.attach(store, firewall_id, "nodebalancer", nb.id)
    return nb


def update(store: Store, ident: int, body: Mapping[str, Json]) -> NodeBalancer:
    """PUT /nodebalancers/{id}: label, throttles, tags."""
    nb = store.nodebalancer(ident)
    _check_label(store, body.get("label", nb.label), ident)
    wanted: dict[str, Any] = {
        name: body.get(name, getattr(nb, name))
        for name in ("label", "client_conn_throttle", "client_udp_sess_throttle", "tags")
    }
    if any(getattr(nb, name) != value for name, value in wanted.items()):
        for name, value in wanted.items():
            setattr(nb, name, value)
        nb.updated = store.now()
        store.changed("nodebalancer_update", entity_of(nb))
    return nb


def delete(store: Store, ident: int) -> None:
    """DELETE /nodebalancers/{id}: the assignment goes with it, the firewall stays."""
    nb = store.nodebalancer(ident)
    if nb.locks:
        raise bad_request("Cannot delete a resource that is locked")
    for device in store.devices_on("nodebalancer", ident):
        del store.devices[device.id]
    del store.nodebalancers[ident]
    store.changed("nodebalancer_delete", entity_of(nb))


def config(store: Store, ident: int, config_id: int) -> Config:
    found = store.nodebalancer(ident).configs.get(config_id)
    if found is None:
        raise not_found()
    return found


def node(store: Store, ident: int, config_id: int, node_id: int) -> Node:
    found = config(store, ident, config_id).nodes.get(node_id)
    if found is None:
        raise not_found()
    return found


def create_config(store: Store, ident: int, body: Mapping[str, Json]) -> Config:
    nb = store.nodebalancer(ident)
    values = _config_values(body)
    _check_ports([*(other.values for other in nb.configs.values()), values])
    made = Config(store.new_id(), values)
    made.nodes = _nodes(store, body, {})
    nb.configs[made.id] = made
    store.changed("nodebalancer_config_create", entity_of(nb))
    return made


def update_config(store: Store, ident: int, config_id: int, body: Mapping[str, Json]) -> Config:
    nb, found = store.nodebalancer(ident), config(store, ident, config_id)
    values = _config_values({**found.values, **body})
    _check_ports([*(o.values for o in nb.configs.values() if o.id != config_id), values])
    if values != found.values:
        found.values = values
        store.changed("nodebalancer_config_update", entity_of(nb))
    return found


def delete_config(store: Store, ident: int, config_id: int) -> None:
    nb, found = store.nodebalancer(ident), config(store, ident, config_id)
    del nb.configs[found.id]
    store.changed("nodebalancer_config_delete", entity_of(nb))


def rebuild(store: Store, ident: int, config_id: int, body: Mapping[str, Json]) -> Config:
    """POST .../rebuild: config and nodes are replaced; the same content again is no change."""
    nb, found = store.nodebalancer(ident), config(store, ident, config_id)
    values = _config_values(body)
    _check_ports([*(o.values for o in nb.configs.values() if o.id != config_id), values])
    nodes = _nodes(store, body, found.nodes)
    if (values, nodes) != (found.values, found.nodes):
        found.values, found.nodes = values, nodes
        store.changed("nodebalancer_config_update", entity_of(nb))
    return found


def put_node(store: Store, ident: int, config_id: int, node_id: int | None, body: Mapping[str, Json]) -> Node:
    """POST .../nodes (without an id) and PUT .../nodes/{nodeId}."""
    nb, owner = store.nodebalancer(ident), config(store, ident, config_id)
    if node_id is None:
        made = Node(store.new_id(), {**NODE_DEFAULTS, **body})
        owner.nodes[made.id] = made
        store.changed("nodebalancer_node_create", entity_of(nb))
        return made
    found = node(store, ident, config_id, node_id)
    values = {**found.values, **body}
    if values != found.values:
        found.values = values
        store.changed("nodebalancer_node_update", entity_of(nb))
    return found


def delete_node(store: Store, ident: int, config_id: int, node_id: int) -> None:
    nb, owner = store.nodebalancer(ident), config(store, ident, config_id)
    del owner.nodes[node(store, ident, config_id, node_id).id]
    store.changed("nodebalancer_node_delete", entity_of(nb))
