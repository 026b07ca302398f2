"""What a NodeBalancer's data path needs to know of the account: NodeBalancers, their ports, their firewalls.

Read from the document that the simulator gives at `/_lab/state` (lab/linode/control.py). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """One inbound rule of a Cloud Firewall. `ports` as Linode writes them; None: every port."""

    action: str
    protocol: str
    ports: str | None
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Firewall:
    """An enabled Cloud Firewall: the first rule that fits wins, then the policy."""

    inbound: tuple[Rule, ...]
    policy: str


@dataclasses.dataclass(frozen=True)
class Check:
    """How a port's backends are checked; times in seconds. `kind` "none" takes them all for well."""

    kind: str
    interval: float
    timeout: float
    attempts: int


@dataclasses.dataclass(frozen=True)
class Port:
    """One config of a NodeBalancer. `nodes` are `address:port`."""

    number: int
    protocol: str
    proxy_protocol: str
    algorithm: str
    check: Check
    nodes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NodeBalancer:
    """One NodeBalancer. No enabled firewall: it is open to everybody."""

    id: int
    ipv4: str
    ipv6: str | None
    firewalls: tuple[Firewall, ...]
    ports: tuple[Port, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its public addresses, without prefix length."""
        return (self.ipv4, *([self.ipv6.partition("/")[0]] if self.ipv6 else []))


def read(document: Mapping[str, Any]) -> tuple[NodeBalancer, ...]:
    """Every NodeBalancer of the account."""
    enabled = {one["id"]: _firewall(one) for one in document["firewalls"] if one["status"] == "enabled"}
    return tuple(
        NodeBalancer(
            id=one["id"],
            ipv4=one["ipv4"],
            ipv6=one["ipv6"],
            firewalls=tuple(enabled[ident] for ident in one["firewall_ids"] if ident in enabled),
            ports=tuple(_port(config) for config in one["configs"]),
        )
        for one in document["nodebalancers"]
    )


def _firewall(document: Mapping[str, Any]) -> Firewall:
    rules = document["rules"]
    return Firewall(tuple(_rule(one) for one in rules["inbound"] or ()), rules["inbound_policy"])


def _rule(document: Mapping[str, Any]) -> Rule:
    addresses = document["addresses"]
    return Rule(
        action=document["action"],
        protocol=document["protocol"],
        ports=document.get("ports"),
        ipv4=tuple(addresses.get("ipv4") or ()),
        ipv6=tuple(addresses.get("ipv6") or ()),
    )


def _port(document: Mapping[str, Any]) -> Port:
    return Port(
        number=document["port"],
        protocol=document["protocol"],
        proxy_protocol=document["proxy_protocol"],
        algorithm=document["algorithm"],
        check=Check(
            document["check"],
            document["check_interval"],
            document["check_timeout"],
            document["check_attempts"],
        ),
        nodes=tuple(node["address"] for node in document["nodes"] if node["mode"] == "accept"),
    )
