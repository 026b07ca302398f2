"""Every limit of a firewall that is documented: what is refused, and with which reason."""

from __future__ import annotations

from typing import Any

import pytest

from lab.linode import LinodeSimulator
from lab.linode.state import CLOSED

Rule = dict[str, Any]


def rule(**changes: Any) -> Rule:
    base = {"action": "ACCEPT", "protocol": "TCP", "ports": "8000", "addresses": {"ipv4": ["203.0.113.4/32"]}}
    return {k: v for k, v in {**base, **changes}.items() if v is not None}


def inbound(*rules: Rule) -> dict[str, Any]:
    return {**CLOSED, "inbound": list(rules)}


def networks(count: int) -> list[str]:
    return [f"10.{index // 256}.{index % 256}.0/24" for index in range(count)]


RULES: list[tuple[str, dict[str, Any], str | None, str | None]] = [
    ("empty and closed", CLOSED, None, None),
    ("null is a value", {**CLOSED, "inbound": None, "outbound": None}, None, None),
    ("25 rules", inbound(*[rule()] * 25), None, None),
    ("26 rules", inbound(*[rule()] * 26), "inbound is not valid", "inbound"),
    (
        "26 rules in both directions",
        {**inbound(*[rule()] * 20), "outbound": [rule()] * 6},
        "at most 25",
        "inbound",
    ),
    ("255 addresses", inbound(rule(addresses={"ipv4": networks(255)})), None, None),
    (
        "256 addresses over both families",
        inbound(rule(addresses={"ipv4": networks(254), "ipv6": ["::/0", "2001:db8::/32"]})),
        "at most 255 addresses",
        "inbound[0].addresses",
    ),
    ("an empty list", inbound(rule(addresses={"ipv4": []})), "not valid", "inbound[0].addresses.ipv4"),
    ("no family", inbound(rule(addresses={})), "not valid", "inbound[0].addresses"),
    ("no mask", inbound(rule(addresses={"ipv4": ["203.0.113.4"]})), "CIDR", "inbound[0].addresses.ipv4[0]"),
    ("host bits are taken", inbound(rule(addresses={"ipv4": ["192.0.2.167/24"]})), None, None),
    ("a netmask", inbound(rule(addresses={"ipv4": ["192.0.2.0/255.255.255.0"]})), "CIDR", None),
    ("IPv6 in ipv4", inbound(rule(addresses={"ipv4": ["2001:db8::/32"]})), "CIDR", None),
    ("a zone id", inbound(rule(addresses={"ipv6": ["fe80::1%eth0/128"]})), "CIDR", None),
    ("15 port pieces", inbound(rule(ports=",".join(str(p) for p in range(1, 16)))), None, None),
    ("16 port pieces", inbound(rule(ports=",".join(str(p) for p in range(1, 17)))), "at most 15", None),
    (
        "a range counts twice",
        inbound(rule(ports=",".join(f"{p}-{p + 1}" for p in range(1, 16, 2)))),
        "at most 15",
        None,
    ),
    (
        "7 ranges and a port",
        inbound(rule(ports=",".join([*(f"{p}-{p + 1}" for p in range(1, 14, 2)), "99"]))),
        None,
        None,
    ),
    ("a blank after a comma", inbound(rule(ports="80, 443")), None, None),
    ("a leading zero", inbound(rule(ports="080")), "ports is not valid", "inbound[0].ports"),
    ("port 65536", inbound(rule(ports="65536")), "between 1 and 65535", "inbound[0].ports"),
    ("a backward range", inbound(rule(ports="90-80")), "end of a port range", "inbound[0].ports"),
    ("ports of ICMP", inbound(rule(protocol="ICMP")), "TCP and UDP only", "inbound[0].ports"),
    ("ICMP", inbound(rule(protocol="ICMP", ports=None)), None, None),
    ("all ports", inbound(rule(ports=None)), None, None),
    ("protocol ALL is v4beta", inbound(rule(protocol="ALL")), "not valid", None),
    ("label of 2", inbound(rule(label="ab")), "not valid", None),
    ("label of 32", inbound(rule(label="a" * 32)), None, None),
    ("label of 33", inbound(rule(label="a" * 33)), "not valid", None),
    ("description of 100", inbound(rule(description="d" * 100)), None, None),
    ("description of 101", inbound(rule(description="d" * 101)), "not valid", None),
    ("an unknown field", inbound({**rule(), "source": "x"}), "not valid", None),
    ("a rule set", inbound({"ruleset": 1}), "Rule set not found", "inbound[0].ruleset"),
    (
        "no inbound policy",
        {k: v for k, v in CLOSED.items() if k != "inbound_policy"},
        "inbound_policy is required",
        "inbound_policy",
    ),
    (
        "no outbound policy",
        {k: v for k, v in CLOSED.items() if k != "outbound_policy"},
        "outbound_policy is required",
        None,
    ),
    ("a policy that is none", {**CLOSED, "inbound_policy": "ALLOW"}, "not valid", "inbound_policy"),
]


