"""A direct reading of NetworkPolicies (kubernetes.io/docs/concepts/services-networking/network-policies).

Policies add up. A pod is isolated in a direction once a policy with that type selects it; then only
what some rule admits may pass. A connection needs the egress of its source and the ingress of its
destination. A rule without peers (or with an empty list) means everybody, one without ports every port.

What the documentation leaves open differs between network plugins; `Reading` names the choices.
Not modelled: a pod's connections to itself, and those of the node that it runs on, which are never
closed; translation of addresses; names of ports.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import json
from collections.abc import Mapping, Sequence

from networkpolicy.universe import BOTH, PODS, PORTS, Endpoint, Manifest, Matrix, Port, Side, namespace_labels

Admitted = dict[Endpoint, frozenset[Port]]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What an `ipBlock` matches besides addresses outside of the cluster."""

    pods: bool
    nodes: bool


#: As network-config-analyzer reads policies.
STANDARD = Reading(pods=False, nodes=True)
#: Calico judges addresses, whoever holds them.
CALICO = Reading(pods=True, nodes=True)
#: Cilium gives every pod and node an identity; addresses count only for those without one
#: (cilium#9209, cilium#20550; `policy-cidr-match-mode: nodes` changes the latter and is off by default).
CILIUM = Reading(pods=False, nodes=False)


def evaluate(
    policies: Sequence[Manifest],
    everybody: tuple[Endpoint, ...],
    reading: Reading = STANDARD,
    sides: tuple[Side, ...] = BOTH,
) -> Matrix:
    """What each pair may use. Pairs of which no end is a pod are none of the policies' business."""
    egress, ingress = (
        {pod: _admitted(policies, pod, side, everybody, reading) if side in sides else None for pod in PODS}
        for side in BOTH
    )
    result: Matrix = {}
    for source in everybody:
        leaving = egress.get(source)
        for destination in everybody if source.kind == "pod" else PODS:
            entering = ingress.get(destination)
            if source == destination or (leaving is None and entering is None):
                continue
            ports = PORTS if leaving is None else leaving.get(destination, frozenset())
            if entering is not None:
                ports = ports & entering.get(source, frozenset())
            if ports != PORTS:
                result[source, destination] = ports
    return result


def _admitted(
    policies: Sequence[Manifest],
    pod: Endpoint,
    direction: Side,
    everybody: tuple[Endpoint, ...],
    reading: Reading,
) -> Admitted | None:
    """What rules admit to or from `pod`; None if no policy isolates it."""
    specs = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], dict(pod.labels))
    ]
    if not specs:
        return None
    result: Admitted = {}
    for rule in (rule for spec in specs for rule in spec.get(direction.lower(), [])):
        peers = rule.get("from" if direction == "Ingress" else "to") or []
        ports = _ports(json.dumps(rule.get("ports") or []))
        # Peers are looked up by their text: the same few appear in thousands of variants.
        found = [_peer(json.dumps(peer), pod.namespace, everybody, reading) for peer in peers]
        for other in frozenset().union(*found) if peers else everybody:
            result[other] = result.get(other, frozenset()) | ports
    return result


@functools.lru_cache(maxsize=1024)
def _ports(text: str) -> frozenset[Port]:
    items = json.loads(text)
    return (
        frozenset(
            (protocol, number)
            for protocol, number in PORTS
            for item in items
            if protocol == item.get("protocol", "TCP")
            and ("port" not in item or item["port"] <= number <= item.get("endPort", item["port"]))
        )
        if items
        else PORTS
    )


@functools.lru_cache(maxsize=4096)
def _peer(
    text: str, namespace: str, everybody: tuple[Endpoint, ...], reading: Reading
) -> frozenset[Endpoint]:
    peer = json.loads(text)
    if "ipBlock" in peer:
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        excluded = [ipaddress.ip_network(cidr) for cidr in peer["ipBlock"].get("except", [])]
        return frozenset(
            one
            for one in everybody
            if (
                one.kind == "outside"
                or (one.kind == "pod" and reading.pods)
                or (one.kind == "node" and reading.nodes)
            )
            and (address := ipaddress.ip_address(one.address)) in block
            and not any(address in network for network in excluded)
        )
    return frozenset(
        pod
        for pod in PODS
        if (
            matches(peer["namespaceSelector"], namespace_labels(pod.namespace))
            if "namespaceSelector" in peer
            else pod.namespace == namespace
        )
        and matches(peer.get("podSelector", {}), dict(pod.labels))
    )


def matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _requirement(item, labels) for item in selector.get("matchExpressions", [])
    )


def _requirement(item: Manifest, labels: Mapping[str, str]) -> bool:
    key, values = item["key"], item.get("values", [])
    match item["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":  # also true where there is no such label
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case unknown:
            raise ValueError(unknown)
