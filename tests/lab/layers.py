"""What each layer of the access control admits, read from the live objects by other means than they were made.

A layer is a set of (network, target) pairs; target is "API" or "Chat".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ai_sandbox_operator.api import names

Layer = frozenset[tuple[str, str]]

#: What an entry of an allowlist is for that does not say it.
EVERYTHING = ("Chat", "API")

_FIREWALL_PORTS = {"8000": "API", "3000": "Chat"}
_POLICY_PORTS = {names.PORT_GATEWAY_INTERNAL_API: "API", names.PORT_GATEWAY_INTERNAL_CHAT: "Chat"}


def allowlist(sandbox: Mapping[str, Any]) -> Layer:
    """What the spec asks for."""
    entries = sandbox["spec"]["access"]["allowlist"]
    return frozenset((entry["cidr"], target) for entry in entries for target in entry.get("to", EVERYTHING))


def firewall(rules: Mapping[str, Any]) -> Layer:
    """What a Cloud Firewall's inbound rules admit, as Linode's API shows them."""
    found = set()
    for rule in rules.get("inbound") or ():
        if rule["action"] != "ACCEPT":
            continue
        addresses = rule.get("addresses") or {}
        for network in (*(addresses.get("ipv4") or ()), *(addresses.get("ipv6") or ())):
            for port in str(rule.get("ports", "")).replace(" ", "").split(","):
                found.add((network, _FIREWALL_PORTS.get(port, f"port {port}")))
    return frozenset(found)


def policy(gateway_policy: Mapping[str, Any]) -> Layer:
    """Which addresses the gateway's NetworkPolicy lets reach the internal listeners."""
    found = set()
    for rule in gateway_policy["spec"].get("ingress") or ():
        targets = {_POLICY_PORTS[p["port"]] for p in rule.get("ports") or () if p["port"] in _POLICY_PORTS}
        for peer in rule.get("from") or ():
            if "ipBlock" in peer:
                found |= {(peer["ipBlock"]["cidr"], target) for target in targets}
    return frozenset(found)


def gateway(secret: Mapping[str, Any], *, side: str) -> Layer:
    """Which client addresses the gateway's routes admit; `side` is external or internal."""
    found = set()
    for target in ("api", "chat"):
        document = secret["data"].get(f"rds-{side}-{target}.json")
        if document is None:
            continue
        name = {"api": "API", "chat": "Chat"}[target]
        found |= {(cidr, name) for cidr in _remote_networks(json.loads(base64.b64decode(document)))}
    return frozenset(found)


def _remote_networks(node: Any) -> Iterator[str]:
    """Every `remote_ip` principal of a configuration, wherever it stands."""
    if isinstance(node, dict):
        if (address := node.get("remote_ip")) is not None:
            yield f"{address['address_prefix']}/{address['prefix_len']}"
        for value in node.values():
            yield from _remote_networks(value)
    elif isinstance(node, list):
        for value in node:
            yield from _remote_networks(value)
