"""`firewall-acl`: the firewall that the cloud controller manager makes and manages by itself. Pure.

Refused: both lists or neither, more rules than a firewall holds. Kept as it is: the lists may be empty,
then the rule is sent with empty addresses and the API refuses it. Source: CCM v0.9.8,
cloud/linode/services/firewalls.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lab.linode.ccm.annotations import SyncError
from lab.linode.errors import Json
from lab.linode.rules import MAX_ADDRESSES, MAX_RULES

LABEL_LENGTH, DESCRIPTION_LENGTH = 32, 100
Networks = Mapping[str, Json]


def _parsed(acl: str) -> tuple[str, Networks]:
    """Action and networks of the annotation."""
    try:
        document = json.loads(acl)
    except ValueError as error:
        raise SyncError(str(error)) from None
    allow, deny = document.get("allowList"), document.get("denyList")
    if (allow is None) == (deny is None):
        raise SyncError("specify either an allowList or a denyList for a firewall")
    return ("ACCEPT", allow) if allow is not None else ("DROP", deny)


def _chunks(networks: Sequence[str]) -> list[Sequence[str]]:
    if len(networks) <= MAX_ADDRESSES:
        return [networks]
    return [networks[start : start + MAX_ADDRESSES] for start in range(0, len(networks), MAX_ADDRESSES)]


def rules(acl: str, label: str, service: Mapping[str, Json]) -> dict[str, Json]:
    """The rules document for the Service's ports."""
    action, networks = _parsed(acl)
    name = service["metadata"]["name"]
    ports = ",".join(str(port["port"]) for port in service["spec"]["ports"])

    def rule(description: str, addresses: Networks) -> dict[str, Json]:
        if len(description) > DESCRIPTION_LENGTH:
            description = description[: DESCRIPTION_LENGTH - 3] + "..."
        return {
            "action": action,
            "label": f"{action}-{name}"[:LABEL_LENGTH],
            "description": description,
            "protocol": "TCP",
            "ports": ports,
            "addresses": dict(addresses),
        }

    ipv4, ipv6 = networks.get("ipv4") or [], networks.get("ipv6") or []
    if len(ipv4) + len(ipv6) <= MAX_ADDRESSES:
        given = {key: value for key, value in networks.items() if value is not None}
        inbound = [rule(f"Created by linode-ccm: {label}, for {name}", given)]
    else:
        inbound = [
            rule(
                f"Rule {index}, Created by linode-ccm: {label}, for {name}",
                {family: list(chunk)} if chunk else {},
            )
            for family, whole in (("ipv4", ipv4), ("ipv6", ipv6))
            for index, chunk in enumerate(_chunks(whole))
        ]
    if len(inbound) > MAX_RULES:
        raise SyncError("too many IPs in this ACL, will exceed rules per firewall limit")
    return {
        "inbound": inbound,
        "inbound_policy": "DROP" if action == "ACCEPT" else "ACCEPT",
        "outbound": None,
        "outbound_policy": "ACCEPT",
    }


def create_body(acl: str, label: str, tags: list[str], service: Mapping[str, Json]) -> dict[str, Json]:
    return {"label": label, "rules": rules(acl, label, service), "tags": tags}


def _addresses_differ(networks: Networks, inbound: Sequence[Mapping[str, Json]]) -> bool:
    for family in ("ipv4", "ipv6"):
        present = [text for rule in inbound for text in rule["addresses"].get(family, [])]
        wanted = networks.get(family)
        if wanted is None:
            if present:
                return True
        elif len(wanted) != len(present) or any(text not in present for text in wanted):
            return True
    return False


def _expand(ports: str) -> set[int]:
    found: set[int] = set()
    for piece in ports.split(","):
        low, _, high = piece.strip().partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def changed(acl: str, present: Mapping[str, Json], service: Mapping[str, Json]) -> bool:
    """Whether the attached firewall's rules differ from what the annotation asks for."""
    action, networks = _parsed(acl)
    inbound = present.get("inbound") or []
    if present["inbound_policy"] != ("DROP" if action == "ACCEPT" else "ACCEPT") or not inbound:
        return True
    if _addresses_differ(networks, inbound):
        return True
    wanted = {int(port["port"]) for port in service["spec"]["ports"]}
    return not inbound[0].get("ports") or _expand(inbound[0]["ports"]) != wanted
