"""The NodeBalancers' data path: full TCP proxies that keep to what the account says at each moment.

A connection of a client becomes one of its own to a node, from the range that NodeBalancers send from. It
begins with a PROXY header when the port says so. A node takes part once a check has found it well.
Not here: protocols other than TCP, stickiness, the throttle of new connections per client.
Source: Linode API description (NodeBalancer configs); linode.com docs "NodeBalancer".
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from lab.datapath import rules
from lab.datapath.account import Check, NodeBalancer, Port
from lab.envoy.process import proxy_header

_RESTORE = {4: "iptables-restore", 6: "ip6tables-restore"}
_CHUNK = 65536


class DataPath:
    """Everything that this namespace serves. `apply` is the only way in, one call at a time."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._filters: dict[int, str] = {}
        self._addresses: set[str] = set()
        self._listeners: dict[tuple[str, int], Listener] = {}

    async def apply(self, balancers: Sequence[NodeBalancer]) -> None:
        """Make it so: the filter first, then the addresses, then who listens.

        Raises:
            RuntimeError: the kernel refused.
        """
        for version, program in _RESTORE.items():
            table = rules.tables(balancers, version)
            if self._filters.get(version) != table:
                await _run([program], table)
                self._filters[version] = table
        addresses = {address for balancer in balancers for address in balancer.addresses}
        wanted = {
            (address, port.number): port
            for balancer in balancers
            for address in balancer.addresses
            for port in balancer.ports
        }
        for where in self._listeners.keys() - wanted.keys():
            self._listeners.pop(where).close()
        for address in addresses - self._addresses:
            await _run(["ip", "address", "add", _host(address), "dev", self._device, *_flags(address)])
        for address in self._addresses - addresses:
            await _run(["ip", "address", "delete", _host(address), "dev", self._device])
        self._addresses = addresses
        for where, port in wanted.items():
            if where not in self._listeners:
                self._listeners[where] = await Listener.start(where[0], port)
            self._listeners[where].port = port

    def close(self) -> None:
        """End with every connection."""
        for listener in self._listeners.values():
            listener.close()


class Listener:
    """One port at one public address. `port` may be replaced while it serves."""

    def __init__(self, port: Port) -> None:
        assert port.protocol == "tcp", f"this data path speaks no {port.protocol}"
        self._health: dict[str, Health] = {}
        self._active: Counter[str] = Counter()
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = port

    @classmethod
    async def start(cls, address: str, port: Port) -> Listener:
        """Listen."""
        listener = cls(port)
        listener._server = await asyncio.start_server(listener._accept, address, port.number)
        return listener

    @property
    def port(self) -> Port:
        """What it does."""
        return self._port

    @port.setter
    def port(self, port: Port) -> None:
        kept = {
            node: health
            for node, health in self._health.items()
            if node in port.nodes and health.check == port.check
        }
        for node in self._health.keys() - kept.keys():
            self._health[node].close()
        self._port = port
        self._health = {node: kept.get(node) or Health(node, port.check) for node in port.nodes}

    def close(self) -> None:
        """Stop listening, checking and serving."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for health in self._health.values():
            health.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _candidates(self) -> Iterator[str]:
        well = [node for node, health in self._health.items() if health.well]
        start = next(self._turn)
        turned = [well[(start + index) % len(well)] for index in range(len(well))]
        yield from (
            sorted(turned, key=self._active.__getitem__) if self.port.algorithm == "leastconn" else turned
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.port
        for node in self._candidates():
            try:
                async with asyncio.timeout(port.check.timeout):
                    inner = await asyncio.open_connection(*_split(node))
            except OSError:
                continue
            self._active[node] += 1
            try:
                if port.proxy_protocol == "v2":
                    inner[1].write(proxy_header(writer.get_extra_info("peername")[0]))
                await _join((reader, writer), inner)
            finally:
                self._active[node] -= 1
            return
        writer.transport.abort()


class Health:
    """Whether a node may take part. Unknown is not well: the first check is made at once."""

    def __init__(self, node: str, check: Check) -> None:
        assert check.kind in ("none", "connection"), f"this data path makes no {check.kind} checks"
        self.check = check
        self.well = check.kind == "none"
        self._task = None if self.well else asyncio.create_task(self._watch(*_split(node)))

    def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, host: str, port: int) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self.check.timeout):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                failures, self.well = 0, True
            except OSError:
                failures += 1
                self.well = self.well and failures < self.check.attempts
            await asyncio.sleep(self.check.interval)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(outer: Stream, inner: Stream) -> None:
    """Carry bytes both ways; each side's end is passed on, and a broken side breaks the other."""
    writers = (outer[1], inner[1])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(outer[0], inner[1]))
            group.create_task(_copy(inner[0], outer[1]))
    except* OSError:
        for writer in writers:
            writer.transport.abort()
    finally:
        for writer in writers:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def _split(node: str) -> tuple[str, int]:
    host, _, port = node.rpartition(":")
    return host.strip("[]"), int(port)


def _host(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def _flags(address: str) -> list[str]:
    """IPv6 addresses are otherwise of no use for a second, while duplicates are looked for."""
    return ["nodad"] if ":" in address else []


async def _run(command: Sequence[str], text: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate(text.encode())
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode().strip()}\n{text}")