@pytest.mark.parametrize(
    ("rules", "reason", "field"), [case[1:] for case in RULES], ids=[c[0] for c in RULES]
)
async def test_rules(
    sim: LinodeSimulator, api: Any, rules: Any, reason: str | None, field: str | None
) -> None:
    """PUT of rules and POST of a firewall refuse the same things."""
    firewall = sim.state.create_firewall("target")
    before = sim.state.snapshot()
    put = await api("PUT", f"/networking/firewalls/{firewall.id}/rules", rules)
    post = await api("POST", "/networking/firewalls", {"label": "another", "rules": rules})
    if reason is None:
        assert (put.status, post.status) == (200, 200)
        assert put.body["inbound"] == rules["inbound"]
        return
    assert (put.status, post.status) == (400, 400)
    assert reason in put.reason
    assert reason in post.reason
    assert field in (None, put.field)
    assert sim.state.snapshot() == before, "a refused call leaves no trace"


LABELS: list[tuple[str, bool]] = [
    ("abc", True),
    ("a" * 32, True),
    ("ab", False),
    ("a" * 33, False),
    ("1abc", False),
    ("a-b_c.d1", True),
    ("a--b", False),
    ("a__b", False),
    ("a..b", False),
    ("abc-", False),
    ("a b c", False),
]


@pytest.mark.parametrize(("label", "good"), LABELS)
async def test_firewall_labels(api: Any, label: str, good: bool) -> None:
    answer = await api("POST", "/networking/firewalls", {"label": label, "rules": CLOSED})
    assert answer.status == (200 if good else 400)
    if not good:
        assert answer.field == "label"


async def test_labels_are_unique_among_firewalls(sim: LinodeSimulator, api: Any) -> None:
    sim.state.create_firewall("taken")
    other = sim.state.create_firewall("other")
    again = await api("POST", "/networking/firewalls", {"label": "taken", "rules": CLOSED})
    renamed = await api("PUT", f"/networking/firewalls/{other.id}", {"label": "taken"})
    for answer in (again, renamed):
        assert answer.status == 400
        assert answer.reason == "Label must be unique among your Cloud Firewalls"
        assert answer.field == "label"


@pytest.mark.parametrize("missing", ["label", "rules"])
async def test_required_of_a_firewall(api: Any, missing: str) -> None:
    body = {"label": "abc", "rules": CLOSED}
    del body[missing]
    answer = await api("POST", "/networking/firewalls", body)
    assert (answer.status, answer.reason) == (400, f"{missing} is required")


async def test_account_limit_when_known(sim: LinodeSimulator, api: Any) -> None:
    sim.state.behaviour.max_firewalls = 1
    assert (await api("POST", "/networking/firewalls", {"label": "one", "rules": CLOSED})).status == 200
    assert (await api("POST", "/networking/firewalls", {"label": "two", "rules": CLOSED})).status == 400
