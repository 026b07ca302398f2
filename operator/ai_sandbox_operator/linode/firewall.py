"""From the allowlist to Cloud Firewall rules, and from rules back to what they admit. Pure.

Refused: rules that admit more than the allowlist, an allowlist that does not fit. An entry with host
bits admits nobody (it would silently mean a larger network). An empty allowlist is no rule and DROP.

Limits (Linode API description, FirewallRule and FirewallRulesWrite; the cloud controller manager's
`services/firewalls.go` uses the same): 25 rules, 255 networks per rule over both families, neither
list empty. Whether the API keeps order, spelling and host bits is unknown, so rules are compared by
what they admit, and what is not understood counts as open to everybody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ai_sandbox_operator.api import v1alpha1, validation
from ai_sandbox_operator.linode import admission, errors, models
from ai_sandbox_operator.linode.admission import Network

MAX_RULES = 25
MAX_ADDRESSES = 255
MAX_TAG = 50
_PORT_NAMES = {"Chat": "chat", "API": "api"}

TAG_HUMAN = "ai-sandbox"
_TAG_CLUSTER = "aisb-cluster-"
_TAG_UID = "aisb-uid-"


def rules_for(
    allowlist: Iterable[v1alpha1.AllowlistEntry], *, ports: Mapping[v1alpha1.Target, int]
) -> models.FirewallRules:
    """Rules that admit exactly the allowlist; targets without a port are closed.

    The answer depends only on the set of admitted addresses, never on the order of the entries.

    Raises:
        TooManyNetworks: it does not fit into one firewall.
    """
    admitted = allowed(allowlist, ports=ports)
    names = {port: _PORT_NAMES[target] for target, port in ports.items()}
    return _build(admitted, names=names)


def allowed(
    allowlist: Iterable[v1alpha1.AllowlistEntry], *, ports: Mapping[v1alpha1.Target, int]
) -> dict[int, admission.Networks]:
    """Networks that the allowlist admits, by port.

    An entry that is not a network admits nobody, and does not keep the others from taking effect:
    otherwise one bad entry would stop a narrowing.
    """
    by_port: dict[int, list[Network]] = {port: [] for port in ports.values()}
    for entry in allowlist:
        try:
            network = validation.network(entry.cidr)
        except ValueError:
            continue
        for target in entry.to:
            if target in ports:
                by_port[ports[target]].append(network)
    return {port: admission.Networks.of(networks) for port, networks in by_port.items()}


def is_within(
    rules: models.FirewallRules,
    allowlist: Iterable[v1alpha1.AllowlistEntry],
    *,
    ports: Mapping[v1alpha1.Target, int],
) -> bool:
    """Whether the rules admit nothing outside the allowlist. What is not understood is outside."""
    return not excess(rules, allowed(allowlist, ports=ports))


def excess(rules: models.FirewallRules, permitted: Mapping[int, admission.Networks]) -> tuple[str, ...]:
    """What the rules admit beyond `permitted`, in words; empty if nothing."""
    live = admission.read(rules)
    found = list(live.open)
    for port, networks in sorted(live.ports.items()):
        outside = networks.outside(permitted.get(port, admission.NOTHING))
        if outside:
            found.append(f"port {port} is open to {_some(outside)}")
    return tuple(found)


def intersection(first: models.FirewallRules, second: models.FirewallRules) -> models.FirewallRules:
    """Rules that admit what both admit: the step between two allowlists that never widens.

    Raises:
        TooManyNetworks: it does not fit; then close completely instead.
    """
    one, two = admission.read(first), admission.read(second)
    shared = {
        port: networks.common(two.ports[port]) for port, networks in one.ports.items() if port in two.ports
    }
    return _build(shared, names={port: f"port-{port}" for port in shared})


def normalise(rules: models.FirewallRules) -> admission.Admission:
    """A form in which two rule sets are equal if they admit the same, whatever order or spelling."""
    return admission.read(rules)


def rules_differ(wanted: models.FirewallRules, live: models.FirewallRules) -> tuple[str, ...]:
    """How live rules differ from the wanted ones in effect, in words; empty if they do not."""
    want, have = normalise(wanted), normalise(live)
    found = list(have.open) + list(have.other)
    for port in sorted(want.ports.keys() | have.ports.keys()):
        wanted_networks, live_networks = want.of_port(port), have.of_port(port)
        if more := live_networks.outside(wanted_networks):
            found.append(f"port {port} is open to {_some(more)}, which is not in the allowlist")
        if less := wanted_networks.outside(live_networks):
            found.append(f"port {port} is closed to {_some(less)}, which is in the allowlist")
    if live.outbound_policy != wanted.outbound_policy:
        found.append(f"the outbound policy is {live.outbound_policy}")
    if len(live.outbound) != len(wanted.outbound):
        found.append(f"there are {len(live.outbound)} outbound rules")
    return tuple(found)


def differs(wanted: models.FirewallRules, live: models.Firewall) -> tuple[str, ...]:
    """How a firewall differs from the wanted rules in effect, in words; empty if it does not."""
    return disabled(live) + rules_differ(wanted, live.rules)


def disabled(live: models.Firewall) -> tuple[str, ...]:
    """In words, that a firewall does not act; empty if it does."""
    if live.status == "enabled":
        return ()
    return (f"the firewall is {live.status}, which lets everything pass",)


def firewall_label(cluster_id: str, uid: str) -> str:
    """Label of a sandbox's firewall: unique in the account, the same at each call, 29 characters.

    It is the key by which a firewall is found after a lost reply, so it must never change.
    """
    return "aisb-" + hashlib.sha256(f"{cluster_id}/{uid}".encode()).hexdigest()[:24]


def cluster_tag(cluster_id: str) -> str:
    """Tag of all objects of a cluster."""
    return _tag(_TAG_CLUSTER, cluster_id)


def uid_tag(uid: str) -> str:
    """Tag of all objects of a sandbox. The UID, not the name: a namesake made later is another sandbox."""
    return _tag(_TAG_UID, uid)


def ownership_tags(cluster_id: str, uid: str) -> tuple[str, ...]:
    """Tags that mark an object as ours, and one that tells a person what it is."""
    return TAG_HUMAN, cluster_tag(cluster_id), uid_tag(uid)


def is_ours(tags: Iterable[str], *, cluster_id: str, uid: str) -> bool:
    """Whether tags mark an object as this sandbox's in this cluster. Both must be there."""
    return {cluster_tag(cluster_id), uid_tag(uid)} <= set(tags)


