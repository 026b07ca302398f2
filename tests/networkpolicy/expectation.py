"""Who may reach what, from the words of the specification alone; nothing of the renderer is used here.

The graph of a sandbox (docs/concepts.md): clients -> gateway -> engine and chat; chat -> engine. The
engine goes nowhere. Fetch, and a chat with single sign-on, use the internet by HTTPS. Everybody but
the engine resolves names. The NodeBalancers' listeners admit the NodeBalancers, the internal listeners
the allowlist and the chosen pods, the status port and the engine the operator.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import Any

from networkpolicy.universe import (
    BOTH,
    NAMESPACE,
    NEIGHBOUR,
    NOT_INTERNET,
    PODS,
    PORTS,
    SANDBOX,
    Endpoint,
    Matrix,
    Port,
    Side,
    namespace_labels,
)

Spec = Mapping[str, Any]
NOTHING: frozenset[Port] = frozenset()
DNS: frozenset[Port] = frozenset({("UDP", 53), ("TCP", 53)})


@dataclasses.dataclass(frozen=True)
class Case:
    """One cluster: the sandbox under test and its neighbour, and what the operator was told."""

    spec: Spec
    neighbour: Spec
    operator_namespace: str
    balancers: tuple[str, ...]
    resolvers: tuple[str, ...] = ()

    def of(self, sandbox: str) -> Spec:
        return {SANDBOX: self.spec, NEIGHBOUR: self.neighbour}[sandbox]


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Whether addresses of the specification also mean pods, or nodes, that hold them."""

    pods: bool = False
    nodes: bool = True


def matrix(
    case: Case,
    everybody: tuple[Endpoint, ...],
    meaning: Addresses = Addresses(),
    sides: tuple[Side, ...] = BOTH,
) -> Matrix:
    """What each pair may use."""
    result: Matrix = {}
    for source in everybody:
        for destination in everybody if source.kind == "pod" else PODS:
            ports = connections(case, source, destination, meaning, sides)
            if source != destination and ports != PORTS:
                result[source, destination] = ports
    return result


def connections(
    case: Case,
    source: Endpoint,
    destination: Endpoint,
    meaning: Addresses = Addresses(),
    sides: tuple[Side, ...] = BOTH,
) -> frozenset[Port]:
    """What one pair may use: what the source's sandbox lets out and the destination's lets in."""
    out = leaves(case, source, destination, meaning) if "Egress" in sides else PORTS
    return out & (enters(case, source, destination, meaning) if "Ingress" in sides else PORTS)


def leaves(case: Case, source: Endpoint, destination: Endpoint, meaning: Addresses) -> frozenset[Port]:
    """What the source's own sandbox lets out to the destination."""
    if (own := part_of(source)) is None:
        return PORTS
    sandbox, component = own
    spec = case.of(sandbox)
    target = part_of(destination)
    if component == "fetch":
        return names(case, destination, meaning) | internet(destination, meaning)
    if component == "gateway":
        if target == (sandbox, "engine"):
            return tcp(8000)
        if target == (sandbox, "chat") and has_chat(spec):
            return tcp(8080)
        return names(case, destination, meaning)
    if component == "chat" and has_chat(spec):
        if target == (sandbox, "engine"):
            return tcp(8000)
        further = internet(destination, meaning) if single_sign_on(spec) else NOTHING
        return names(case, destination, meaning) | further
    return NOTHING


def enters(case: Case, source: Endpoint, destination: Endpoint, meaning: Addresses) -> frozenset[Port]:
    """What the destination's own sandbox lets in from the source."""
    if (own := part_of(destination)) is None:
        return PORTS
    sandbox, component = own
    spec = case.of(sandbox)
    caller = part_of(source)
    if component == "engine":
        callers = [(sandbox, "gateway"), *([(sandbox, "chat")] if has_chat(spec) else [])]
        return tcp(8000) if caller in callers or is_operator(case, source) else NOTHING
    if component == "chat" and has_chat(spec):
        return tcp(8080) if caller == (sandbox, "gateway") else NOTHING
    if component != "gateway":
        return NOTHING
    access = spec.get("access", {})
    ports: set[Port] = set()
    if access.get("exposure") == "NodeBalancer" and any(
        holds(network, source, meaning) for network in case.balancers
    ):
        ports |= tcp(8443, 3443) if has_chat(spec) else tcp(8443)
    if admitted(access, "API", source, meaning):
        ports |= tcp(8444)
    if has_chat(spec) and admitted(access, "Chat", source, meaning):
        ports |= tcp(3444)
    if is_operator(case, source):
        ports |= tcp(9902)
    return frozenset(ports)


