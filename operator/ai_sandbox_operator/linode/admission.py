"""What firewall rules admit, as sets of networks by port. Pure.

Reading is pessimistic: a rule that is not understood (another protocol, no ports, no addresses, a
reference to a rule set, a text that is no network) is reported as open, because a guess in the other
direction would call an open firewall closed.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from ai_sandbox_operator.linode import models

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_PORTS = 64  # a live range wider than this is reported as such, not spelt out


def ordered(networks: Iterable[Network]) -> tuple[Network, ...]:
    """IPv4 before IPv6, then by address."""
    return tuple(sorted(networks, key=lambda one: (one.version, int(one.network_address), one.prefixlen)))


@dataclasses.dataclass(frozen=True)
class Networks:
    """A set of addresses as the fewest networks; equal sets are equal objects."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Self:
        """The set of all addresses in any of the networks."""
        v4: list[ipaddress.IPv4Network] = []
        v6: list[ipaddress.IPv6Network] = []
        for network in networks:
            if isinstance(network, ipaddress.IPv4Network):
                v4.append(network)
            else:
                v6.append(network)
        return cls((*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)))

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    def __bool__(self) -> bool:
        return bool(self.networks)

    def outside(self, other: Networks) -> tuple[Network, ...]:
        """Networks of ours that other does not cover whole. As other is collapsed, a covered network lies in
        one network of it."""
        index = other._index()
        return tuple(network for network in self.networks if not _covered(network, index))

    def common(self, other: Networks) -> Networks:
        """Addresses in both."""
        mine, theirs = self._index(), other._index()
        return Networks.of(
            [network for network in self if _covered(network, theirs)]
            + [network for network in other if _covered(network, mine)]
        )

    def _index(self) -> set[tuple[int, int, int]]:
        return {(one.version, one.prefixlen, int(one.network_address)) for one in self.networks}


NOTHING = Networks()


def _covered(network: Network, index: set[tuple[int, int, int]]) -> bool:
    """Whether the network or one around it is in the index."""
    bits, address = network.max_prefixlen, int(network.network_address)
    return any(
        (network.version, length, address >> (bits - length) << (bits - length)) in index
        for length in range(network.prefixlen + 1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Admission:
    """What inbound rules admit.

    Attributes:
        ports: networks by TCP port, from rules that are understood.
        open: in words, what may admit more than `ports` says.
        other: in words, what admits nothing but was not written by us, such as a DROP rule.
    """

    ports: Mapping[int, Networks]
    open: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def of_port(self, port: int) -> Networks:
        return self.ports.get(port, NOTHING)


def read(rules: models.FirewallRules) -> Admission:
    """What the inbound half of a rule set admits."""
    by_port: dict[int, list[Network]] = {}
    wide: list[str] = []
    other: list[str] = []
    if rules.inbound_policy != "DROP":
        wide.append(f"the inbound policy is {rules.inbound_policy}")
    for position, rule in enumerate(rules.inbound, start=1):
        name = f"rule {position}" + (f" ({rule.label})" if rule.label else "")
        if rule.action == "DROP" and rule.ruleset is None:
            other.append(f"{name} was not written by the operator")
            continue
        ports, networks = parse_ports(rule.ports), _networks(rule)
        if (
            rule.action != "ACCEPT"
            or rule.protocol != "TCP"
            or rule.ruleset is not None
            or not ports
            or not networks
        ):
            wide.append(f"{name} was not written by the operator and may admit anybody")
            continue
        for port in ports:
            by_port.setdefault(port, []).extend(networks)
    return Admission(
        ports={port: Networks.of(networks) for port, networks in sorted(by_port.items())},
        open=tuple(wide),
        other=tuple(other),
    )


def _networks(rule: models.Rule) -> list[Network] | None:
    """Networks of a rule; None if one of them is not understood. Host bits mean the network around them."""
    try:
        return [_network(text) for text in (*rule.addresses.ipv4, *rule.addresses.ipv6)]
    except ValueError:
        return None


@functools.lru_cache(maxsize=8192)
def _network(text: str) -> Network:
    """Kept, because every check reads the same texts again, wanted and live."""
    return ipaddress.ip_network(text, strict=False)


def parse_ports(text: str | None) -> tuple[int, ...] | None:
    """Ports of a rule; None if they are not understood, absent (all ports) or very many."""
    found: set[int] = set()
    for piece in (text or "").split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", piece)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last <= 65535 or last - first >= _MOST_PORTS:
            return None
        found.update(range(first, last + 1))
    return tuple(sorted(found))
