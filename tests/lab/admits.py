"""Whom live objects let in, found by trying sample clients. Pure.

Nothing here knows how the operator renders anything: a firewall, a policy and a gateway configuration
are evaluated for one client at a time, as Linode, the network plugin and Envoy would, so a renderer and
its judge cannot share a mistake.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import names
from lab.linode import rules as linode_rules
from lab.linode.model import Firewall

Object = Mapping[str, Any]
#: A client's address and what it reaches: "API" or "Chat".
Pair = tuple[str, str]
Pairs = frozenset[Pair]

NOBODY: Pairs = frozenset()
TARGETS = {"API": 8000, "Chat": 3000}
#: A peer that is a NodeBalancer, and one that is a pod or a node.
NODEBALANCER, NO_NODEBALANCER = "192.168.255.77", "10.2.3.4"
_EXTERNAL = {"API": 8443, "Chat": 3443}
_INTERNAL = {"API": 8444, "Chat": 3444}


def samples(*cidrs: str) -> tuple[str, ...]:
    """Addresses within each network and just outside it, and strangers of both families."""
    found = {"198.51.100.200", "8.8.8.8", "2001:db8:ffff::9", "2600:3c00::1"}
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr)
        first, last = int(network.network_address), int(network.broadcast_address)
        limit = (1 << network.max_prefixlen) - 1
        make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        numbers = (first - 1, first, (first + last) // 2, last, last + 1)
        found |= {str(make(number)) for number in numbers if 0 <= number <= limit}
    return tuple(sorted(found))


def _inside(address: str, cidr: str) -> bool:
    one, network = ipaddress.ip_address(address), ipaddress.ip_network(cidr)
    return one.version == network.version and one in network


def allowlist(sandbox: Object | None, addresses: Iterable[str], *, external: bool) -> Pairs:
    """Whom the stored spec lets in; nobody once the sandbox is being deleted."""
    if sandbox is None or "deletionTimestamp" in sandbox["metadata"]:
        return NOBODY
    access = sandbox["spec"]["access"]
    if external and access["exposure"] != "NodeBalancer":
        return NOBODY
    targets = {"API", "Chat"} if sandbox["spec"]["chat"]["enabled"] else {"API"}
    return frozenset(
        (address, target)
        for entry in access.get("allowlist") or ()
        for target in set(entry.get("to", targets)) & targets
        for address in addresses
        if _inside(address, entry["cidr"])
    )


def firewall(live: Firewall | None, addresses: Iterable[str]) -> Pairs:
    """Whom a Cloud Firewall lets through; a missing or disabled one lets everybody through."""
    closed = live is not None and live.status == "enabled"
    return frozenset(
        (address, target)
        for address in addresses
        for target, port in TARGETS.items()
        if not closed or (live is not None and linode_rules.admits(live.rules, address, port))
    )


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for item in selector.get("matchExpressions") or ():
        value, values = labels.get(item["key"]), item.get("values") or ()
        held = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[item["operator"]]
        if not held:
            return False
    return True


def policies_of(policies: Iterable[Object], labels: Mapping[str, str]) -> list[Object]:
    """The policies that isolate a pod in both directions."""
    return [
        policy
        for policy in policies
        if selects(policy["spec"].get("podSelector"), labels)
        and {"Ingress", "Egress"} <= set(policy["spec"].get("policyTypes") or ())
    ]


def guarded(policies: Iterable[Object], labels: Mapping[str, str]) -> str:
    """What a pod lacks, in words: it needs a policy that denies, and one for its component."""
    mine = policies_of(policies, labels)
    denies = [p for p in mine if not p["spec"].get("ingress") and not p["spec"].get("egress")]
    wide = [p for p in denies if names.LABEL_COMPONENT not in _labels(p)]
    own = [p for p in mine if _labels(p).get(names.LABEL_COMPONENT) == labels.get(names.LABEL_COMPONENT)]
    missing = [*([] if wide else ["a policy that denies everything"]), *([] if own else ["its own policy"])]
    return " and ".join(missing)


def _labels(policy: Object) -> Mapping[str, str]:
    return (policy["spec"].get("podSelector") or {}).get("matchLabels") or {}


def policy(policies: Iterable[Object], gateway: Mapping[str, str], client: str, port: int) -> bool:
    """Whether the policies let an address outside the cluster reach a port of the gateway's pods."""
    mine = [
        p
        for p in policies
        if selects(p["spec"].get("podSelector"), gateway)
        and "Ingress" in (p["spec"].get("policyTypes") or ())
    ]
    if not mine:
        return True
    return any(_rule(rule, client, port) for p in mine for rule in p["spec"].get("ingress") or ())


