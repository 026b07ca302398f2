"""A client's connection: PROXY header, TLS, HTTP/1.1, event streams and WebSockets.

aiohttp's client cannot begin a connection with a PROXY header, and it repeats requests by itself,
which would hide the failures that are looked for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from lab.envoy import process as envoy_process


@dataclasses.dataclass(frozen=True)
class Head:
    """Status and headers of an answer, with header names in lower case."""

    status: int
    headers: Mapping[str, str]


async def dial(
    port: int, source: str | None, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that begins with a PROXY header of the address `source`."""
    plain = socket.socket()
    plain.setblocking(False)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, ("127.0.0.1", port))
        if source:
            await loop.sock_sendall(plain, envoy_process.proxy_header(source))
    except BaseException:
        plain.close()
        raise
    return await asyncio.open_connection(sock=plain, ssl=tls, server_hostname="demo" if tls else None)


class Connection:
    """One connection. Whoever opens it closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, *, source: str | None = None, tls: ssl.SSLContext | None = None) -> Self:
        """Connect; with `source` the connection begins with a PROXY header of that address."""
        return cls(*await dial(port, source, tls))

    def close(self) -> None:
        self._writer.transport.abort()

    @property
    def usable(self) -> bool:
        """Whether the other side still wants requests, as far as is known here."""
        return not (self._reader.at_eof() or self._writer.transport.is_closing())

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Head:
        """Send a request and read the head of its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: demo", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return await self._head()

    async def _head(self) -> Head:
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(f"closed after {len(error.partial)} bytes of a head") from error
        first, *rest = raw.decode().split("\r\n")
        pairs = (line.partition(":") for line in rest if line)
        return Head(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def body(self, head: Head) -> bytes:
        """The whole body."""
        if "content-length" in head.headers:
            try:
                return await self._reader.readexactly(int(head.headers["content-length"]))
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError("closed within a body") from error
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a body until its proper end; ConnectionResetError without one."""
        try:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed within a stream") from error

    async def events(self) -> AsyncIterator[Any]:
        """The events of a stream; ConnectionResetError unless it ends with `[DONE]` and properly."""
        rest = b""
        done = False
        async for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n\n")
            for event in whole:
                text = event.removeprefix(b"data: ")
                done = text == b"[DONE]"
                if not done:
                    yield json.loads(text)
        if not done:
            raise ConnectionResetError("a stream without its last event")

    # --- WebSockets: text messages below 126 bytes -------------------------------------------------

    async def upgrade(self, path: str, headers: Mapping[str, str] | None = None) -> Head:
        """Ask for a WebSocket."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: demo",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        return await self._head()

    async def echo(self, text: str) -> str:
        """Send a message and return the answer; ConnectionResetError when the socket has ended."""
        payload, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._writer.write(bytes([0x81, 0x80 | len(payload)]) + mask + masked)
        try:
            start = await self._reader.readexactly(2)
            answer = await self._reader.readexactly(start[1])
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the WebSocket was closed") from error
        if start[0] != 0x81:
            raise ConnectionResetError(f"not a text message: {start[0]:#x}")
        return answer.decode()

    async def ended(self) -> None:
        """Wait until the other side closes, whatever comes before."""
        while await self._reader.read(65536):
            pass
