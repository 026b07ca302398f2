"""The world in which the policies are judged: pods, namespaces and addresses outside of the cluster.

Pods are chosen so that each label and each namespace in a selector decides about somebody: for every
pod that is meant there are others that lack one label, or have all of them in another namespace.
Addresses are chosen likewise: the first and last of every network that matters, and their neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

Manifest = dict[str, Any]
Port = tuple[str, int]
Pair = tuple["Endpoint", "Endpoint"]
Side = Literal["Egress", "Ingress"]
#: Both ends have their say. Each is also judged alone: an end that admits too much goes unseen as long as
#: the other end is exact.
BOTH: tuple[Side, ...] = ("Egress", "Ingress")
#: What each pair (source, destination) may use of PORTS. Pairs that may use all of them are left out.
Matrix = dict[Pair, frozenset[Port]]

SANDBOX, NEIGHBOUR, NAMESPACE = "demo", "other", "team-a"
COMPONENTS = ("fetch", "engine", "chat", "gateway")

NUMBERS = (22, 53, 80, 443, 3000, 3443, 3444, 6443, 8000, 8080, 8443, 8444, 9901, 9902, 10250, 12345)
#: Ports of interest: everything that is served somewhere, and an arbitrary one for all others.
PORTS = frozenset(
    {("TCP", number) for number in NUMBERS}
    | {("UDP", number) for number in NUMBERS}
    | {("SCTP", number) for number in (53, 443, 8000)}
)


@dataclasses.dataclass(frozen=True, order=True)
class Endpoint:
    """One end of a connection."""

    name: str
    """`namespace/name` of a pod, or the address itself."""
    address: str
    kind: Literal["pod", "node", "outside"]
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    # Endpoints are keys of large tables; the generated hash would walk all fields each time.
    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


_MANAGED = {"app.kubernetes.io/managed-by": "ai-sandbox-operator"}
_OPERATOR = {"app.kubernetes.io/name": "ai-sandbox-operator"}
_KUBE_DNS, _COREDNS = {"k8s-app": "kube-dns"}, {"k8s-app": "coredns"}
_CLIENTS = {
    "front": {"app": "agent", "tier": "front"},
    "back": {"app": "agent", "tier": "back"},
    "batch": {"app": "batch", "tier": "front"},
    "plain": {},
}


def _of(sandbox: str, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "ai-sandbox",
        "app.kubernetes.io/component": component,
        **_MANAGED,
        "sandbox.linode.com/name": sandbox,
    }


#: Labels of the namespaces; the API server adds the name to each.
NAMESPACES: Mapping[str, Mapping[str, str]] = {
    NAMESPACE: {"team": "a", "stage": "prod"},
    "team-b": {"team": "b", "stage": "prod"},
    "team-b-test": {"team": "b", "stage": "test"},
    "unlabelled": {},
    "kube-system": {},
    "ai-sandbox-system": {},
    "monitoring": {"purpose": "observability"},
}
_PODS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    NAMESPACE: {
        **{f"{name}-{part}": _of(name, part) for name in (SANDBOX, NEIGHBOUR) for part in COMPONENTS},
        "demo-gateway-second": _of(SANDBOX, "gateway"),
        # A sandbox without policies: whatever somebody else's policies select by mistake shows here.
        **{f"bare-{part}": _of("bare", part) for part in COMPONENTS},
        # A pod of the sandbox that no policy of a component selects.
        "demo-stray": _of(SANDBOX, "debug"),
        # Somebody else's pods, without the label of the operator.
        **{
            f"handmade-{part}": {k: v for k, v in _of(SANDBOX, part).items() if k not in _MANAGED}
            for part in COMPONENTS
        },
        **_CLIENTS,
        "operator-lookalike": _OPERATOR,
        "dns-lookalike": _KUBE_DNS,
    },
    "team-b": {
        **{f"copy-{part}": _of(SANDBOX, part) for part in COMPONENTS},
        **_CLIENTS,
        "operator-lookalike": _OPERATOR,
        "dns-lookalike": _COREDNS,
    },
    "team-b-test": _CLIENTS,
    "unlabelled": _CLIENTS,
    "kube-system": {
        "kube-dns": _KUBE_DNS,
        "coredns": _COREDNS,
        "metrics": {"k8s-app": "metrics"},
        "plain": {},
    },
    "ai-sandbox-system": {"operator": _OPERATOR, "plain": {}},
    "monitoring": {"prometheus": {"app.kubernetes.io/name": "prometheus"}},
}
PODS = tuple(
    Endpoint(f"{namespace}/{name}", f"10.2.{i}.{j}", "pod", namespace, tuple(labels.items()))
    for i, (namespace, pods) in enumerate(_PODS.items(), 1)
    for j, (name, labels) in enumerate(pods.items(), 1)
)

#: Networks that are not the internet, from the IANA special-purpose registries (RFC 6890 and later).
NOT_INTERNET = {
    "this network": "0.0.0.0/8",
    "private, with the pods and Services of LKE": "10.0.0.0/8",
    "shared by carriers": "100.64.0.0/10",
    "loopback": "127.0.0.0/8",
    "link-local, with the metadata service": "169.254.0.0/16",
    "private, second": "172.16.0.0/12",
    "protocol assignments": "192.0.0.0/24",
    "private, with the nodes and NodeBalancers of Linode": "192.168.0.0/16",
    "benchmarks": "198.18.0.0/15",
    "multicast": "224.0.0.0/4",
    "reserved, with broadcast": "240.0.0.0/4",
    "unspecified, loopback and IPv4-compatible IPv6": "::/96",
    "NAT64": "64:ff9b::/96",
    "local NAT64": "64:ff9b:1::/48",
    "unique local IPv6, with the metadata service": "fc00::/7",
    "link-local IPv6": "fe80::/10",
    "multicast IPv6": "ff00::/8",
}
NODES = ("192.168.128.9", "192.168.200.20", "172.105.10.20", "2600:3c00::f03c:95ff:fe00:1")
_OUTSIDE = (
    *("169.254.169.254", "fd00:a9fe:a9fe::1"),  # metadata
    *("10.128.0.1", "172.105.99.1"),  # API server: Service and public address
    *("192.168.255.1", "192.168.255.7", "192.168.254.255", "10.100.0.1"),  # NodeBalancers and beside them
    *("10.2.200.200", "10.0.0.8", "10.200.0.1", "172.16.5.5", "100.64.0.1"),  # private
    *("151.101.1.6", "2a04:4e42::6"),  # the model hub
    *("203.0.113.4", "203.0.113.200", "198.51.100.7", "8.8.8.8", "1.1.1.1"),
    *("2001:db8:1::5", "2001:db8:ffff::5", "2606:4700::1111"),
    *("64:ff9b::a9fe:a9fe", "fe80::1", "ff02::1", "::1", "224.0.0.251", "255.255.255.255"),
)


def boundaries(cidr: str) -> Iterator[str]:
    """The first and last address of a network, and the two beside it."""
    network = ipaddress.ip_network(cidr)
    highest = 2**network.max_prefixlen - 1
    first, last = int(network.network_address), int(network.broadcast_address)
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    for number in (first - 1, first, last, last + 1):
        if 0 <= number <= highest:
            yield str(make(number))


@functools.cache
def endpoints(networks: tuple[str, ...] = ()) -> tuple[Endpoint, ...]:
    """Everybody: the pods, the nodes, and addresses in and beside `networks`, which are of interest."""
    interesting: Iterable[str] = (*NOT_INTERNET.values(), *networks)
    addresses = {*_OUTSIDE, *(address for cidr in interesting for address in boundaries(cidr))}
    taken = {*NODES, *(pod.address for pod in PODS)}
    return (
        *PODS,
        *(Endpoint(address, address, "node") for address in NODES),
        *(Endpoint(address, address, "outside") for address in sorted(addresses - taken)),
    )


def namespace_labels(namespace: str) -> dict[str, str]:
    """Labels of a namespace as the API server stores them."""
    return {"kubernetes.io/metadata.name": namespace, **NAMESPACES[namespace]}


def namespace_manifests() -> list[Manifest]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": namespace_labels(n)}}
        for n in NAMESPACES
    ]


def pod_manifests() -> list[Manifest]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name.partition("/")[2],
                "namespace": pod.namespace,
                "labels": dict(pod.labels),
            },
            "spec": {"containers": [{"name": "main", "image": "example.com/image"}]},
            "status": {"podIP": pod.address},
        }
        for pod in PODS
    ]


def differences(expected: Matrix, found: Matrix) -> list[str]:
    """Every connection that only one of the two admits, in words, for a failure's message."""
    result = []
    for pair in sorted({*expected, *found}):
        want, have = expected.get(pair, PORTS), found.get(pair, PORTS)
        if want != have:
            more, less = _text(have - want), _text(want - have)
            result.append(f"{pair[0]} -> {pair[1]}: too much {more}, missing {less}")
    return result


def additions(before: Matrix, after: Matrix) -> list[str]:
    """Every connection that `after` admits and `before` does not."""
    return [
        f"{pair[0]} -> {pair[1]}: {_text(more)}"
        for pair, had in sorted(before.items())
        if (more := after.get(pair, PORTS) - had)
    ]


def _text(ports: Iterable[Port]) -> str:
    return ",".join(f"{protocol}/{number}" for protocol, number in sorted(ports)) or "nothing"
