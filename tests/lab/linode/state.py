"""The simulated account with edits "as a person would make them in the Cloud Manager".

Edits are out of band: no request, no journal entry, but events and listeners as for any change. They are
as strict as the API (`ApiError` on nonsense), except `set_rules_raw`, which exists for tests of broken
contents. Not safe for threads: call it in the simulator's loop (`LinodeSimulatorThread.edit` does that).
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.linode import firewalls, nodebalancers
from lab.linode.errors import Json
from lab.linode.model import Firewall, NodeBalancer
from lab.linode.rules import Rules
from lab.linode.store import PERSON, Store

EVERYBODY: dict[str, Json] = {
    "action": "ACCEPT",
    "protocol": "TCP",
    "addresses": {"ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"]},
    "label": "open-to-everybody",
}
CLOSED: dict[str, Json] = {
    "inbound": [],
    "inbound_policy": "DROP",
    "outbound": [],
    "outbound_policy": "ACCEPT",
}


class State(Store):
    """The account, with a person's hands on it."""

    # -- firewalls -----------------------------------------------------------------------------------------

    def create_firewall(
        self, label: str, rules: Json = None, tags: Sequence[str] = (), actor: str = PERSON
    ) -> Firewall:
        with self.transaction(actor):
            return firewalls.create(self, {"label": label, "rules": rules or CLOSED, "tags": list(tags)})

    def set_rules(self, firewall_id: int, rules: Json) -> Firewall:
        """Replace rules; fields that are not given keep their value."""
        with self.transaction():
            current = self.firewall(firewall_id).rules.content()
            return firewalls.put_rules(self, firewall_id, {**current, **rules})

    def set_rules_raw(self, firewall_id: int, rules: Rules) -> None:
        """Put rules in place unchecked."""
        with self.transaction():
            firewall = self.firewall(firewall_id)
            firewall.rules = rules
            firewall.history.append((self.now(), rules))
            self.changed("firewall_rules_update", firewalls.entity_of(firewall))

    def open_firewall(self, firewall_id: int) -> Firewall:
        """Add a first rule that admits everybody, on every TCP port."""
        inbound = self.firewall(firewall_id).rules.inbound or []
        return self.set_rules(firewall_id, {"inbound": [EVERYBODY, *inbound]})

    def disable_firewall(self, firewall_id: int) -> None:
        with self.transaction():
            firewalls.update(self, firewall_id, {"status": "disabled"})

    def enable_firewall(self, firewall_id: int) -> None:
        with self.transaction():
            firewalls.update(self, firewall_id, {"status": "enabled"})

    def relabel_firewall(self, firewall_id: int, label: str) -> None:
        with self.transaction():
            firewalls.update(self, firewall_id, {"label": label})

    def tag_firewall(self, firewall_id: int, tags: Sequence[str]) -> None:
        with self.transaction():
            firewalls.update(self, firewall_id, {"tags": list(tags)})

    def delete_firewall(self, firewall_id: int) -> None:
        with self.transaction():
            firewalls.delete(self, firewall_id)

    def set_default_firewall(self, firewall_id: int | None, kind: str = "nodebalancer") -> None:
        with self.transaction():
            firewalls.put_settings(self, {"default_firewall_ids": {kind: firewall_id}})

    # -- assignments ---------------------------------------------------------------------------------------

    def attach(self, firewall_id: int, nodebalancer_id: int) -> None:
        with self.transaction():
            firewalls.attach(self, firewall_id, "nodebalancer", nodebalancer_id)

    def detach(self, nodebalancer_id: int) -> None:
        """Leave a NodeBalancer without a firewall."""
        with self.transaction():
            firewalls.assign(self, nodebalancer_id, [])

    def attach_linode(self, firewall_id: int, linode_id: int) -> None:
        with self.transaction():
            firewalls.attach(self, firewall_id, "linode", linode_id)

    # -- NodeBalancers -------------------------------------------------------------------------------------

    def create_nodebalancer(self, label: str, firewall_id: int | None = None, **body: Json) -> NodeBalancer:
        given = {"label": label, "region": "us-ord", **body}
        if firewall_id is not None:
            given["firewall_id"] = firewall_id
        with self.transaction():
            return nodebalancers.create(self, given)

    def delete_nodebalancer(self, nodebalancer_id: int) -> None:
        """As a person does: locks are lifted first."""
        with self.transaction():
            self.nodebalancer(nodebalancer_id).locks = []
            nodebalancers.delete(self, nodebalancer_id)

    def tag_nodebalancer(self, nodebalancer_id: int, tags: Sequence[str]) -> None:
        with self.transaction():
            nodebalancers.update(self, nodebalancer_id, {"tags": list(tags)})

    def lock_nodebalancer(self, nodebalancer_id: int, lock: str = "cannot_delete") -> None:
        with self.transaction():
            nb = self.nodebalancer(nodebalancer_id)
            nb.locks = [lock]
            self.changed("nodebalancer_update", nodebalancers.entity_of(nb))

    def firewalls_of(self, nodebalancer_id: int) -> list[Firewall]:
        return firewalls.of_service(self, "nodebalancer", nodebalancer_id)
