"""Calico (LKE) and Cilium (LKE Enterprise) read addresses differently: exactly here, and no more."""

from __future__ import annotations

import ipaddress

import pytest

from networkpolicy import evaluator, expectation, grid, universe
from networkpolicy.expectation import Case
from networkpolicy.grid import GRID
from networkpolicy.universe import NODES, PODS, PORTS, Endpoint, Matrix, Port

_V4_NODES = frozenset(node for node in NODES if ":" not in node)
_PRIVATE_NODES = frozenset(node for node in NODES if node.startswith("192.168."))
_PUBLIC_NODES = frozenset(NODES) - _PRIVATE_NODES
#: For each case: who reaches the gateway on Calico and not on Cilium, besides those in general below.
#: Pods are all pods of the cluster that a policy of the egress does not hold back.
ACCEPTED: dict[str, dict[str, tuple[frozenset[str], tuple[int, ...]]]] = {
    "all of v4": {"pods": (frozenset(), (3444, 8444)), "nodes": (_V4_NODES, (3444, 8444))},
    "all of both": {"pods": (frozenset(), (3444, 8444)), "nodes": (frozenset(NODES), (3444, 8444))},
    "private networks": {"pods": (frozenset(), (3444, 8444)), "nodes": (_PRIVATE_NODES, (8444,))},
    "pods by address": {"pods": (frozenset(), (8444,))},
}


def _tcp(ports: tuple[int, ...]) -> frozenset[Port]:
    return frozenset(("TCP", port) for port in ports)


def _accepted(name: str, everybody: tuple[Endpoint, ...]) -> dict[tuple[Endpoint, Endpoint], frozenset[Port]]:
    case, table = GRID[name], ACCEPTED.get(name, {})
    result: dict[tuple[Endpoint, Endpoint], frozenset[Port]] = {}
    parts = {pod: part for pod in PODS if (part := expectation.part_of(pod))}
    nodes = {one.address: one for one in everybody if one.kind == "node"}
    for pod, (sandbox, component) in parts.items():
        # Nodes have public addresses, which to Calico are the internet.
        spec = case.of(sandbox)
        if component == "fetch" or (
            component == "chat" and expectation.has_chat(spec) and expectation.single_sign_on(spec)
        ):
            result |= {(pod, nodes[address]): _tcp((443,)) for address in _PUBLIC_NODES}
        if (sandbox, component) == (universe.SANDBOX, "gateway"):
            strangers = [other for other in PODS if other not in parts]
            if "pods" in table:
                result |= {(other, pod): _tcp(table["pods"][1]) for other in strangers}
            if "nodes" in table:
                addresses, ports = table["nodes"]
                result |= {(nodes[address], pod): _tcp(ports) for address in addresses}
    return result


def _more_on_calico(calico: Matrix, cilium: Matrix) -> dict[tuple[Endpoint, Endpoint], frozenset[Port]]:
    found = {pair: calico.get(pair, PORTS) - cilium.get(pair, PORTS) for pair in {*calico, *cilium}}
    return {pair: ports for pair, ports in found.items() if ports}


@pytest.mark.parametrize("name", GRID)
def test_calico_admits_exactly_the_accepted_differences_beyond_cilium(name: str) -> None:
    everybody, policies = grid.everybody(GRID[name]), grid.all_policies(GRID[name])
    calico = evaluator.evaluate(policies, everybody, evaluator.CALICO)
    cilium = evaluator.evaluate(policies, everybody, evaluator.CILIUM)
    assert not universe.additions(calico, cilium)
    accepted = _accepted(name, everybody)
    found = _more_on_calico(calico, cilium)
    assert {(str(a), str(b)): ports for (a, b), ports in found.items()} == {
        (str(a), str(b)): ports for (a, b), ports in accepted.items()
    }


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("reading", [evaluator.CALICO, evaluator.CILIUM], ids=["calico", "cilium"])
def test_each_plugin_admits_what_the_specification_says_in_its_reading(
    name: str, reading: evaluator.Reading
) -> None:
    case = GRID[name]
    everybody = grid.everybody(case)
    wanted = expectation.matrix(case, everybody, expectation.Addresses(reading.pods, reading.nodes))
    found = evaluator.evaluate(grid.all_policies(case), everybody, reading)
    assert not universe.differences(wanted, found)


def test_the_plugins_differ_only_where_an_entry_holds_addresses_of_the_cluster() -> None:
    """A list of addresses outside, which is what people write, means the same on both."""
    inside = [
        ipaddress.ip_address(one.address)
        for one in (*PODS, *grid.everybody(GRID["default"]))
        if one.kind != "outside"
    ]
    for name, case in GRID.items():
        listed = [ipaddress.ip_network(cidr) for cidr in _listed(case)]
        assert any(address in network for network in listed for address in inside) == (name in ACCEPTED), name


def _listed(case: Case) -> list[str]:
    return [entry["cidr"] for entry in case.spec["access"].get("allowlist", [])]
