"""The data path by itself: what a NodeBalancer and its Cloud Firewall do to connections, with small backends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab import datapath
from lab.datapath import account, rules
from lab.envoy.process import proxy_header
from lab.linode.server import LinodeSimulatorThread
from lab.linode.state import CLOSED

pytestmark = pytest.mark.skipif(datapath.missing() is not None, reason=str(datapath.missing()))

OFFICE, OFFICE_6 = "203.0.113.9", "2001:db8:1::9"
STRANGER, STRANGER_6 = "198.51.100.7", "2001:db8:2::7"
PORT, OTHER_PORT = 3000, 8000
BACKENDS = {"one": 31001, "two": 31002}
SOON_SECONDS = 1.0
_BACKEND = pathlib.Path(datapath.__file__).with_name("backend.py")


def rule(*addresses: str, ports: str | None = str(PORT), action: str = "ACCEPT") -> dict[str, Any]:
    """An inbound rule as Linode's API takes it."""
    families = {
        "ipv4": [one for one in addresses if ":" not in one],
        "ipv6": [one for one in addresses if ":" in one],
    }
    found: dict[str, Any] = {
        "action": action,
        "protocol": "TCP",
        "label": "test",
        "addresses": {name: some for name, some in families.items() if some},
    }
    return found | ({"ports": ports} if ports else {})


@dataclasses.dataclass
class World:
    """An account with one NodeBalancer, its firewall, a node with backends, and clients."""

    linode: LinodeSimulatorThread
    internet: datapath.Internet
    node: datapath.Namespace
    firewall: int
    balancer: int
    ipv4: str
    ipv6: str

    @property
    def office(self) -> datapath.Client:
        return self.internet.clients["office"]

    @property
    def stranger(self) -> datapath.Client:
        return self.internet.clients["stranger"]

    def admit(self, *found: dict[str, Any]) -> None:
        """Replace the firewall's rules and wait until the data path keeps to them."""
        self.linode.edit(lambda state: state.set_rules(self.firewall, {"inbound": [*found]}))
        self.settle()

    def settle(self) -> None:
        self.internet.wait(self.linode.edit(lambda state: state.revision))


def line(host: str, port: int = PORT, timeout: float = 0.5) -> datapath.Request:
    """A line to a backend."""
    return datapath.Request(host, port, raw=b"hello\n", timeout=timeout)


def config(
    port: int, nodes: Mapping[str, int], check: str = "connection", proxy: str = "v2"
) -> dict[str, Any]:
    """One port of a NodeBalancer and the node's ports that it leads to."""
    return {
        "port": port,
        "protocol": "tcp",
        "proxy_protocol": proxy,
        "check": check,
        "check_interval": 2,
        "check_timeout": 1,
        "check_attempts": 1,
        "nodes": [{"label": name, "address": f"10.250.0.1:{number}"} for name, number in nodes.items()],
    }