def _rule(rule: Object, client: str, port: int) -> bool:
    ports = rule.get("ports")
    if ports and not any(p.get("port") in (None, port) for p in ports):
        return False
    peers = rule.get("from")
    if not peers:
        return True
    blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
    return any(
        _inside(client, block["cidr"]) and not any(_inside(client, e) for e in block.get("except") or ())
        for block in blocks
    )


def internal(
    policies: Sequence[Object], secret: Object | None, gateway: Mapping[str, str], addresses: Iterable[str]
) -> Pairs:
    """Whom policies and internal listeners let in together."""
    return frozenset(
        (address, target)
        for address in addresses
        for target, port in _INTERNAL.items()
        if _listener(secret, "internal", target, address, peer=address)
        and policy(policies, gateway, address, port)
    )


def external(secret: Object | None, addresses: Iterable[str], *, peer: str = NODEBALANCER) -> Pairs:
    """Whom the external listeners let in when `peer` presents the client's address."""
    return frozenset(
        (address, target)
        for address in addresses
        for target in TARGETS
        if _listener(secret, "external", target, address, peer=peer)
    )


def bypass(policies: Sequence[Object], gateway: Mapping[str, str], addresses: Iterable[str]) -> Pairs:
    """Clients that the policies let reach the external listeners past the NodeBalancer."""
    return frozenset(
        (address, target)
        for address in addresses
        for target, port in _EXTERNAL.items()
        if policy(policies, gateway, address, port)
    )


def _listener(secret: Object | None, side: str, target: str, client: str, *, peer: str) -> bool:
    document = ((secret or {}).get("data") or {}).get(f"rds-{side}-{target.lower()}.json")
    if document is None:
        return False
    configuration = json.loads(base64.b64decode(document))
    return any(
        _rbac(host.get("typed_per_filter_config", {}).get("envoy.filters.http.rbac"), client, peer)
        for resource in configuration["resources"]
        for host in resource.get("virtual_hosts", ())
    )


def _rbac(override: Object | None, client: str, peer: str) -> bool:
    """Without an override the listener's own filter counts, which admits nobody."""
    if override is None:
        return False
    rules = override.get("rbac", {}).get("rules")
    if rules is None:
        return True  # an override without rules switches the filter off
    policies = (rules.get("policies") or {}).values()
    matched = any(_principal(p, client, peer) for one in policies for p in one["principals"])
    return bool(matched == (rules["action"] == "ALLOW"))


def _principal(principal: Object, client: str, peer: str) -> bool:
    ((kind, value),) = principal.items()
    match kind:
        case "any":
            return bool(value)
        case "and_ids":
            return all(_principal(p, client, peer) for p in value["ids"])
        case "or_ids":
            return any(_principal(p, client, peer) for p in value["ids"])
        case "not_id":
            return not _principal(value, client, peer)
        case "remote_ip":
            return _inside(client, f"{value['address_prefix']}/{value['prefix_len']}")
        case "direct_remote_ip":
            return _inside(peer, f"{value['address_prefix']}/{value['prefix_len']}")
        case _:
            return True  # not understood counts as open
