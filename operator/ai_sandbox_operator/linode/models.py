"""Answers of Linode's API as immutable models.

The API adds fields without notice, so unknown ones are ignored. Values that a newer API may add (a
protocol, a rule that only refers to a rule set) must parse too: `firewall.py` judges them, and
treats what it does not understand as wide open.
Source of shapes: Linode API description, schemas Firewall, NodeBalancer, Profile. Times come without
offset and mean UTC.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import pydantic


def _utc(value: datetime.datetime) -> datetime.datetime:
    return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value


def _no_null(value: Any) -> Any:
    return () if value is None else value


Moment = Annotated[datetime.datetime, pydantic.AfterValidator(_utc)]


class Model(pydantic.BaseModel):
    """Base: immutable, ignores what it does not know."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)


class Addresses(Model):
    """Networks of a rule."""

    ipv4: Annotated[tuple[str, ...], pydantic.BeforeValidator(_no_null)] = ()
    ipv6: Annotated[tuple[str, ...], pydantic.BeforeValidator(_no_null)] = ()


class Rule(Model):
    """One firewall rule. `ports` None means all ports; `ruleset` refers to rules kept elsewhere (beta)."""

    action: str = ""
    protocol: str = ""
    ports: str | None = None
    addresses: Addresses = Addresses()
    label: str | None = None
    description: str | None = None
    ruleset: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """The request body; an empty family is left out, because the API refuses empty lists."""
        families = {"ipv4": list(self.addresses.ipv4), "ipv6": list(self.addresses.ipv6)}
        body: dict[str, Any] = {
            "action": self.action,
            "protocol": self.protocol,
            "addresses": {family: networks for family, networks in families.items() if networks},
        }
        optional = {"ports": self.ports, "label": self.label, "description": self.description}
        return body | {name: value for name, value in optional.items() if value is not None}


class FirewallRules(Model):
    """The rules of a firewall. The defaults admit nobody."""

    inbound: Annotated[tuple[Rule, ...], pydantic.BeforeValidator(_no_null)] = ()
    inbound_policy: str = "DROP"
    outbound: Annotated[tuple[Rule, ...], pydantic.BeforeValidator(_no_null)] = ()
    outbound_policy: str = "ACCEPT"
    version: int | None = None
    fingerprint: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The request body; replaces the whole set."""
        return {
            "inbound": [rule.to_wire() for rule in self.inbound],
            "inbound_policy": self.inbound_policy,
            "outbound": [rule.to_wire() for rule in self.outbound],
            "outbound_policy": self.outbound_policy,
        }


class Entity(Model):
    """A service that a firewall is assigned to."""

    id: int
    type: str
    label: str | None = None


class LiveRules(FirewallRules):
    """Rules as read back. A reply without its policies is refused: a guess could hide an open firewall."""

    inbound_policy: str
    outbound_policy: str


class Firewall(Model):
    """A Cloud Firewall; one GET answers rules, status and entities together."""

    id: int
    label: str
    status: str
    rules: LiveRules
    tags: Annotated[tuple[str, ...], pydantic.BeforeValidator(_no_null)] = ()
    entities: Annotated[tuple[Entity, ...], pydantic.BeforeValidator(_no_null)] = ()
    created: Moment | None = None
    updated: Moment | None = None

    @property
    def nodebalancer_ids(self) -> tuple[int, ...]:
        """NodeBalancers that the firewall is assigned to."""
        return tuple(sorted(entity.id for entity in self.entities if entity.type == "nodebalancer"))


class FirewallDevice(Model):
    """An assignment of a firewall; its id differs from the service's."""

    id: int
    entity: Entity


class LKECluster(Model):
    """The cluster that a NodeBalancer belongs to."""

    id: int | None = None
    label: str | None = None


class NodeBalancer(Model):
    """A NodeBalancer."""

    id: int
    label: str = ""
    region: str = ""
    ipv4: str | None = None
    ipv6: str | None = None
    hostname: str | None = None
    tags: Annotated[tuple[str, ...], pydantic.BeforeValidator(_no_null)] = ()
    lke_cluster: LKECluster | None = None
    locks: Annotated[tuple[str, ...], pydantic.BeforeValidator(_no_null)] = ()
    created: Moment | None = None


class Profile(Model):
    """The user of the token, and the scopes that the reply's headers name."""

    username: str = ""
    restricted: bool = False
    scopes: tuple[str, ...] = ()


class GlobalGrants(Model):
    """What a restricted user may create."""

    add_firewalls: bool = False


class Grants(Model):
    """Grants of a restricted user."""

    global_: GlobalGrants = pydantic.Field(default_factory=GlobalGrants, alias="global")
