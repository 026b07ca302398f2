"""The NodeBalancer in front of real gateways: plain TCP, and a PROXY header with the client's address.

It listens on the Service's ports at a loopback address and leads each connection to the next ready pod
of the Service. Clients choose who they are by the loopback address that they come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ai_sandbox_operator.api import kinds
from lab.envoy import process
from lab.world import World

_SLICE = kinds.Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", watched=False)
#: Host numbers within the lab's loopback network, beyond those of pods.
_LISTEN, _SOURCE, _CLIENTS, _RANGE = "255.1", "255.7", "254.", "255.0/24"


def nodebalancer_range(prefix: str) -> str:
    """The network that NodeBalancers of a lab connect from; `prefix` as in `Lab.loopback_prefix`."""
    return f"{prefix}.{_RANGE}"


class Balancer:
    """One NodeBalancer.

    Args:
        service: name of the Service in the world's namespace.
        clients: address in the PROXY header by the name of a client.

    Attributes:
        host: where it listens.
    """

    def __init__(self, world: World, service: str, clients: Mapping[str, str]) -> None:
        self._world = world
        self._service = service
        prefix = world.lab.loopback_prefix
        self.host = f"{prefix}.{_LISTEN}"
        self._source = f"{prefix}.{_SOURCE}"
        self._locals = {name: f"{prefix}.{_CLIENTS}{n}" for n, name in enumerate(clients, start=1)}
        self._addresses = {self._locals[name]: address for name, address in clients.items()}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._turn = itertools.count()

    def local(self, client: str) -> str:
        """The loopback address that a client must come from."""
        return self._locals[client]

    async def __aenter__(self) -> Self:
        service = await self._world.api.get(kinds.SERVICE, self._world.namespace, self._service)
        for port in service["spec"]["ports"]:
            self._servers.append(
                await asyncio.start_server(self._accepting(port["name"]), self.host, port["port"])
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepting(self, port: str) -> Any:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(port, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return accept

    async def _serve(self, port: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            client = self._addresses.get(writer.get_extra_info("peername")[0])
            backends = await self._backends(port) if client else []
            if not client or not backends:
                return
            host, number = backends[next(self._turn) % len(backends)]
            inner = await asyncio.open_connection(host, number, local_addr=(self._source, 0))
            with contextlib.closing(inner[1]):
                inner[1].write(process.proxy_header(client))
                await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))

    async def _backends(self, port: str) -> list[tuple[str, int]]:
        """Where the ready pods of the Service listen."""
        selector = f"kubernetes.io/service-name={self._service}"
        slices = await self._world.api.list_all(_SLICE, self._world.namespace, label_selector=selector)
        return [
            (self._world.lab.loopback(address), found["port"])
            for one in slices
            for found in one.get("ports") or ()
            if found["name"] == port
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
