"""Just enough HTTP/2 for one POST on one connection: RFC 9113 frames, RFC 7541 literals."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Self

from gateway.traffic.connection import dial
from gateway.traffic.fleet import Caller

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _PADDED = 0x1, 0x1, 0x8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: `:status: 200` is number 8 of the static table.
_STATUS_200 = 0x88


class Stream:
    """The only stream of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status_200: bool | None = None
        self.going_away = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, caller: Caller, path: str) -> AsyncIterator[Self]:
        """Connect, and send a POST without body. The TLS context must ask for h2."""
        reader, writer = await dial(caller.port(), caller.source, caller.tls)
        try:
            stream = cls(reader, writer)
            stream._start(path, {**caller.headers, "content-length": "0"})
            yield stream
        finally:
            writer.transport.abort()

    def _start(self, path: str, headers: dict[str, str]) -> None:
        pseudo = {":method": "POST", ":scheme": "https", ":authority": "demo", ":path": path}
        block = b"".join(
            b"\x00" + _text(name.lower()) + _text(value) for name, value in (pseudo | headers).items()
        )
        self._writer.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_STREAM | 0x4, 1, block)
        )

    async def data(self) -> AsyncIterator[bytes]:
        """The body in pieces until its proper end; ConnectionResetError without one."""
        while True:
            kind, flags, payload = await self._read()
            if kind == _HEADERS and self.status_200 is None:
                self.status_200 = _STATUS_200 in payload[:2]
            elif kind == _RESET:
                raise ConnectionResetError(f"stream was reset: {int.from_bytes(payload)}")
            elif kind == _SETTINGS and not flags & _ACK:
                self._writer.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._writer.write(_frame(_PING, _ACK, 0, payload))
            elif kind == _GOAWAY:
                self.going_away = True
            elif kind == _DATA and payload:
                assert not flags & _PADDED
                update = struct.pack("!I", len(payload))
                self._writer.write(_frame(_WINDOW, 0, 0, update) + _frame(_WINDOW, 0, 1, update))
                yield payload
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return

    async def _read(self) -> tuple[int, int, bytes]:
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed within a stream") from error
        return head[3], head[4], payload


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string without Huffman code, as long as it may be."""
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, size = len(raw) - 127, b"\x7f"
    while rest >= 128:
        size, rest = size + bytes([rest % 128 | 128]), rest // 128
    return size + bytes([rest]) + raw
