"""Who may talk to whom: the policies as a matrix of connections, judged by a naive reader of policies."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest

from ai_sandbox_operator.desired import allowlist, facts
from unit.desired import samples

Spec = dict[str, Any]
Labels = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Place:
    """One end of a connection: a pod (labels and namespace) or an address outside."""

    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = "team-a"
    address: str = ""


def own(component: str) -> Place:
    return Place(
        (
            ("app.kubernetes.io/name", "ai-sandbox"),
            ("app.kubernetes.io/component", component),
            ("app.kubernetes.io/managed-by", "ai-sandbox-operator"),
            ("sandbox.linode.com/name", "demo"),
        )
    )


def outside(address: str) -> Place:
    return Place(address=address, namespace="")


FETCH, ENGINE, CHAT, GATEWAY = (own(component) for component in ("fetch", "engine", "chat", "gateway"))
NEIGHBOUR = Place((("app", "agent"),))
NAMESAKE = Place(
    tuple((k, "other" if k == "sandbox.linode.com/name" else v) for k, v in own("gateway").labels)
)
ELSEWHERE = Place((("app", "agent"),), "team-b")
OPERATOR = Place((("app.kubernetes.io/name", "ai-sandbox-operator"),), "ai-sandbox-system")
DNS = Place((("k8s-app", "kube-dns"),), "kube-system")
COREDNS = Place((("k8s-app", "coredns"),), "kube-system")
OFFICE, STRANGER = outside("203.0.113.4"), outside("198.51.100.1")
BALANCER = outside("192.168.255.7")
HUB, HUB6 = outside("151.101.1.6"), outside("2a04:4e42::6")
METADATA, METADATA6 = outside("169.254.169.254"), outside("fd00:a9fe:a9fe::1")
PRIVATE, NODE, API_SERVER = outside("10.0.0.8"), outside("192.168.128.9"), outside("10.128.0.1")
EVERYWHERE = {name: place for name, place in globals().copy().items() if isinstance(place, Place)}
PORTS = (53, 443, 3000, 3443, 3444, 6443, 8000, 8080, 8443, 8444, 9901, 9902)


def matches(selector: Spec, labels: Labels) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        labels.get(item["key"]) in item["values"] and item["operator"] == "In"
        for item in selector.get("matchExpressions", [])
    )


def is_peer(peer: Spec, place: Place, namespace: str) -> bool:
    if "ipBlock" in peer:
        if not place.address:
            return False
        address = ipaddress.ip_address(place.address)
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(
            address in ipaddress.ip_network(net) for net in peer["ipBlock"].get("except", [])
        )
    if place.address:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": place.namespace}):
            return False
    elif place.namespace != namespace:
        return False
    return matches(peer.get("podSelector", {}), dict(place.labels))


def allows(policies: list[Spec], pod: Place, other: Place, port: int, direction: str) -> bool:
    """Whether the policies that select `pod` admit a TCP connection; no policy admits everything."""
    mine = [
        policy["spec"]
        for policy in policies
        if not pod.address
        and pod.namespace == policy["metadata"]["namespace"]
        and matches(policy["spec"]["podSelector"], dict(pod.labels))
        and direction in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    side = "from" if direction == "Ingress" else "to"
    return any(
        any(is_peer(peer, other, "team-a") for peer in rule[side])
        and any(item["port"] == port and item["protocol"] == "TCP" for item in rule["ports"])
        for spec in mine
        for rule in spec.get(direction.lower(), [])
    )


def connections(spec: Spec, known: facts.Facts = samples.FACTS) -> set[str]:
    """All connections to or from pods of the sandbox that are allowed, as `A -> B:port`."""
    policies = [c.manifest for c in samples.rendered(spec, known) if c.kind == "NetworkPolicy"]
    ours = {FETCH, ENGINE, CHAT, GATEWAY}
    return {
        f"{a} -> {b}:{port}"
        for a, source in EVERYWHERE.items()
        for b, target in EVERYWHERE.items()
        for port in PORTS
        if a != b
        and (source in ours or target in ours)
        and allows(policies, source, target, port, "Egress")
        and allows(policies, target, source, port, "Ingress")
    }


DNS_EDGES = {f"{a} -> {b}:53" for a in ("FETCH", "CHAT", "GATEWAY") for b in ("DNS", "COREDNS")}
#: The graph of a sandbox that nobody is admitted to.
BASE = DNS_EDGES | {
    "FETCH -> HUB:443",
    "FETCH -> HUB6:443",
    "FETCH -> OFFICE:443",
    "FETCH -> STRANGER:443",
    "GATEWAY -> ENGINE:8000",
    "GATEWAY -> CHAT:8080",
    "CHAT -> ENGINE:8000",
}


@pytest.mark.parametrize(
    ("case", "spec", "added", "removed"),
    [
        ("nobody is admitted by default", {}, set(), set()),
        (
            "an address is admitted to the internal listeners",
            {"access": {"allowlist": [{"cidr": "203.0.113.4/32"}]}},
            {"OFFICE -> GATEWAY:8444", "OFFICE -> GATEWAY:3444"},
            set(),
        ),
        (
            "an address is admitted to one target",
            {"access": {"allowlist": [{"cidr": "203.0.113.4/32", "to": ["Chat"]}]}},
            {"OFFICE -> GATEWAY:3444"},
            set(),
        ),
        (
            "from outside only the NodeBalancer comes, whoever is on the allowlist",
            {"access": {"exposure": "NodeBalancer"}},
            {"BALANCER -> GATEWAY:8443", "BALANCER -> GATEWAY:3443"},
            set(),
        ),
        (
            "pods of the own namespace",
            {"access": {"inCluster": [{"podSelector": {"matchLabels": {"app": "agent"}}, "to": ["API"]}]}},
            {"NEIGHBOUR -> GATEWAY:8444"},
            set(),
        ),
        (
            "all pods of another namespace",
            {
                "access": {
                    "inCluster": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-b"}},
                            "to": ["Chat"],
                        }
                    ]
                }
            },
            {"ELSEWHERE -> GATEWAY:3444"},
            set(),
        ),
        (
            "an expression",
            {
                "access": {
                    "inCluster": [
                        {
                            "namespaceSelector": {},
                            "podSelector": {
                                "matchExpressions": [{"key": "app", "operator": "In", "values": ["agent"]}]
                            },
                            "to": ["API"],
                        }
                    ]
                }
            },
            {"NEIGHBOUR -> GATEWAY:8444", "ELSEWHERE -> GATEWAY:8444"},
            set(),
        ),
        (
            "single sign-on needs the identity provider",
            {"chat": {"oidc": {"providerURL": "https://sso.example.com/x", "clientID": "chat"}}},
            {f"CHAT -> {place}:443" for place in ("HUB", "HUB6", "OFFICE", "STRANGER")},
            set(),
        ),
        (
            "without chat",
            {"chat": {"enabled": False}, "access": {"exposure": "NodeBalancer"}},
            {"BALANCER -> GATEWAY:8443"},
            {edge for edge in BASE if "CHAT" in edge},
        ),
    ],
)
def test_connections(case: str, spec: Spec, added: set[str], removed: set[str]) -> None:
    assert connections(spec) == (BASE | added) - removed


def test_the_operator_asks_gateway_and_engine_when_it_is_known_where_it_runs() -> None:
    known = dataclasses.replace(samples.FACTS, operator_namespace="ai-sandbox-system")
    assert connections({}, known) == BASE | {"OPERATOR -> GATEWAY:9902", "OPERATOR -> ENGINE:8000"}


@pytest.mark.parametrize(
    ("policy", "sources"),
    [
        ("demo-engine", {"chat", "gateway"}),
        ("demo-chat", {"gateway"}),
        ("demo-gateway", set()),
        ("demo-fetch", set()),
    ],
)
def test_each_component_admits_its_callers_whether_or_not_others_may_call(
    policy: str, sources: set[str]
) -> None:
    rules = samples.child(samples.rendered(), "NetworkPolicy", policy)["spec"].get("ingress", [])
    found = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in rules
        for peer in rule["from"]
    }
    assert found == sources


def test_no_rule_lacks_peers_or_ports() -> None:
    """A rule without peers, or without ports, admits everybody, or everything."""
    for policy in (c.manifest for c in samples.rendered({}, samples.EXPOSED) if c.kind == "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for side, rules in (("from", "ingress"), ("to", "egress")):
            for rule in policy["spec"].get(rules, []):
                assert rule[side]
                assert rule["ports"]
                assert all({"protocol", "port"} == set(port) for port in rule["ports"])


def test_the_internet_is_never_a_private_or_metadata_address() -> None:
    policies = [c.manifest for c in samples.rendered() if c.kind == "NetworkPolicy"]
    for address in (
        *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.1", "127.0.0.1"),
        *("100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fc00::1", "fd00::1", "fe80::a9fe:a9fe", "ff02::1", "64:ff9b::a9fe:a9fe"),
    ):
        assert not allows(policies, FETCH, outside(address), 443, "Egress"), address


@pytest.mark.parametrize(
    ("cidrs", "collapsed"),
    [
        ([], []),
        (["203.0.113.0/25", "203.0.113.128/25"], ["203.0.113.0/24"]),
        (["203.0.113.4/32", "203.0.113.0/24", "203.0.113.4/32"], ["203.0.113.0/24"]),
        (["2001:db8::/33", "198.51.100.0/24", "2001:db8:8000::/33"], ["198.51.100.0/24", "2001:db8::/32"]),
        # Host bits and nonsense admit nobody, and do not hold back the others.
        (["203.0.113.4/24", "nonsense", "", "198.51.100.7/32"], ["198.51.100.7/32"]),
        (["203.0.113.4"], []),
        # Clients by IPv4 never appear as mapped IPv6; admission refuses it with a remedy.
        (["::ffff:203.0.113.4/128"], []),
        (["::ffff:0:0/96"], []),
        (["::/0"], ["::/0"]),
        (["fe80::1%eth0/128"], []),
    ],
)
def test_networks_of_the_allowlist(cidrs: list[str], collapsed: list[str]) -> None:
    assert [str(network) for network in allowlist.collapse(cidrs)] == collapsed


@pytest.mark.parametrize(
    ("case", "endpoint", "networks", "added"),
    [
        ("the public hub", "", (), set()),
        ("a mirror on the internet", "https://hub.example.com", (), set()),
        (
            "a mirror on the internet, on a port of its own",
            "http://hub.example.com:8080",
            (),
            {f"FETCH -> {place}:8080" for place in ("HUB", "HUB6", "OFFICE", "STRANGER")},
        ),
        ("a private mirror, by its address", "https://10.0.0.8:8443", (), {"FETCH -> PRIVATE:8443"}),
        (
            "a private mirror, by its network",
            "http://mirror:8080",
            ("10.0.0.0/24",),
            {"FETCH -> PRIVATE:8080"},
        ),
        ("a network without a mirror", "", ("10.0.0.0/24",), {"FETCH -> PRIVATE:443"}),
    ],
)
def test_a_download_reaches_the_hub_and_its_mirror(
    case: str, endpoint: str, networks: tuple[str, ...], added: set[str]
) -> None:
    known = dataclasses.replace(samples.FACTS, hub_endpoint=endpoint, hub_networks=networks)
    assert connections({}, known) == BASE | added, case
