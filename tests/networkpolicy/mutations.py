"""Every way to break one thing in a set of policies.

A mutation drops or widens (or narrows) exactly one policy, type, rule, peer, port, label, value, network
or exception. Those that the API server would refuse are left out: a peer without any field, `In` without
values.
"""

from __future__ import annotations

import copy
import functools
import ipaddress
from collections.abc import Callable, Iterator, Sequence

from networkpolicy.universe import Manifest

#: What was changed, in words, and the policies with the change.
Mutation = tuple[str, list[Manifest]]
_SIDES = {"ingress": "from", "egress": "to"}


def mutations(policies: Sequence[Manifest]) -> Iterator[Mutation]:
    """All mutations of all policies."""
    for index, policy in enumerate(policies):
        name = policy["metadata"]["name"]
        yield f"{name}: dropped", [*policies[:index], *policies[index + 1 :]]
        for what, spec in _of_spec(policy["spec"]):
            yield f"{name}: {what}", [*policies[:index], {**policy, "spec": spec}, *policies[index + 1 :]]


def _of_spec(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    for kind in spec["policyTypes"]:
        yield (
            f"policyTypes without {kind}",
            {**spec, "policyTypes": [other for other in spec["policyTypes"] if other != kind]},
        )
    for what, selector in _of_selector(spec["podSelector"]):
        yield f"podSelector {what}", {**spec, "podSelector": selector}
    for direction, side in _SIDES.items():
        for what, changed in _of_list(spec.get(direction, []), functools.partial(_of_rule, side=side)):
            yield f"{direction} {what}", {**spec, direction: changed}
        yield f"{direction} admits everything", {**spec, direction: [{}]}


def _of_rule(rule: Manifest, side: str) -> Iterator[tuple[str, Manifest]]:
    for key in (side, "ports"):
        yield f"without {key}", {other: value for other, value in rule.items() if other != key}
    for what, peers in _of_list(rule[side], _of_peer):
        yield f"{side} {what}", {**rule, side: peers}
    for what, ports in _of_list(rule["ports"], _of_port):
        yield f"ports {what}", {**rule, "ports": ports}


def _of_port(port: Manifest) -> Iterator[tuple[str, Manifest]]:
    yield "any number", {"protocol": port["protocol"]}
    yield "up to the last", {**port, "endPort": 65535}
    yield "other number", {**port, "port": port["port"] + 1 if port["port"] != 8443 else 12345}
    yield "other protocol", {**port, "protocol": "SCTP" if port["protocol"] == "UDP" else "UDP"}


def _of_peer(peer: Manifest) -> Iterator[tuple[str, Manifest]]:
    if "ipBlock" in peer:
        for what, block in _of_block(peer["ipBlock"]):
            yield what, {"ipBlock": block}
        return
    for key in peer:
        if len(peer) > 1 and (key == "namespaceSelector" or peer[key]):
            yield f"without {key}", {other: value for other, value in peer.items() if other != key}
        for what, selector in _of_selector(peer[key]):
            yield f"{key} {what}", {**peer, key: selector}
    if "namespaceSelector" not in peer:
        yield "of all namespaces", {**peer, "namespaceSelector": {}}


def _of_selector(selector: Manifest) -> Iterator[tuple[str, Manifest]]:
    labels: dict[str, str] = selector.get("matchLabels", {})
    expressions: list[Manifest] = selector.get("matchExpressions", [])
    if len(labels) + len(expressions) > 1:
        yield "emptied", {}
    for label in labels:
        rest = {key: value for key, value in labels.items() if key != label}
        yield f"without {label}", {**selector, "matchLabels": rest}
        yield f"with another {label}", {**selector, "matchLabels": {**rest, label: "nothing-like-it"}}
    for what, changed in _of_list(expressions, _of_requirement):
        yield f"expression {what}", {**selector, "matchExpressions": changed}


def _of_requirement(item: Manifest) -> Iterator[tuple[str, Manifest]]:
    opposite = {"In": "NotIn", "NotIn": "In", "Exists": "DoesNotExist", "DoesNotExist": "Exists"}
    yield f"not {item['operator']}", {**item, "operator": opposite[item["operator"]]}
    values = item.get("values", [])
    for value in values if len(values) > 1 else []:
        yield f"without {value}", {**item, "values": [other for other in values if other != value]}


def _of_block(block: Manifest) -> Iterator[tuple[str, Manifest]]:
    network = ipaddress.ip_network(block["cidr"])
    excluded: list[str] = block.get("except", [])
    if network.prefixlen:
        everything = "0.0.0.0/0" if network.version == 4 else "::/0"
        yield "of all addresses", {**block, "cidr": everything}
        if network.prefixlen > 1:
            yield "one bit shorter", {**block, "cidr": str(network.supernet())}
    if not excluded and network.prefixlen < network.max_prefixlen:
        for half in network.subnets():
            yield f"only {half}", {**block, "cidr": str(half)}
    for index, cidr in enumerate(excluded):
        inner = ipaddress.ip_network(cidr)
        others = [*excluded[:index], *excluded[index + 1 :]]
        yield f"except without {cidr}", {**block, "except": others}
        yield f"except {cidr} one bit shorter", {**block, "except": [*others, str(inner.supernet())]}
        for half in inner.subnets():
            yield f"except only {half}", {**block, "except": [*others, str(half)]}


def _of_list(
    items: Sequence[Manifest], change: Callable[[Manifest], Iterator[tuple[str, Manifest]]]
) -> Iterator[tuple[str, list[Manifest]]]:
    """The list without each of its items, and with each change of each item."""
    for index, item in enumerate(items):
        rest = (list(items[:index]), list(items[index + 1 :]))
        yield f"{index} dropped", [*rest[0], *rest[1]]
        for what, changed in change(copy.deepcopy(item)):
            yield f"{index} {what}", [*rest[0], changed, *rest[1]]
