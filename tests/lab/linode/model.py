"""The objects of a Linode account as the simulator keeps them, and how each looks on the API. No behaviour.

Shapes: Linode API description (`components/schemas` of the document); ids of one account-wide sequence,
addresses from documentation ranges. Times are UTC without offset, as the API writes them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lab.linode.errors import Json
from lab.linode.rules import Rules, admits

ENTITY_PATHS = {"linode": "linode/instances", "nodebalancer": "nodebalancers"}
SECRET_FIELDS = ("ssl_cert", "ssl_key")


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


@dataclass
class Firewall:
    id: int
    label: str
    rules: Rules
    created: datetime
    updated: datetime
    tags: list[str] = field(default_factory=list)
    status: str = "enabled"
    history: list[tuple[datetime, Rules]] = field(default_factory=list)  # oldest first, current one last


@dataclass
class Device:
    """The assignment of a firewall to a service; its id differs from the service's id."""

    id: int
    firewall_id: int
    type: str  # linode | nodebalancer
    entity_id: int
    created: datetime


@dataclass
class Node:
    id: int
    values: dict[str, Json]


@dataclass
class Config:
    """One port of a NodeBalancer."""

    id: int
    values: dict[str, Json]
    nodes: dict[int, Node] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.values["port"])


@dataclass
class NodeBalancer:
    id: int
    label: str
    region: str
    ipv4: str
    ipv6: str | None
    hostname: str
    created: datetime
    updated: datetime
    tags: list[str] = field(default_factory=list)
    type: str = "common"
    client_conn_throttle: int = 0
    client_udp_sess_throttle: int = 0
    lke_cluster_id: int | None = None
    locks: list[str] = field(default_factory=list)
    configs: dict[int, Config] = field(default_factory=dict)


@dataclass
class Linode:
    id: int
    label: str
    region: str
    type: str
    public_ipv4: str
    private_ipv4: str
    created: datetime
    tags: list[str] = field(default_factory=list)
    lke_cluster_id: int | None = None


@dataclass
class ReservedIP:
    address: str
    region: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    id: int
    created: datetime
    action: str
    username: str
    entity: Mapping[str, Json]
    secondary: Mapping[str, Json] | None = None


@dataclass
class User:
    """A user of the account; a restricted one acts only within `grants`."""

    username: str
    restricted: bool = False
    add: set[str] = field(default_factory=set)  # add_firewalls, add_nodebalancers
    grants: dict[str, dict[int, str]] = field(default_factory=dict)  # kind -> id -> read_only | read_write


@dataclass
class Token:
    """A personal access token. `name` is how the journal calls its bearer; the value never appears there."""

    name: str
    value: str
    username: str = "sandbox"
    scopes: tuple[str, ...] = ("*",)
    expires: datetime | None = None
    lke_cluster_id: int | None = None  # NodeBalancers made with this token belong to that cluster


@dataclass(frozen=True)
class Snapshot:
    """Firewalls and NodeBalancers at one instant, detached from the live state: what an observer judges."""

    revision: int
    firewalls: Mapping[int, Firewall]
    nodebalancers: Mapping[int, NodeBalancer]
    devices: Mapping[int, Device]

    def firewalls_of(self, nodebalancer_id: int) -> list[Firewall]:
        return [
            self.firewalls[device.firewall_id]
            for device in self.devices.values()
            if device.type == "nodebalancer" and device.entity_id == nodebalancer_id
        ]

    def admits(self, nodebalancer_id: int, address: str, port: int) -> bool:
        """Whether a client reaches a port: without an enabled firewall everybody does."""
        enabled = [f for f in self.firewalls_of(nodebalancer_id) if f.status == "enabled"]
        return all(admits(firewall.rules, address, port) for firewall in enabled)


def snapshot(
    revision: int,
    firewalls: Mapping[int, Firewall],
    nodebalancers: Mapping[int, NodeBalancer],
    devices: Mapping[int, Device],
) -> Snapshot:
    return Snapshot(
        revision,
        *(copy.deepcopy(dict(part)) for part in (firewalls, nodebalancers, devices)),  # type: ignore[arg-type]
    )


def render_entity(kind: str, ident: int, label: str | None) -> dict[str, Json]:
    url = f"/v4/{ENTITY_PATHS[kind]}/{ident}"
    return {"id": ident, "type": kind, "label": label, "url": url, "parent_entity": None}


def render_firewall(
    firewall: Firewall, entities: list[Json], rules: Rules | None = None, updated: datetime | None = None
) -> dict[str, Json]:
    return {
        "id": firewall.id,
        "label": firewall.label,
        "status": firewall.status,
        "rules": (rules or firewall.rules).render(),
        "tags": list(firewall.tags),
        "entities": entities,
        "created": timestamp(firewall.created),
        "updated": timestamp(updated or firewall.updated),
    }


def render_device(device: Device, label: str | None) -> dict[str, Json]:
    created = timestamp(device.created)
    entity = render_entity(device.type, device.entity_id, label)
    return {"id": device.id, "entity": entity, "created": created, "updated": created}


def render_nodebalancer(nb: NodeBalancer, cluster_label: str | None) -> dict[str, Json]:
    cluster: Json = None
    if nb.lke_cluster_id is not None:  # stays after the cluster is gone
        url = f"/v4/lke/clusters/{nb.lke_cluster_id}"
        label = cluster_label or f"lke{nb.lke_cluster_id}"
        cluster = {"id": nb.lke_cluster_id, "label": label, "type": "lkecluster", "url": url}
    return {
        "id": nb.id,
        "label": nb.label,
        "region": nb.region,
        "hostname": nb.hostname,
        "ipv4": nb.ipv4,
        "ipv6": nb.ipv6,
        "created": timestamp(nb.created),
        "updated": timestamp(nb.updated),
        "client_conn_throttle": nb.client_conn_throttle,
        "client_udp_sess_throttle": nb.client_udp_sess_throttle,
        "tags": list(nb.tags),
        "type": nb.type,
        "transfer": {"in": 0.0, "out": 0.0, "total": 0.0},
        "lke_cluster": cluster,
        "locks": list(nb.locks),
    }


def render_config(nb: NodeBalancer, config: Config) -> dict[str, Json]:
    secret = {name: "<REDACTED>" for name in SECRET_FIELDS if config.values.get(name)}
    return {
        **config.values,
        **secret,
        "id": config.id,
        "nodebalancer_id": nb.id,
        "nodes_status": {"up": len(config.nodes), "down": 0},
    }


def render_node(nb: NodeBalancer, config: Config, node: Node) -> dict[str, Json]:
    ids = {"id": node.id, "config_id": config.id, "nodebalancer_id": nb.id}
    return {**node.values, **ids, "status": "UP"}


def render_event(event: Event) -> dict[str, Json]:
    return {
        "id": event.id,
        "created": timestamp(event.created),
        "action": event.action,
        "username": event.username,
        "entity": dict(event.entity),
        "secondary_entity": None if event.secondary is None else dict(event.secondary),
        "status": "notification",
        "seen": False,
        "read": False,
        "percent_complete": None,
        "time_remaining": None,
        "rate": None,
        "duration": None,
        "message": "",
        "details": {},
    }