def is_operator(case: Case, source: Endpoint) -> bool:
    """Whether it is a pod of the operator, where that was told its namespace."""
    return (
        bool(case.operator_namespace)
        and source.namespace == case.operator_namespace
        and dict(source.labels).get("app.kubernetes.io/name") == "ai-sandbox-operator"
    )


def part_of(one: Endpoint) -> tuple[str, str] | None:
    """Sandbox and component of a pod that the operator made for one of the two sandboxes."""
    labels = dict(one.labels)
    if one.namespace != NAMESPACE or labels.get("app.kubernetes.io/managed-by") != "ai-sandbox-operator":
        return None
    sandbox = labels["sandbox.linode.com/name"]
    return (sandbox, labels["app.kubernetes.io/component"]) if sandbox in {SANDBOX, NEIGHBOUR} else None


def has_chat(spec: Spec) -> bool:
    return bool(spec.get("chat", {}).get("enabled", True))


def single_sign_on(spec: Spec) -> bool:
    oidc = spec.get("chat", {}).get("oidc", {})
    return bool(oidc.get("providerURL")) and bool(oidc.get("clientID"))


def tcp(*ports: int) -> frozenset[Port]:
    return frozenset(("TCP", port) for port in ports)


def names(case: Case, destination: Endpoint, meaning: Addresses) -> frozenset[Port]:
    """Resolvers of the cluster: pods of its own, and the addresses that the operator was told."""
    labelled = dict(destination.labels).get("k8s-app") in {"kube-dns", "coredns"}
    pod = destination.namespace == "kube-system" and labelled
    return DNS if pod or any(holds(one, destination, meaning) for one in case.resolvers) else NOTHING


def internet(destination: Endpoint, meaning: Addresses) -> frozenset[Port]:
    private = any(holds(network, destination, Addresses(True, True)) for network in NOT_INTERNET.values())
    named = destination.kind == "outside" or (meaning.nodes and destination.kind == "node")
    return tcp(443) if named and not private else NOTHING


def admitted(access: Mapping[str, Any], target: str, source: Endpoint, meaning: Addresses) -> bool:
    """Whether the allowlist or the choice of pods names the source."""
    return any(
        target in entry.get("to", ["Chat", "API"]) and holds(entry["cidr"], source, meaning)
        for entry in access.get("allowlist", [])
    ) or any(
        target in peer.get("to", ["Chat", "API"]) and chosen(peer, source)
        for peer in access.get("inCluster", [])
    )


def holds(cidr: str, one: Endpoint, meaning: Addresses) -> bool:
    if (one.kind == "pod" and not meaning.pods) or (one.kind == "node" and not meaning.nodes):
        return False
    return ipaddress.ip_address(one.address) in ipaddress.ip_network(cidr)


def chosen(peer: Mapping[str, Any], one: Endpoint) -> bool:
    if one.kind != "pod":
        return False
    if "namespaceSelector" in peer:
        inside = selected(peer["namespaceSelector"], namespace_labels(one.namespace))
    else:
        inside = one.namespace == NAMESPACE
    return inside and selected(peer.get("podSelector", {}), dict(one.labels))


def selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = dict(selector.get("matchLabels", {}))
    if {**labels, **wanted} != labels:
        return False
    for item in selector.get("matchExpressions", []):
        value = labels.get(item["key"])
        if not {
            "In": value in item.get("values", []),
            "NotIn": value not in item.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[item["operator"]]:
            return False
    return True