def owner_uids(tags: Iterable[str]) -> tuple[str, ...]:
    """UIDs that tags name."""
    return tuple(sorted(tag.removeprefix(_TAG_UID) for tag in tags if tag.startswith(_TAG_UID)))


def cluster_tags(tags: Iterable[str]) -> set[str]:
    """The tags that name a cluster."""
    return {tag for tag in tags if tag.startswith(_TAG_CLUSTER)}


def _tag(prefix: str, ident: str) -> str:
    """Prefix and id; an id that does not fit, or that a comma list cannot hold, is replaced by its hash."""
    if len(prefix) + len(ident) <= MAX_TAG and re.fullmatch(r"[A-Za-z0-9._-]+", ident):
        return prefix + ident
    return prefix + hashlib.sha256(ident.encode()).hexdigest()[:32]


def _build(admitted: Mapping[int, admission.Networks], *, names: Mapping[int, str]) -> models.FirewallRules:
    """Rules for one or two ports; networks of both ports share their rules."""
    groups: list[tuple[str, tuple[int, ...], Sequence[Network]]] = []
    single = {port: set(networks) for port, networks in admitted.items()}
    if len(admitted) == 2:
        first, second = sorted(admitted)
        shared = single[first] & single[second]
        single = {port: networks - shared for port, networks in single.items()}
        groups.append(("both", (first, second), admission.ordered(shared)))
    groups += [
        (names[port], (port,), admission.ordered(networks)) for port, networks in sorted(single.items())
    ]
    inbound = [
        _rule(f"{name}-{number}", ports, chunk)
        for name, ports, networks in groups
        for number, chunk in enumerate(_chunks(networks), start=1)
    ]
    if len(inbound) > MAX_RULES:
        raise errors.TooManyNetworks(
            networks=sum(len(networks) for _, _, networks in groups),
            rules=len(inbound),
            limit_rules=MAX_RULES,
            limit_addresses=MAX_ADDRESSES,
        )
    return models.FirewallRules(inbound=tuple(inbound))


def _rule(name: str, ports: tuple[int, ...], networks: Sequence[Network]) -> models.Rule:
    return models.Rule(
        action="ACCEPT",
        protocol="TCP",
        ports=",".join(map(str, ports)),
        addresses=models.Addresses(ipv4=_family(networks, 4), ipv6=_family(networks, 6)),
        label=f"allow-{name}",
    )


def _family(networks: Sequence[Network], version: Literal[4, 6]) -> tuple[str, ...]:
    return tuple(str(network) for network in networks if network.version == version)


def _chunks(networks: Sequence[Network]) -> list[Sequence[Network]]:
    return [networks[start : start + MAX_ADDRESSES] for start in range(0, len(networks), MAX_ADDRESSES)]


def _some(networks: Sequence[Network], most: int = 3) -> str:
    listed = ", ".join(str(network) for network in networks[:most])
    return listed if len(networks) <= most else f"{listed} and {len(networks) - most} more"