@contextlib.contextmanager
def backend(node: datapath.Place, name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-S", str(_BACKEND), name, "10.250.0.1", str(BACKENDS[name]), *options]
    with subprocess.Popen(node.command(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{name}\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        linode = stack.enter_context(LinodeSimulatorThread())
        node = datapath.Namespace()
        stack.callback(node.close)
        node.ip("address add 10.250.0.1/32 dev lo")
        firewall = linode.edit(lambda state: state.create_firewall("data-path")).id
        balancer = linode.edit(
            lambda state: state.create_nodebalancer(
                "data-path", firewall, configs=[config(PORT, BACKENDS), config(OTHER_PORT, {"two": 31002})]
            )
        )
        clients = {"office": (OFFICE, OFFICE_6), "stranger": (STRANGER, STRANGER_6)}
        internet = stack.enter_context(datapath.Internet(linode.sim.base, datapath.Node(node), clients))
        for name in BACKENDS:
            stack.enter_context(backend(node, name, "--proxy"))
        assert balancer.ipv6 is not None
        found = World(linode, internet, node, firewall, balancer.id, balancer.ipv4, balancer.ipv6)
        found.admit(rule(OFFICE + "/32"))
        eventually(lambda: found.office.ask(line(found.ipv4)).outcome == "answer", 5.0)
        yield found


@pytest.fixture(autouse=True)
def only_the_office(world: World) -> None:
    """Every test begins with the office admitted to one port, on both families."""
    world.linode.edit(lambda state: state.set_rules(world.firewall, CLOSED))
    world.admit(rule(OFFICE + "/32", OFFICE_6 + "/128"))


def eventually(condition: Callable[[], bool], seconds: float = SOON_SECONDS) -> float:
    """Wait until true; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "not true in time"
    return time.monotonic() - started


def test_an_admitted_client_reaches_a_backend(world: World) -> None:
    assert world.office.ask(line(world.ipv4)).outcome == "answer"


def test_a_client_that_no_rule_admits_waits_in_vain(world: World) -> None:
    result = world.stranger.ask(line(world.ipv4))
    assert (result.outcome, result.stage) == ("timed out", "connect")
    assert result.seconds >= 0.5


def test_a_port_that_no_rule_names_is_silent_for_the_admitted_too(world: World) -> None:
    assert world.office.ask(line(world.ipv4, OTHER_PORT)).outcome == "timed out"


def test_an_empty_firewall_admits_nobody(world: World) -> None:
    world.admit()
    assert {one.outcome for one in world.office.ask_all([line(world.ipv4), line(world.ipv6)])} == {
        "timed out"
    }


def test_both_families_are_judged_by_their_own_addresses(world: World) -> None:
    assert world.office.ask(line(world.ipv6)).outcome == "answer"
    assert world.stranger.ask(line(world.ipv6)).outcome == "timed out"
    world.admit(rule(OFFICE + "/32"))
    assert world.office.ask(line(world.ipv6)).outcome == "timed out"
    assert world.office.ask(line(world.ipv4)).outcome == "answer"


def test_the_first_rule_that_fits_wins(world: World) -> None:
    world.admit(rule("203.0.113.0/24", action="DROP"), rule("0.0.0.0/0"))
    assert world.office.ask(line(world.ipv4)).outcome == "timed out"
    assert world.stranger.ask(line(world.ipv4)).outcome == "answer"


def test_lists_and_ranges_of_ports_are_understood(world: World) -> None:
    world.admit(rule(OFFICE + "/32", ports="443, 2999-3001"))
    assert world.office.ask(line(world.ipv4)).outcome == "answer"
    assert world.office.ask(line(world.ipv4, OTHER_PORT)).outcome == "timed out"


@pytest.mark.parametrize("change", ["disable_firewall", "detach", "delete_firewall"])
def test_without_an_enabled_firewall_everybody_gets_in(world: World, change: str) -> None:
    """What the operator must never let happen: Linode's default for a NodeBalancer is open."""
    spare = world.linode.edit(lambda state: state.create_firewall("spare")).id
    other = world.linode.edit(
        lambda state: state.create_nodebalancer("other", spare, configs=[config(PORT, BACKENDS)])
    )
    try:
        world.settle()
        assert world.stranger.ask(line(other.ipv4)).outcome == "timed out"
        target = other.id if change == "detach" else spare
        world.linode.edit(lambda state: getattr(state, change)(target))
        eventually(lambda: world.stranger.ask(line(other.ipv4)).outcome == "answer")
        assert world.stranger.ask(line(world.ipv4)).outcome == "timed out", "the other one has a firewall"
    finally:
        world.linode.edit(lambda state: state.delete_nodebalancer(other.id))
        if change != "delete_firewall":
            world.linode.edit(lambda state: state.delete_firewall(spare))


def test_an_edit_of_the_rules_acts_within_a_second_both_ways(world: World) -> None:
    quick = line(world.ipv4, timeout=0.1)
    inbound = [rule(STRANGER + "/32")]
    world.linode.edit(lambda state: state.set_rules(world.firewall, {"inbound": inbound}))
    eventually(lambda: world.stranger.ask(quick).outcome == "answer")
    assert world.office.ask(quick).outcome == "timed out"
    world.linode.edit(lambda state: state.set_rules(world.firewall, {"inbound": []}))
    eventually(lambda: world.stranger.ask(quick).outcome == "timed out")


@pytest.mark.parametrize("family", [4, 6])
def test_the_backend_gets_the_clients_address_in_a_proxy_header(world: World, family: int) -> None:
    host, client = (world.ipv4, OFFICE) if family == 4 else (world.ipv6, OFFICE_6)
    seen = json.loads(world.office.ask(line(host)).body)
    assert bytes.fromhex(seen["header"]) == proxy_header(client)
    assert seen["header"].startswith("0d0a0d0a000d0a515549540a21" + ("11000c" if family == 4 else "210024"))
    packed = socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, client)
    assert bytes.fromhex(seen["header"])[16 : 16 + len(packed)] == packed


def test_the_backend_is_called_from_the_range_of_nodebalancers(world: World) -> None:
    assert json.loads(world.office.ask(line(world.ipv4)).body)["peer"] == datapath.NODEBALANCER_SOURCE


def test_a_port_without_proxy_protocol_gets_the_clients_bytes_alone(world: World) -> None:
    with backend_without_header(world) as host:
        seen = json.loads(world.office.ask(line(host)).body)
        assert (seen["header"], seen["line"]) == ("", "hello")


@contextlib.contextmanager
def backend_without_header(world: World) -> Iterator[str]:
    """A further NodeBalancer of the same firewall whose port has no PROXY protocol; its address."""
    nodes = {"plain": 31003}
    other = world.linode.edit(
        lambda state: state.create_nodebalancer(
            "plain", world.firewall, configs=[config(PORT, nodes, "none", "none")]
        )
    )
    BACKENDS["plain"] = nodes["plain"]
    try:
        with backend(world.node, "plain"):
            world.settle()
            yield other.ipv4
    finally:
        del BACKENDS["plain"]
        world.linode.edit(lambda state: state.delete_nodebalancer(other.id))


def test_connections_are_spread_over_the_backends(world: World) -> None:
    answers = world.office.ask_all([line(world.ipv4)] * 6)
    assert {json.loads(one.body)["backend"] for one in answers} == {"one", "two"}


def test_a_backend_that_fails_its_check_is_left_out(world: World) -> None:
    """A connection attempt to an address that nobody has takes its time, which clients must not notice."""
    nowhere = {"label": "nowhere", "address": f"10.250.0.99:{BACKENDS['two']}"}
    half = config(PORT, {"one": BACKENDS["one"]})
    half["nodes"].append(nowhere)
    other = world.linode.edit(lambda state: state.create_nodebalancer("half", world.firewall, configs=[half]))
    try:
        world.settle()
        eventually(lambda: world.office.ask(line(other.ipv4)).outcome == "answer")
        answers = world.office.ask_all([line(other.ipv4)] * 6)
        assert {one.outcome for one in answers} == {"answer"}
    finally:
        world.linode.edit(lambda state: state.delete_nodebalancer(other.id))


def test_an_open_connection_outlives_the_rule_that_admitted_it(world: World) -> None:
    program = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)\n"
        "f = s.makefile('rwb')\n"
        "for text in sys.stdin:\n"
        "    f.write(text.encode()); f.flush()\n"
        "    print(f.readline().decode().strip(), flush=True)\n"
    )
    command = world.office.place.command([sys.executable, "-I", "-S", "-c", program, world.ipv4, str(PORT)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def said(text: str) -> str:
            print(text, file=process.stdin, flush=True)
            assert process.stdout is not None
            return str(json.loads(process.stdout.readline())["line"])

        try:
            assert said("before") == "before"
            world.admit()
            assert world.office.ask(line(world.ipv4)).outcome == "timed out"
            assert said("after") == "after"
        finally:
            process.kill()


def test_a_nodebalancer_that_is_deleted_takes_its_address_along(world: World) -> None:
    other = world.linode.edit(
        lambda state: state.create_nodebalancer("brief", world.firewall, configs=[config(PORT, BACKENDS)])
    )
    world.settle()
    eventually(lambda: world.office.ask(line(other.ipv4)).outcome == "answer")
    world.linode.edit(lambda state: state.delete_nodebalancer(other.id))
    eventually(lambda: world.office.ask(line(other.ipv4, timeout=0.1)).outcome != "answer")
    assert world.office.ask(line(world.ipv4)).outcome == "answer"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "closed"),
        ("Content-Length: 3\r\n\r\nabc", "200"),
        ("Content-Length: 9\r\n\r\nabc", "closed"),
    ],
)
def test_an_answer_that_breaks_off_is_not_taken_for_one(sent: str, seen: str) -> None:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 200 OK\r\n{sent}".encode())

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        client = datapath.Client(datapath.Place.here())
        assert client.ask(datapath.Request("127.0.0.1", server.getsockname()[1])).short == seen


def test_the_filter_of_a_nodebalancer_ends_in_the_policy_of_its_firewall() -> None:
    narrow = account.Rule("ACCEPT", "TCP", "443,8000-8001", (OFFICE + "/32",), (OFFICE_6 + "/128",))
    firewall = account.Firewall((narrow,), "DROP")
    one = account.NodeBalancer(7, "198.51.100.80", "2600:3c06::7/64", (firewall,), ())
    assert rules.tables([one], 6).splitlines()[-5:] == [
        "-A INPUT -d 2600:3c06::7 -p tcp -j nb7-0",
        "-A INPUT -d 2600:3c06::7 -p tcp -j ACCEPT",
        f"-A nb7-0 -s {OFFICE_6}/128 -p tcp -m multiport --dports 443,8000:8001 -j RETURN",
        "-A nb7-0 -j DROP",
        "COMMIT",
    ]
