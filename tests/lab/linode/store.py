"""The simulated account in memory: objects, ids, clock, event log, look-ups.

Every change goes through `transaction`, which counts revisions and tells the listeners after each
committed change, so that an observer can judge every instant. A transaction that changes nothing is no
write. The rules of the API (what is refused) live in `firewalls.py` and `nodebalancers.py`; the same
functions serve the API and a person's edits, so both keep the state consistent.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from lab.linode.behaviour import Behaviour
from lab.linode.errors import Json, not_found
from lab.linode.model import (
    Device,
    Event,
    Firewall,
    Linode,
    NodeBalancer,
    ReservedIP,
    Snapshot,
    Token,
    User,
    render_entity,
    snapshot,
)

FIRST_ID = 101
PERSON = "person"
Listener = Callable[[Snapshot, str], None]  # snapshot after the change, who made it

OPERATOR_SCOPES = (
    "firewall:read_write",
    "nodebalancers:read_write",
    "linodes:read_only",
    "lke:read_only",
    "events:read_only",
    "ips:read_only",
)


def default_tokens() -> list[Token]:
    """Three bearers of one user: the operator, a cluster's CCM, and a person with all rights."""
    return [
        Token("operator", "operator-token", scopes=OPERATOR_SCOPES),
        Token("ccm", "ccm-token", lke_cluster_id=7),
        Token("admin", "admin-token"),
    ]


class Store:
    """One account. Not safe for threads by itself: edits run in the simulator's event loop."""

    def __init__(
        self, behaviour: Behaviour | None = None, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.revision = 0
        self.listeners: list[Listener] = []
        self.firewalls: dict[int, Firewall] = {}
        self.devices: dict[int, Device] = {}
        self.nodebalancers: dict[int, NodeBalancer] = {}
        self.linodes: dict[int, Linode] = {}
        self.reserved_ips: dict[str, ReservedIP] = {}
        self.events: list[Event] = []
        self.default_firewalls: dict[str, int | None] = {
            "linode": None,
            "nodebalancer": None,
            "public_interface": None,
            "vpc_interface": None,
        }
        self.users: dict[str, User] = {"sandbox": User("sandbox")}
        self.tokens: dict[str, Token] = {token.value: token for token in default_tokens()}
        self.cluster_label = "sandbox"
        self.static: dict[str, Json] = {}  # operation id -> answer of the read-only catalogue
        self._ids = itertools.count(FIRST_ID)
        self._event_ids = itertools.count(1)
        self._actor = PERSON

    # -- ids, time, change ---------------------------------------------------------------------------------

    def new_id(self) -> int:
        return next(self._ids)

    def now(self) -> datetime:
        return self.clock()

    @contextlib.contextmanager
    def transaction(self, actor: str = PERSON) -> Iterator[None]:
        """One change by one actor; listeners hear of it if, and only if, something changed."""
        before, previous = self.revision, self._actor
        self._actor = actor
        try:
            yield
        finally:
            self._actor = previous
        if self.revision != before:
            taken = self.snapshot()
            for listener in list(self.listeners):
                listener(taken, actor)

    def changed(self, action: str, entity: Json, secondary: Json = None) -> None:
        """Record one effective change and its account event."""
        self.revision += 1
        event = Event(next(self._event_ids), self.now(), action, self._actor, entity, secondary)
        self.events.append(event)

    def snapshot(self) -> Snapshot:
        return snapshot(self.revision, self.firewalls, self.nodebalancers, self.devices)

    # -- look-ups ------------------------------------------------------------------------------------------

    def firewall(self, ident: int) -> Firewall:
        found = self.firewalls.get(ident)
        if found is None:
            raise not_found()
        return found

    def nodebalancer(self, ident: int) -> NodeBalancer:
        found = self.nodebalancers.get(ident)
        if found is None:
            raise not_found()
        return found

    def devices_of(self, firewall_id: int) -> list[Device]:
        return [device for device in self.devices.values() if device.firewall_id == firewall_id]

    def devices_on(self, kind: str, entity_id: int) -> list[Device]:
        return [d for d in self.devices.values() if d.type == kind and d.entity_id == entity_id]

    def label_of(self, kind: str, entity_id: int) -> str | None:
        if kind == "nodebalancer":
            nb = self.nodebalancers.get(entity_id)
            return nb.label if nb else None
        linode = self.linodes.get(entity_id)
        return linode.label if linode else None

    def entities(self, firewall_id: int) -> list[Json]:
        """Always derived from the devices: `entities` and the NodeBalancer's own list cannot disagree."""
        return [
            render_entity(device.type, device.entity_id, self.label_of(device.type, device.entity_id))
            for device in self.devices_of(firewall_id)
        ]

    # -- accounts ------------------------------------------------------------------------------------------

    def add_token(self, token: Token) -> Token:
        self.tokens[token.value] = token
        self.users.setdefault(token.username, User(token.username))
        return token

    def token_named(self, name: str) -> Token:
        return next(token for token in self.tokens.values() if token.name == name)

    def expire_token(self, name: str) -> None:
        self.token_named(name).expires = self.now()

    def restrict_user(self, username: str, add: set[str], grants: dict[str, dict[int, str]]) -> User:
        self.users[username] = User(username, restricted=True, add=add, grants=grants)
        return self.users[username]

    def add_linode(self, label: str, private_ipv4: str, ident: int | None = None, **extra: Json) -> Linode:
        number = self.new_id() if ident is None else ident
        linode = Linode(
            id=number,
            label=label,
            region=extra.get("region", "us-ord"),
            type=extra.get("type", "g2-gpu-rtx4000a1-m"),
            public_ipv4=extra.get("public_ipv4", f"203.0.{113 + number // 250 % 100}.{number % 250 + 1}"),
            private_ipv4=private_ipv4,
            created=self.now(),
            tags=list(extra.get("tags", [])),
            lke_cluster_id=extra.get("lke_cluster_id"),
        )
        self.linodes[number] = linode
        return linode
