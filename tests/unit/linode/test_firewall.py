"""Firewall rules: exactly the allowlist, within the API's limits, whatever the order of its entries."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterable

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import allowlist as gateway_allowlist
from ai_sandbox_operator.linode import admission, errors, firewall, models

PORTS: dict[v1alpha1.Target, int] = {"Chat": 3000, "API": 8000}
BOTH: list[v1alpha1.Target] = ["Chat", "API"]


def entry(cidr: str, *to: v1alpha1.Target) -> v1alpha1.AllowlistEntry:
    return v1alpha1.AllowlistEntry(cidr=cidr, to=list(to) or BOTH)


def shape(rules: models.FirewallRules) -> list[tuple[str | None, tuple[str, ...], tuple[str, ...]]]:
    return [(rule.ports, rule.addresses.ipv4, rule.addresses.ipv6) for rule in rules.inbound]


def live(
    rules: models.FirewallRules, *, status: str = "enabled", tags: tuple[str, ...] = ()
) -> models.Firewall:
    kept = models.LiveRules.model_validate(rules.model_dump() | {"version": 1})
    return models.Firewall(id=1, label="abc", status=status, rules=kept, tags=tags)


# Small address spaces, so that networks touch, nest and repeat.
v4 = st.builds(
    lambda host, length: str(ipaddress.ip_network((0xCB007100 + host, length), strict=False)),
    st.integers(0, 255),
    st.integers(24, 32),
)
v6 = st.builds(
    lambda host, length: str(ipaddress.ip_network(((0x20010DB8 << 96) + host, length), strict=False)),
    st.integers(0, 63),
    st.integers(122, 128),
)
targets: st.SearchStrategy[list[v1alpha1.Target]] = st.sampled_from([["Chat"], ["API"], ["Chat", "API"]])
entries = st.lists(st.builds(lambda cidr, to: entry(cidr, *to), st.one_of(v4, v6), targets), max_size=40)


def addresses(networks: Iterable[admission.Network]) -> set[tuple[int, int]]:
    """Every single address, by brute force."""
    return {
        (network.version, number)
        for network in networks
        for number in range(int(network.network_address), int(network.broadcast_address) + 1)
    }


def wanted_addresses(
    allowlist: list[v1alpha1.AllowlistEntry], target: v1alpha1.Target
) -> set[tuple[int, int]]:
    return addresses(ipaddress.ip_network(one.cidr) for one in allowlist if target in one.to)


def admitted_addresses(rules: models.FirewallRules, port: int) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for rule in rules.inbound:
        assert rule.ports is not None
        if str(port) in rule.ports.split(","):
            texts = (*rule.addresses.ipv4, *rule.addresses.ipv6)
            found |= addresses(ipaddress.ip_network(text) for text in texts)
    return found


@hypothesis.given(entries)
def test_i1_rules_admit_exactly_the_allowlist_on_each_port(allowlist: list[v1alpha1.AllowlistEntry]) -> None:
    rules = firewall.rules_for(allowlist, ports=PORTS)
    for target, port in PORTS.items():
        assert admitted_addresses(rules, port) == wanted_addresses(allowlist, target)


@hypothesis.given(entries, st.randoms(use_true_random=False))
def test_rules_do_not_depend_on_the_order_of_entries(
    allowlist: list[v1alpha1.AllowlistEntry], random: object
) -> None:
    shuffled = list(allowlist)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert firewall.rules_for(shuffled, ports=PORTS) == firewall.rules_for(allowlist, ports=PORTS)


@hypothesis.given(entries)
def test_rules_keep_the_limits_of_the_api(allowlist: list[v1alpha1.AllowlistEntry]) -> None:
    rules = firewall.rules_for(allowlist, ports=PORTS)
    assert rules.inbound_policy == "DROP"
    assert rules.outbound == ()
    assert rules.outbound_policy == "ACCEPT"
    assert len(rules.inbound) <= 25
    assert len({rule.label for rule in rules.inbound}) == len(rules.inbound)
    for body in rules.to_wire()["inbound"]:
        assert body["action"] == "ACCEPT"
        assert body["protocol"] == "TCP"
        assert 3 <= len(body["label"]) <= 32
        assert re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", body["ports"])
        assert body["addresses"]
        assert all(body["addresses"].values()), "the API refuses empty lists"
        assert sum(map(len, body["addresses"].values())) <= 255


@hypothesis.given(entries, entries)
def test_i1_is_within_agrees_with_brute_force(
    first: list[v1alpha1.AllowlistEntry], second: list[v1alpha1.AllowlistEntry]
) -> None:
    rules = firewall.rules_for(first, ports=PORTS)
    inside = all(
        wanted_addresses(first, target) <= wanted_addresses(second, target) for target in ("Chat", "API")
    )
    assert firewall.is_within(rules, second, ports=PORTS) == inside


@hypothesis.given(entries, entries)
def test_i1_the_intersection_admits_what_both_admit_and_nothing_else(
    first: list[v1alpha1.AllowlistEntry], second: list[v1alpha1.AllowlistEntry]
) -> None:
    one, two = firewall.rules_for(first, ports=PORTS), firewall.rules_for(second, ports=PORTS)
    shared = firewall.intersection(one, two)
    for target, port in PORTS.items():
        both = wanted_addresses(first, target) & wanted_addresses(second, target)
        assert admitted_addresses(shared, port) == both


@hypothesis.given(entries, st.randoms(use_true_random=False))
def test_a_reordered_respelt_and_regrouped_answer_is_no_drift(
    allowlist: list[v1alpha1.AllowlistEntry], random: object
) -> None:
    wanted = firewall.rules_for(allowlist, ports=PORTS)
    pieces = []
    for rule in wanted.inbound:
        assert rule.ports is not None
        for port in rule.ports.split(","):
            pieces += [(port, models.Addresses(ipv4=(text,))) for text in rule.addresses.ipv4]
            long = [ipaddress.ip_network(text).exploded.upper() for text in rule.addresses.ipv6]
            pieces += [(port, models.Addresses(ipv6=(text,))) for text in long]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    rules = tuple(models.Rule(action="ACCEPT", protocol="TCP", ports=p, addresses=a) for p, a in pieces)
    assert firewall.differs(wanted, live(models.FirewallRules(inbound=rules))) == ()


@hypothesis.given(entries, entries)
def test_drift_is_reported_exactly_if_the_admitted_addresses_differ(
    first: list[v1alpha1.AllowlistEntry], second: list[v1alpha1.AllowlistEntry]
) -> None:
    one, two = firewall.rules_for(first, ports=PORTS), firewall.rules_for(second, ports=PORTS)
    same = all(wanted_addresses(first, t) == wanted_addresses(second, t) for t in ("Chat", "API"))
    assert (firewall.differs(one, live(two)) == ()) == same


def test_an_empty_allowlist_is_no_rule_and_drop() -> None:
    assert firewall.rules_for([], ports=PORTS).to_wire() == {
        "inbound": [],
        "inbound_policy": "DROP",
        "outbound": [],
        "outbound_policy": "ACCEPT",
    }


@pytest.mark.parametrize(
    ("sentence", "allowlist", "ports", "expected"),
    [
        (
            "both targets share one rule",
            [entry("203.0.113.4/32")],
            PORTS,
            [("3000,8000", ("203.0.113.4/32",), ())],
        ),
        (
            "families share a rule; an absent family is left out",
            [entry("2001:db8::/48"), entry("203.0.113.0/24")],
            PORTS,
            [("3000,8000", ("203.0.113.0/24",), ("2001:db8::/48",))],
        ),
        (
            "halves for one target each join where they meet, and are never wider",
            [
                entry("203.0.113.0/25", "API"),
                entry("203.0.113.128/25", "API"),
                entry("203.0.113.0/25", "Chat"),
            ],
            PORTS,
            [("3000", ("203.0.113.0/25",), ()), ("8000", ("203.0.113.0/24",), ())],
        ),
        (
            "a network that two entries give to one target each counts as given to both",
            [entry("203.0.113.0/24", "API"), entry("203.0.113.0/24", "Chat")],
            PORTS,
            [("3000,8000", ("203.0.113.0/24",), ())],
        ),
        (
            "without a chat its port is closed",
            [entry("203.0.113.0/24"), entry("198.51.100.0/24", "Chat")],
            {"API": 8000},
            [("8000", ("203.0.113.0/24",), ())],
        ),
        ("without any port all is closed", [entry("203.0.113.0/24")], {}, []),
        (
            "everybody is admitted only if the user says so",
            [entry("0.0.0.0/0", "API")],
            PORTS,
            [("8000", ("0.0.0.0/0",), ())],
        ),
    ],
)
def test_rules_for(
    sentence: str,
    allowlist: list[v1alpha1.AllowlistEntry],
    ports: dict[v1alpha1.Target, int],
    expected: list[tuple[str, tuple[str, ...], tuple[str, ...]]],
) -> None:
    assert shape(firewall.rules_for(allowlist, ports=ports)) == expected, sentence


def scattered(count: int) -> list[v1alpha1.AllowlistEntry]:
    """Single addresses of which no two join."""
    return [entry(f"{ipaddress.ip_address(0x0A000000 + 2 * number)}/32", "API") for number in range(count)]


def test_a_full_firewall_holds_6375_networks() -> None:
    rules = firewall.rules_for(scattered(25 * 255), ports=PORTS)
    assert [len(rule.addresses.ipv4) for rule in rules.inbound] == [255] * 25


def test_one_network_more_is_refused_with_numbers_and_a_remedy() -> None:
    with pytest.raises(
        errors.TooManyNetworks, match=r"6376 networks in 26 firewall rules.*Use fewer or larger"
    ):
        firewall.rules_for(scattered(25 * 255 + 1), ports=PORTS)


def test_ten_thousand_addresses_take_less_than_a_second_of_processor_time() -> None:
    allowlist = [entry(f"{ipaddress.ip_address(0x0A000000 + number)}/32") for number in range(10_000)]
    began = time.process_time()
    rules = firewall.rules_for(allowlist, ports=PORTS)
    assert firewall.is_within(rules, allowlist, ports=PORTS)
    assert firewall.differs(rules, live(rules)) == ()
    assert time.process_time() - began < 1.0
    assert sum(len(rule.addresses.ipv4) for rule in rules.inbound) == 5


NOT_NETWORKS = [
    "203.0.113.4/24",
    "2001:db8::1/64",
    "203.0.113.0/33",
    "fe80::1%eth0/128",
    "office",
    "",
    "0/0",
    "1/8 ",
    "203.0.113.4",
    "::ffff:203.0.113.0/120",
]


@pytest.mark.parametrize("cidr", NOT_NETWORKS)
def test_what_is_no_network_is_named_and_admits_nobody(cidr: str) -> None:
    assert gateway_allowlist.parse(cidr) is None
    bad = v1alpha1.AllowlistEntry.model_construct(cidr=cidr, to=BOTH)
    assert firewall.rules_for([bad], ports=PORTS).inbound == ()


def test_i1_a_bad_entry_does_not_keep_the_others_from_taking_effect() -> None:
    rules = firewall.rules_for([entry("203.0.113.4/24"), entry("198.51.100.0/24")], ports=PORTS)
    assert shape(rules) == [("3000,8000", ("198.51.100.0/24",), ())]


@pytest.mark.parametrize(
    ("cidr", "network"),
    [
        ("203.0.113.4/32", "203.0.113.4/32"),
        ("::/0", "::/0"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
    ],
)
def test_networks_are_read_as_the_other_layers_read_them(cidr: str, network: str) -> None:
    assert str(gateway_allowlist.parse(cidr)) == network
    (found,) = firewall.allowed([entry(cidr)], ports={"API": 8000})[8000]
    assert str(found) == network


def rule(**fields: object) -> models.Rule:
    base = {
        "action": "ACCEPT",
        "protocol": "TCP",
        "ports": "8000",
        "addresses": {"ipv4": ["203.0.113.0/24"]},
        "label": "x",
    }
    return models.Rule.model_validate(base | fields)


DRIFTS = [
    ("host bits mean the network around them", rule(addresses={"ipv4": ["203.0.113.77/24"]}), True, ()),
    ("blanks after commas are harmless", rule(ports="8000, 8000"), True, ()),
    ("a null family is harmless", rule(addresses={"ipv4": ["203.0.113.0/24"], "ipv6": None}), True, ()),
    (
        "all ports",
        rule(ports=None),
        False,
        ("rule 1 (x) was not written by the operator and may admit anybody",),
    ),
    ("another protocol", rule(protocol="UDP"), False, ("may admit anybody",)),
    ("a protocol of a newer API", rule(protocol="ALL"), False, ("may admit anybody",)),
    ("an action of a newer API", rule(action="ALLOW"), False, ("may admit anybody",)),
    ("a reference to a rule set", models.Rule(ruleset=7), False, ("may admit anybody",)),
    ("a rule with a rule set beside its fields", rule(ruleset=7), False, ("may admit anybody",)),
    ("a prefix list", rule(addresses={"ipv4": ["pl::vendor"]}), False, ("may admit anybody",)),
    ("no addresses", rule(addresses={}), False, ("may admit anybody",)),
    ("a wide range of ports", rule(ports="1-65535"), False, ("may admit anybody",)),
    ("a range of ports", rule(ports="8000-8002"), False, ("port 8001 is open to 203.0.113.0/24",)),
    (
        "a wider network",
        rule(addresses={"ipv4": ["203.0.112.0/23"]}),
        False,
        ("port 8000 is open to 203.0.112.0/23",),
    ),
    (
        "a drop rule admits nothing, but is not ours",
        rule(action="DROP"),
        True,
        ("rule 1 (x) was not written",),
    ),
    (
        "a narrower network is within, but drift",
        rule(addresses={"ipv4": ["203.0.113.0/25"]}),
        True,
        ("is closed to",),
    ),
]


@pytest.mark.parametrize(("sentence", "found", "within", "words"), DRIFTS, ids=[one[0] for one in DRIFTS])
def test_drift_of_one_rule(sentence: str, found: models.Rule, within: bool, words: tuple[str, ...]) -> None:
    allowlist = [entry("203.0.113.0/24", "API")]
    rules = models.FirewallRules(inbound=(found,))
    drift = firewall.differs(firewall.rules_for(allowlist, ports=PORTS), live(rules))
    assert firewall.is_within(rules, allowlist, ports=PORTS) == within, sentence
    assert bool(drift) == bool(words)
    for word in words:
        assert any(word in one for one in drift), drift


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inbound_policy": "ACCEPT"}, "the inbound policy is ACCEPT"),
        ({"outbound_policy": "DROP"}, "the outbound policy is DROP"),
        ({"outbound": (rule(),)}, "there are 1 outbound rules"),
    ],
)
def test_drift_of_policies(changes: dict[str, object], words: str) -> None:
    wanted = firewall.rules_for([], ports=PORTS)
    assert firewall.differs(wanted, live(wanted.model_copy(update=changes))) == (words,)


def test_i1_an_open_policy_is_never_within() -> None:
    assert not firewall.is_within(
        models.FirewallRules(inbound_policy="ACCEPT"), [entry("0.0.0.0/0")], ports=PORTS
    )


def test_a_disabled_firewall_is_drift_even_with_equal_rules() -> None:
    wanted = firewall.rules_for([], ports=PORTS)
    assert firewall.differs(wanted, live(wanted, status="disabled")) == (
        "the firewall is disabled, which lets everything pass",
    )


UID = "6f1c2a3e-0d4b-4a5c-9e8f-112233445566"


@hypothesis.given(st.text(max_size=80), st.text(max_size=80))
def test_label_and_tags_fit_the_api_for_any_id(cluster: str, uid: str) -> None:
    label = firewall.firewall_label(cluster, uid)
    assert re.fullmatch(r"[a-zA-Z]((?!--|__|\.\.)[a-zA-Z0-9-_.])+", label)
    assert 3 <= len(label) <= 32
    tags = firewall.ownership_tags(cluster, uid)
    for tag in tags:
        assert 3 <= len(tag) <= 50
        assert "," not in tag, "tags travel in a comma list"
    assert firewall.is_ours(tags, cluster_id=cluster, uid=uid)


def test_tags_are_legible_for_ordinary_ids() -> None:
    assert firewall.ownership_tags("584692", UID) == ("ai-sandbox", "aisb-cluster-584692", f"aisb-uid-{UID}")
    assert firewall.owner_uids(["x", f"aisb-uid-{UID}"]) == (UID,)


def test_the_label_never_changes() -> None:
    assert firewall.firewall_label("584692", UID) == "aisb-e9346045ffb8403cf33d180b"


@pytest.mark.parametrize(
    ("sentence", "tags"),
    [
        ("another cluster", firewall.ownership_tags("2", UID)),
        ("another sandbox", firewall.ownership_tags("1", "other")),
        ("only the sandbox", (firewall.uid_tag(UID),)),
        ("only the cluster", (firewall.cluster_tag("1"),)),
        ("only the human tag", ("ai-sandbox",)),
        ("none", ()),
    ],
)
def test_i2_an_object_is_ours_only_with_both_tags(sentence: str, tags: tuple[str, ...]) -> None:
    assert not firewall.is_ours(tags, cluster_id="1", uid=UID), sentence
