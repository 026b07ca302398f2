"""Cloud Firewalls as the kernel's own packet filter. Pure.

What is not admitted is dropped without a word, so that a client waits in vain; connections that exist
live on, because Linode's firewalls are stateful and nothing says that a narrower rule cuts them. Rules act
on inbound TCP of the NodeBalancer that they are attached to. A NodeBalancer without an enabled firewall is
open. Source: Linode API description (firewall rules); DOC "Cloud Firewall".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from lab.datapath.account import Firewall, NodeBalancer, Rule


def tables(balancers: Iterable[NodeBalancer], version: int) -> str:
    """Input of `iptables-restore` (`version` 4) or `ip6tables-restore` (6): replaces the filter at once."""
    chains, jumps, rules = [], [], []
    for balancer in balancers:
        addresses = [one for one in balancer.addresses if ipaddress.ip_address(one).version == version]
        names = [f"nb{balancer.id}-{index}" for index in range(len(balancer.firewalls))]
        for name, firewall in zip(names, balancer.firewalls, strict=True):
            chains.append(f":{name} - [0:0]")
            rules += [f"-A {name} {rule}" for rule in _chain(firewall, version)]
        for address in addresses:
            # A firewall's chain returns what it accepts, so that a second one is asked as well.
            jumps += [f"-A INPUT -d {address} -p tcp -j {name}" for name in names]
            jumps.append(f"-A INPUT -d {address} -p tcp -j ACCEPT")
    neighbours = ["-A INPUT -p ipv6-icmp -j ACCEPT"] if version == 6 else []
    lines = [
        "*filter",
        ":INPUT DROP [0:0]",
        ":FORWARD DROP [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        *chains,
        "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "-A INPUT -i lo -j ACCEPT",
        *neighbours,
        *jumps,
        *rules,
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def _chain(firewall: Firewall, version: int) -> Iterator[str]:
    for rule in firewall.inbound:
        if rule.protocol == "TCP":
            yield from _rule(rule, version)
    yield f"-j {_target(firewall.policy)}"


def _rule(rule: Rule, version: int) -> Iterator[str]:
    ports = ""
    if rule.ports is not None:
        # The same limit of 15 ports, a range counting twice, holds for both.
        pieces = [piece.strip().replace("-", ":") for piece in rule.ports.split(",")]
        ports = f"-m multiport --dports {','.join(pieces)} "
    for source in rule.ipv4 if version == 4 else rule.ipv6:
        yield f"-s {source} -p tcp {ports}-j {_target(rule.action)}"


def _target(action: str) -> str:
    return "RETURN" if action == "ACCEPT" else "DROP"
