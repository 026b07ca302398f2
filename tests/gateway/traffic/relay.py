"""A TCP relay: the NodeBalancer in front of the gateways, or the distance between gateway and engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from types import TracebackType
from typing import Self

from lab.envoy import process as envoy_process


class Relay:
    """Leads each new connection to the next of `backends`, which may change at any time."""

    def __init__(self, backends: list[int], *, source: str | None = None, distance: float = 0.0) -> None:
        """With `source`, connections begin with a PROXY header of that address.

        `distance` is the time in seconds until a side learns that the backend has closed. What is
        sent meanwhile is lost, as on a real network.
        """
        self.backends = backends
        self.port: int = envoy_process.free_port()
        self._prefix = envoy_process.proxy_header(source) if source else b""
        self._distance = distance
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.served: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._lead(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backend = self.backends[next(self._turn) % len(self.backends)]
        self.served[backend] = self.served.get(backend, 0) + 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", backend)
        except OSError:
            writer.transport.abort()
            return
        inner_writer.write(self._prefix)
        sending = asyncio.create_task(self._pipe(reader, inner_writer))
        try:
            with contextlib.suppress(OSError):
                await self._pipe(inner_reader, writer)
            if self._distance:
                sending.cancel()
                await asyncio.sleep(self._distance)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            # What was sent and not read is answered by a reset.
            writer.close()
            inner_writer.transport.abort()

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
