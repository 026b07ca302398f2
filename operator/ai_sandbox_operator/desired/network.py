"""NetworkPolicies: deny everything for every pod of the sandbox, then admit the exact edges.

Ports are container ports, because policies act after the translation of Service addresses, on
Calico (LKE) and on Cilium (LKE Enterprise) alike. Probes from a pod's own node are always admitted.

On Calico an `ipBlock` matches pods by address, on Cilium never: peers inside the cluster are always
named by selectors here, and addresses are used only for what is outside, or on a node. CoreDNS is
labelled `kube-dns` on the former and may be `coredns` on the latter.

A NodeBalancer is a full proxy, so its connections carry its own address: the external ports admit
the NodeBalancers' range, which also shuts the NodePorts of the nodes, and the clients' addresses are
judged by Cloud Firewall and gateway.

`ingress: []` is never written: the server drops empty lists. `policyTypes` gives absence its meaning.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterable, Sequence

from ai_sandbox_operator.api import names, v1alpha1

from . import allowlist, chat, common
from .facts import Child, Facts, Manifest, Stage

#: What is not the internet: private, shared, link-local (with the metadata service), loopback,
#: multicast and reserved networks. Without IPv4-mapped IPv6, which never appears on the wire and
#: which the server refuses.
_NOT_INTERNET_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_NOT_INTERNET_V6 = ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "ff00::/8")


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """One policy that denies, and one per component that admits."""
    policies = [
        _policy(sandbox, "default-deny", None, ingress=(), egress=()),
        _policy(sandbox, common.FETCH, common.FETCH, ingress=(), egress=(_dns(facts), *_hub(facts))),
        _policy(sandbox, common.ENGINE, common.ENGINE, ingress=_engine_ingress(sandbox, facts), egress=()),
        _policy(
            sandbox,
            common.GATEWAY,
            common.GATEWAY,
            ingress=_gateway_ingress(sandbox, facts),
            egress=_gateway_egress(sandbox, facts),
        ),
    ]
    if sandbox.spec.chat.enabled:
        policies.append(
            _policy(
                sandbox,
                common.CHAT,
                common.CHAT,
                ingress=({"from": [_own(sandbox, common.GATEWAY)], "ports": [_tcp(names.PORT_OPEN_WEBUI)]},),
                egress=(
                    _dns(facts),
                    {"to": [_own(sandbox, common.ENGINE)], "ports": [_tcp(names.PORT_ENGINE)]},
                    # The identity provider's address is not known to a policy; only its port is.
                    *(_internet() if chat.oidc_configured(sandbox) else ()),
                ),
            )
        )
    return [Child(stage=Stage.POLICY, manifest=policy) for policy in policies]


def _engine_ingress(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Manifest]:
    clients = [common.GATEWAY, *([common.CHAT] if sandbox.spec.chat.enabled else [])]
    peers = [_own(sandbox, client) for client in clients]
    if facts.operator_namespace:
        # It asks for the list of models and makes the first request.
        peers.append(_operator(facts.operator_namespace))
    return _admit(peers, [names.PORT_ENGINE])


def _gateway_ingress(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Manifest]:
    access, chat_on = sandbox.spec.access, sandbox.spec.chat.enabled
    rules: list[Manifest] = []
    if access.exposure == "NodeBalancer":
        ports = [names.PORT_GATEWAY_API, *([names.PORT_GATEWAY_CHAT] if chat_on else [])]
        rules += _admit([_block(str(net)) for net in allowlist.collapse(facts.nodebalancer_ranges)], ports)
    rules += _admit(_clients(access, "API"), [names.PORT_GATEWAY_INTERNAL_API])
    if chat_on:
        rules += _admit(_clients(access, "Chat"), [names.PORT_GATEWAY_INTERNAL_CHAT])
    if facts.operator_namespace:
        rules += _admit([_operator(facts.operator_namespace)], [names.PORT_GATEWAY_STATUS])
    return rules


def _gateway_egress(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Manifest]:
    rules = [_dns(facts), {"to": [_own(sandbox, common.ENGINE)], "ports": [_tcp(names.PORT_ENGINE)]}]
    if sandbox.spec.chat.enabled:
        rules.append({"to": [_own(sandbox, common.CHAT)], "ports": [_tcp(names.PORT_OPEN_WEBUI)]})
    return rules


def _clients(access: v1alpha1.AccessSpec, target: v1alpha1.Target) -> list[Manifest]:
    return [
        *(_block(str(network)) for network in allowlist.networks(access, target)),
        *(_peer(peer) for peer in allowlist.peers(access, target)),
    ]


def _admit(sources: Sequence[Manifest], ports: Iterable[int]) -> list[Manifest]:
    # A rule without sources would admit everybody, so there is no rule at all.
    return [{"from": list(sources), "ports": [_tcp(port) for port in ports]}] if sources else []


def _peer(peer: v1alpha1.InClusterPeer) -> Manifest:
    if peer.namespace_selector is None:
        return {"podSelector": _selector(peer.pod_selector)}
    result = {"namespaceSelector": _selector(peer.namespace_selector)}
    if peer.pod_selector is not None:
        result["podSelector"] = _selector(peer.pod_selector)
    return result


def _selector(selector: v1alpha1.LabelSelector | None) -> Manifest:
    """Absent means all pods of the namespace, as an empty selector does."""
    if selector is None:
        return {}
    result: Manifest = {}
    if selector.match_labels:
        result["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        result["matchExpressions"] = [
            {
                "key": item.key,
                "operator": item.operator,
                **({"values": list(item.values)} if item.values else {}),
            }
            for item in selector.match_expressions
        ]
    return result


def _own(sandbox: v1alpha1.AISandbox, component: str) -> Manifest:
    return {"podSelector": {"matchLabels": common.selector(sandbox, component)}}


def _operator(namespace: str) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {names.LABEL_NAME: names.FIELD_MANAGER}},
    }


def _block(cidr: str, excluded: Sequence[str] = ()) -> Manifest:
    return {"ipBlock": {"cidr": cidr, **({"except": list(excluded)} if excluded else {})}}


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}


def _dns(facts: Facts) -> Manifest:
    """Resolvers: CoreDNS by its labels; by address what runs on the node itself and has no labels to a policy.

    NodeLocal DNSCache listens on 169.254.20.10 and, before a proxy of mode iptables, on the address of the
    Service kube-dns, which then reaches the policy untranslated (kubernetes, cluster/addons/dns/nodelocaldns).
    """
    resolvers = {"key": "k8s-app", "operator": "In", "values": ["kube-dns", "coredns"]}
    return {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchExpressions": [resolvers]},
            },
            *(_block(str(network)) for network in allowlist.collapse(facts.dns_networks)),
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }


def _internet(port: int = 443) -> list[Manifest]:
    blocks = [_block("0.0.0.0/0", _NOT_INTERNET_V4), _block("::/0", _NOT_INTERNET_V6)]
    return [{"to": blocks, "ports": [_tcp(port)]}]


def _hub(facts: Facts) -> list[Manifest]:
    """Where models come from: the internet, and a mirror wherever the operator was told that it is.

    The public hub redirects to other hosts, and so may a mirror, hence the internet in any case.
    """
    url = urllib.parse.urlsplit(facts.hub_endpoint)
    port = url.port or (80 if url.scheme == "http" else 443)
    named = (str(network) for network in allowlist.collapse(_addresses(url.hostname, facts.hub_networks)))
    mirror = [{"to": blocks, "ports": [_tcp(port)]}] if (blocks := [_block(one) for one in named]) else []
    return [*_internet(), *(_internet(port) if port != 443 and not mirror else []), *mirror]


def _addresses(host: str | None, networks: Sequence[str]) -> list[str]:
    """The mirror's networks, among them its own address if it is named by that."""
    try:
        return [*networks, str(ipaddress.ip_network(host or ""))]
    except ValueError:
        return [*networks]


def _policy(
    sandbox: v1alpha1.AISandbox,
    suffix: str,
    component: str | None,
    *,
    ingress: Sequence[Manifest],
    egress: Sequence[Manifest],
) -> Manifest:
    spec: Manifest = {
        "podSelector": {"matchLabels": common.selector(sandbox, component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    if ingress:
        spec["ingress"] = list(ingress)
    if egress:
        spec["egress"] = list(egress)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": common.metadata(sandbox, common.child_name(sandbox, suffix), component or common.ACCESS),
        "spec": spec,
    }
