"""The rendered policies admit exactly what the specification says: judged by an independent program."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import render
from networkpolicy import evaluator, expectation, grid, oracle, universe
from networkpolicy.grid import GRID
from networkpolicy.universe import BOTH, PODS, PORTS, Endpoint


@pytest.mark.parametrize("name", GRID)
def test_the_independent_program_finds_exactly_the_expected_connections(name: str) -> None:
    case = GRID[name]
    everybody, policies = grid.everybody(case), oracle.spell_out(grid.all_policies(case))
    sides = [oracle.one_sided(policies, side) for side in BOTH]
    answers = oracle.ask([policies, *sides])
    for answer, judged in zip(answers, (BOTH, *((side,) for side in BOTH)), strict=True):
        # A universe that was not read looks open, or closed, as the case may be.
        assert (answer.endpoints, answer.namespaces) == (len(PODS), len(universe.NAMESPACES))
        wanted = expectation.matrix(case, everybody, sides=judged)
        assert not universe.differences(wanted, oracle.matrix(answer, everybody)), judged


@pytest.mark.parametrize("name", GRID)
def test_the_evaluator_finds_exactly_the_expected_connections(name: str) -> None:
    case = GRID[name]
    everybody, policies = grid.everybody(case), grid.all_policies(case)
    for judged in (BOTH, *((side,) for side in BOTH)):
        wanted = expectation.matrix(case, everybody, sides=judged)
        assert not universe.differences(wanted, evaluator.evaluate(policies, everybody, sides=judged)), judged


def test_without_policies_everything_is_open_and_the_comparison_says_so() -> None:
    case = GRID["default"]
    everybody = grid.everybody(case)
    (answer,) = oracle.ask([[]])
    wanted = expectation.matrix(case, everybody)
    assert oracle.matrix(answer, everybody) == {} == evaluator.evaluate([], everybody)
    assert len(universe.differences(wanted, {})) == len(wanted) > 1000


@pytest.mark.parametrize(
    ("source", "destination", "port", "open_to"),
    [
        # One connection of each kind, so that the expectation itself is seen to say yes and no.
        ("team-a/demo-gateway", "team-a/demo-engine", 8000, True),
        ("team-a/demo-gateway", "team-a/other-engine", 8000, False),
        ("team-a/demo-gateway", "team-a/demo-chat", 8080, True),
        ("team-a/demo-chat", "team-a/demo-engine", 8000, True),
        ("team-a/demo-chat", "151.101.1.6", 443, True),
        ("team-a/demo-fetch", "2a04:4e42::6", 443, True),
        ("team-a/demo-fetch", "169.254.169.254", 443, False),
        ("team-a/demo-fetch", "10.128.0.1", 443, False),
        ("team-a/demo-engine", "151.101.1.6", 443, False),
        ("team-a/demo-engine", "kube-system/kube-dns", 53, False),
        ("team-a/demo-gateway", "kube-system/coredns", 53, True),
        ("team-a/demo-gateway", "151.101.1.6", 443, False),
        ("192.168.255.7", "team-a/demo-gateway", 8443, True),
        ("192.168.254.255", "team-a/demo-gateway", 8443, False),
        ("203.0.113.4", "team-a/demo-gateway", 8443, False),
        ("203.0.113.4", "team-a/demo-gateway", 8444, True),
        ("203.0.113.200", "team-a/demo-gateway", 8444, False),
        ("team-a/front", "team-a/demo-gateway", 8444, True),
        ("team-a/front", "team-a/demo-gateway", 3444, False),
        ("team-a/front", "team-a/demo-engine", 8000, False),
        ("team-b/back", "team-a/demo-gateway", 3444, True),
        ("team-b/copy-gateway", "team-a/demo-engine", 8000, False),
        ("ai-sandbox-system/operator", "team-a/demo-gateway", 9902, True),
        ("ai-sandbox-system/operator", "team-a/demo-engine", 8000, True),
        ("ai-sandbox-system/operator", "team-a/demo-chat", 8080, False),
        ("team-a/operator-lookalike", "team-a/demo-gateway", 9902, False),
        ("team-a/operator-lookalike", "team-a/demo-engine", 8000, False),
        ("team-b/operator-lookalike", "team-a/demo-gateway", 9902, False),
    ],
)
def test_the_expectation_is_what_people_expect(
    source: str, destination: str, port: int, open_to: bool
) -> None:
    case = GRID["everything"]
    everybody = {one.name: one for one in grid.everybody(case)}
    found = expectation.connections(case, everybody[source], everybody[destination])
    assert (("TCP", port) in found) is open_to


def _workloads() -> Iterator[dict[str, Any]]:
    case = GRID["everything"]
    for child in render.render(grid.sandbox(universe.SANDBOX, case.spec), grid.known(case)):
        if child.kind in {"Deployment", "Job"}:
            yield child.manifest["spec"]["template"]


def test_the_pods_of_the_universe_carry_the_labels_of_the_rendered_workloads() -> None:
    rendered = {tuple(sorted(template["metadata"]["labels"].items())) for template in _workloads()}
    assumed = {
        tuple(sorted(pod.labels))
        for pod in PODS
        if (pod.namespace, pod.name.rpartition("-")[0]) == (universe.NAMESPACE, "team-a/demo")
        and not pod.name.endswith(("-stray", "-second"))
    }
    assert assumed == rendered
    assert len(rendered) == len(universe.COMPONENTS)


def test_every_port_that_is_served_is_a_port_of_interest() -> None:
    served = {
        port["containerPort"]
        for template in _workloads()
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
    }
    named = {value for name, value in vars(names).items() if name.startswith("PORT_")}
    assert {8000, 8080, 8443} <= served
    assert {("TCP", port) for port in served | named} <= PORTS


def test_addresses_that_python_calls_not_global_are_closed_but_for_the_documented_few() -> None:
    """Another list of special networks, by other authors, against the one that is used here."""
    harmless = [
        ipaddress.ip_network(cidr)
        for cidr in (
            *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),  # examples
            *(
                "2001::/23",
                "2002::/16",
                "100::/64",
                "192.88.99.0/24",
                "fec0::/10",
            ),  # tunnels, discarded, retired
        )
    ]
    special = [f"{a}.{b}.0.1" for a in range(256) for b in range(0, 256, 3)]
    special += [f"{high:x}:{low:x}::1" for high in range(0, 65536, 61) for low in (0, 0xDB8, 0xFFFF)]
    everybody = [*(Endpoint(text, text, "outside") for text in special), *universe.endpoints()]
    checked = 0
    for one in everybody:
        address = ipaddress.ip_address(one.address)
        if one.kind == "outside" and not (address.is_global and not address.is_multicast):
            checked += 1
            opened = bool(expectation.internet(one, expectation.Addresses()))
            assert not opened or any(address in network for network in harmless), one
    assert checked > 1000


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("All connections", PORTS),
        ("{protocols:TCP,dst_ports:80,8443-8444}", {("TCP", 80), ("TCP", 8443), ("TCP", 8444)}),
        ("{protocols:TCP, UDP,dst_ports:53}", {("TCP", 53), ("UDP", 53)}),
        ("{protocols:SCTP}", {port for port in PORTS if port[0] == "SCTP"}),
        ("{protocols:TCP,dst_ports:53},{protocols:UDP,dst_ports:22}", {("TCP", 53), ("UDP", 22)}),
        ("All but {protocols:TCP,dst_ports:53}", PORTS - {("TCP", 53)}),
        ("{protocols:all but TCP, UDP}", {port for port in PORTS if port[0] == "SCTP"}),
    ],
)
def test_the_words_of_the_program_are_understood(text: str, admitted: set[universe.Port]) -> None:
    assert oracle.ports(text) == admitted


@pytest.mark.parametrize(
    "text", ["", "No connections", "{methods:GET}", "{protocols:TCP,src_ports:5}", "TCP 80"]
)
def test_other_words_of_the_program_are_refused(text: str) -> None:
    with pytest.raises(oracle.NotUnderstood):
        oracle.ports(text)


def test_the_program_still_reads_exists_in_the_own_namespace_only() -> None:
    """Once this fails, the program is right and `oracle.spell_out` can go."""
    case = GRID["expressions"]
    everybody, policies = grid.everybody(case), grid.all_policies(case)
    (answer,) = oracle.ask([policies])
    differences = universe.differences(expectation.matrix(case, everybody), oracle.matrix(answer, everybody))
    assert {line.split(" ")[0] for line in differences} == {
        "team-b/front",
        "team-b/batch",
        "team-b-test/front",
        "team-b-test/batch",
    }
    assert all("too much nothing" in line for line in differences)
