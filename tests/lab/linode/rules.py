"""Limits and meaning of firewall rules that no schema can say. Pure.

Refused: more than 25 rules, more than 255 addresses in a rule, an address without a mask or with a zone
id, `ports` outside TCP and UDP or with more than 15 pieces, a label that does not end alphanumeric, rule
sets (beta). Sources: Linode API description (`x-rules` of the document); the CCM uses the same numbers
(cloud/linode/services/firewalls.go).
"""

from __future__ import annotations

import ipaddress
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.linode.errors import ApiError, Json, bad_request

MAX_RULES, MAX_ADDRESSES, MAX_PORT_PIECES = 25, 255, 15
DIRECTIONS = ("inbound", "outbound")


@dataclass(frozen=True)
class Rules:
    """One version of a firewall's rules. `None` and `[]` are different contents, as on the API."""

    inbound: list[Json] | None
    inbound_policy: str
    outbound: list[Json] | None
    outbound_policy: str
    version: int = 1

    def content(self) -> dict[str, Json]:
        return {
            "inbound": self.inbound,
            "inbound_policy": self.inbound_policy,
            "outbound": self.outbound,
            "outbound_policy": self.outbound_policy,
        }

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that depend on the content alone, never on version, time or firewall."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return f"{zlib.crc32(text.encode()):08x}"

    def render(self) -> dict[str, Json]:
        return {**self.content(), "version": self.version, "fingerprint": self.fingerprint}


def _ports_error(ports: str) -> str | None:
    pieces = 0
    for piece in ports.split(","):
        low, _, high = piece.strip().partition("-")
        pieces += 2 if high else 1
        if not 1 <= int(low) <= 65535 or (high and not 1 <= int(high) <= 65535):
            return "Ports must be between 1 and 65535"
        if high and int(high) <= int(low):
            return "The end of a port range must be greater than its start"
    return f"A rule can have at most {MAX_PORT_PIECES} port pieces" if pieces > MAX_PORT_PIECES else None


def _address_error(text: str, family: int) -> str | None:
    if "/" not in text or "%" in text:
        return f"Must be an IPv{family} network in CIDR notation: {text[:60]}"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"Must be an IPv{family} network in CIDR notation: {text[:60]}"
    prefix = text.rsplit("/", 1)[1]
    if network.version != family or not prefix.isdigit():
        return f"Must be an IPv{family} network in CIDR notation: {text[:60]}"
    return None


def _rule_error(rule: Mapping[str, Json], where: str) -> ApiError | None:
    if "ruleset" in rule:
        return bad_request("Rule set not found", f"{where}.ruleset")
    ports = rule.get("ports")
    if ports is not None:
        if rule["protocol"] not in ("TCP", "UDP"):
            return bad_request("Ports are allowed with TCP and UDP only", f"{where}.ports")
        reason = _ports_error(ports)
        if reason:
            return bad_request(reason, f"{where}.ports")
    addresses = rule["addresses"]
    if len(addresses.get("ipv4", [])) + len(addresses.get("ipv6", [])) > MAX_ADDRESSES:
        return bad_request(f"A rule can have at most {MAX_ADDRESSES} addresses", f"{where}.addresses")
    for family in (4, 6):
        for index, text in enumerate(addresses.get(f"ipv{family}", [])):
            reason = _address_error(text, family)
            if reason:
                return bad_request(reason, f"{where}.addresses.ipv{family}[{index}]")
    return None


def rules_error(body: Mapping[str, Json], prefix: str = "") -> ApiError | None:
    """Why a rules document (already valid by its schema) is refused."""
    if sum(len(body.get(direction) or []) for direction in DIRECTIONS) > MAX_RULES:
        return bad_request(f"A firewall can have at most {MAX_RULES} rules", f"{prefix}inbound")
    for direction in DIRECTIONS:
        for index, rule in enumerate(body.get(direction) or []):
            error = _rule_error(rule, f"{prefix}{direction}[{index}]")
            if error:
                return error
    return None


def label_error(label: str) -> ApiError | None:
    """The part of the label rule that the pattern leaves open."""
    return None if label[-1].isalnum() else bad_request("Label must end with a letter or a digit", "label")


def _canonical(rule: Mapping[str, Json]) -> dict[str, Json]:
    addresses = {
        family: [str(ipaddress.ip_network(text, strict=False)) for text in texts]
        for family, texts in rule["addresses"].items()
    }
    return {**rule, "addresses": addresses}


def from_body(body: Mapping[str, Json], version: int, canonical: bool) -> Rules:
    """Rules as stored. Whether Linode rewrites addresses (host bits, spelling) is not known: a switch."""

    def stored(direction: str) -> list[Json] | None:
        given = body.get(direction, [])
        if given is None:
            return None
        return [_canonical(rule) if canonical else dict(rule) for rule in given]

    return Rules(
        stored("inbound"), body["inbound_policy"], stored("outbound"), body["outbound_policy"], version
    )


def _port_ranges(ports: str | None) -> Iterator[tuple[int, int]]:
    if ports is None:
        yield 1, 65535
        return
    for piece in ports.split(","):
        low, _, high = piece.strip().partition("-")
        yield int(low), int(high or low)


def admits(rules: Rules, address: str, port: int) -> bool:
    """Whether inbound TCP from an address to a port passes: first match wins, then the policy."""
    source = ipaddress.ip_address(address)
    for rule in rules.inbound or []:
        if rule["protocol"] != "TCP" or not any(a <= port <= b for a, b in _port_ranges(rule.get("ports"))):
            continue
        networks = rule["addresses"].get(f"ipv{source.version}", [])
        if any(source in ipaddress.ip_network(text, strict=False) for text in networks):
            return bool(rule["action"] == "ACCEPT")
    return rules.inbound_policy == "ACCEPT"
