"""A small internet: NodeBalancers in front of a node, and clients elsewhere, each in a namespace of its own.

    client ─┐                    ┌─ NodeBalancers ── node
    client ─┴── the internet ────┴───────────────── node's public address

The internet is a bridge on which everybody finds everybody. A node has a public address there, as nodes on
LKE do. Between NodeBalancers and node is a link that nobody else has, on which NodeBalancers come from
their range. Source of the range: linode/cloud-firewall-controller internal/rules/defaults.go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from lab.datapath.asking import Client
from lab.datapath.namespace import Namespace, Place

#: Where NodeBalancers come from.
NODEBALANCER_SOURCE = "192.168.255.7"
_SECONDS = 0.1
_EVERYTHING = ("0.0.0.0/0", "::/0")
_TESTS = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Node:
    """The machine that NodeBalancers lead to.

    Attributes:
        address: by which the account's NodeBalancers know it; it has it already.
        public: its address on the internet; given to it here.
    """

    place: Place
    address: str = "10.250.0.1"
    public: str = "192.0.2.10"


class Internet:
    """Everything outside of the node. Use as a context.

    Args:
        url: the account, as the simulator's `base`, seen from this process.
        clients: addresses by name, IPv4 first.

    Attributes:
        clients: by name.
        balancer: the namespace of the NodeBalancers.
    """

    def __init__(self, url: str, node: Node, clients: Mapping[str, Sequence[str]]) -> None:
        self._url = url
        self._node = node
        self._wanted = clients
        self._stack = contextlib.ExitStack()
        self._joined = 0
        self.clients: dict[str, Client] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._bridge = self._namespace()
            self._bridge.ip("link add internet type bridge forward_delay 0", "link set internet up")
            self.balancer = self._namespace()
            self._join(self.balancer, [], *_EVERYTHING)
            for name, addresses in self._wanted.items():
                client = self._namespace()
                self._join(client, addresses, *_EVERYTHING)
                self.clients[name] = Client(client)
            self._lead_to_node()
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._stack.callback(namespace.close)
        return namespace

    def _join(self, place: Place, addresses: Sequence[str], *destinations: str) -> None:
        """Give a namespace a device `internet0`, addresses on it, and what it finds there."""
        self._joined += 1
        self._bridge.ip(
            f"link add port{self._joined} type veth peer name internet0 netns {place.pid}",
            f"link set port{self._joined} master internet up",
        )
        place.ip(
            "link set internet0 up",
            *(_add_address(one, "internet0") for one in addresses),
            *(f"route add {one} dev internet0" for one in destinations),
        )

    def _lead_to_node(self) -> None:
        """The node's public side, and the link that only NodeBalancers have."""
        node, hosts = self._node, []
        for addresses in self._wanted.values():
            hosts += [one for one in addresses if ipaddress.ip_address(one).version == 4]
        self._join(node.place, [node.public], *hosts)
        self.balancer.ip(f"link add node0 type veth peer name balancer0 netns {node.place.pid}")
        # These ends are the node's; a link goes when either end's namespace does.
        for device in ("internet0", "balancer0"):
            self._stack.callback(_forget, node.place, device)
        node.place.ip(
            "link set balancer0 up",
            f"route add {NODEBALANCER_SOURCE} dev balancer0 src {node.address}",
        )
        self.balancer.ip(
            _add_address(NODEBALANCER_SOURCE, "node0"),
            "link set node0 up",
            f"route add {node.address} dev node0",
        )

    def _start(self) -> None:
        self._log = self._stack.enter_context(tempfile.TemporaryFile("a+"))  # noqa: SIM115
        command = [sys.executable, "-m", "lab.datapath", self._url, str(self.balancer.path), "internet0"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            [*command, str(_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=_TESTS,
            env=environment,
        )
        self._stack.callback(self._stop)

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def wait(self, revision: int, seconds: float = 10.0) -> None:
        """Wait until the data path keeps to a revision of the account.

        Raises:
            AssertionError: it does not, or it has died; with what it said.
        """
        deadline = time.monotonic() + seconds
        while True:
            # Not by seek and read: the process writes where this file stands.
            said = os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")
            assert self._process.poll() is None, said
            numbers = [int(line) for line in said.splitlines() if line.isdigit()]
            if numbers and numbers[-1] >= revision:
                return
            assert time.monotonic() < deadline, f"revision {revision} is not applied: {said[-2000:]}"
            time.sleep(0.01)


def _add_address(address: str, device: str) -> str:
    one = ipaddress.ip_address(address)
    return f"address add {one}/{one.max_prefixlen} dev {device}" + (" nodad" if one.version == 6 else "")


def _forget(place: Place, device: str) -> None:
    with contextlib.suppress(RuntimeError):
        place.ip(f"link delete {device}")
