"""A network that an allowlist names twice admits what its entries admit together, in every layer (I1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.api import names, v1alpha1, validation
from ai_sandbox_operator.desired import allowlist, envoy_routes, network
from ai_sandbox_operator.linode import firewall
from ai_sandbox_operator.reconcile import inputs
from unit.desired import samples

Entry = tuple[str, tuple[v1alpha1.Target, ...]]

PORTS: dict[v1alpha1.Target, int] = {"API": names.PORT_API, "Chat": names.PORT_CHAT}
_NETWORKS = ("203.0.113.0/25", "203.0.113.4/32", "198.51.100.0/24", "2001:db8::/32", "2001:0DB8:0::/32")
_TARGETS: st.SearchStrategy[tuple[v1alpha1.Target, ...]] = st.sampled_from(
    [("Chat",), ("API",), ("Chat", "API")]
)
_ENTRIES = st.lists(st.tuples(st.sampled_from(_NETWORKS), _TARGETS), max_size=8)
KNOWN = dataclasses.replace(samples.EXPOSED, model_cached=True)


def sandbox(entries: list[Entry]) -> v1alpha1.AISandbox:
    given = [{"cidr": cidr, "to": list(to)} for cidr, to in entries]
    return samples.sandbox({"access": {"exposure": "NodeBalancer", "allowlist": given}})


def together(entries: list[Entry]) -> list[Entry]:
    """Each network once, with the targets of all of its entries."""
    found: dict[str, tuple[v1alpha1.Target, ...]] = {}
    for cidr, to in entries:
        spelled = str(validation.network(cidr))
        found[spelled] = tuple(sorted({*found.get(spelled, ()), *to}))
    return list(found.items())


def layers(entries: list[Entry]) -> dict[str, Any]:
    made = sandbox(entries)
    return {
        "firewall": firewall.rules_for(made.spec.access.allowlist, ports=PORTS),
        "policies": [child.manifest for child in network.render(made, KNOWN)],
        "gateway": envoy_routes.configurations(made, KNOWN),
        "revision": allowlist.access_revision(made),
    }


@hypothesis.given(_ENTRIES)
def test_i1_entries_of_one_network_mean_what_one_entry_with_all_targets_means(entries: list[Entry]) -> None:
    assert validation.violations(sandbox(entries)) == ()
    assert layers(entries) == layers(together(entries))


def test_i1_without_the_last_entry_of_a_network_no_layer_admits_it() -> None:
    twice: list[Entry] = [
        ("198.51.100.0/24", ("API",)),
        ("203.0.113.4/32", ("API",)),
        ("198.51.100.0/24", ("API",)),
    ]
    assert layers(twice[:2]) == layers(twice[1:][::-1]) == layers(twice)
    assert layers(twice[1:2])["firewall"] != layers(twice)["firewall"]
    assert "198.51.100" not in str(layers(twice[1:2]))


@pytest.mark.parametrize(
    ("entries", "notice"),
    [
        ([], ()),
        ([("203.0.113.4/32", ("API",)), ("203.0.113.5/32", ("API",))], ()),
        (
            [("203.0.113.4/32", ("API",)), ("203.0.113.4/32", ("Chat",))],
            (
                "the allowlist's entries 0 and 1 both name 203.0.113.4/32: "
                "each counts, and only without any is it turned away",
            ),
        ),
        (
            [("2001:db8::/32", ("API",)), ("2001:0DB8:0::/32", ("API",)), ("2001:db8::/32", ("API",))],
            (
                "the allowlist's entries 0 and 1 both name 2001:db8::/32, and 1 more names a network again: "
                "each counts, and only without any is it turned away",
            ),
        ),
    ],
)
def test_a_network_that_is_named_again_is_a_notice(entries: list[Entry], notice: tuple[str, ...]) -> None:
    assert inputs.notices(sandbox(entries)) == notice
