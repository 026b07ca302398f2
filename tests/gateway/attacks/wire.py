"""Requests as bytes, and what comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct

from gateway.attacks.recorder import message_length

#: PROXY protocol version 2, section 2.2: the signature that no other protocol begins with.
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def proxy(
    source: bytes,
    *,
    command: int = 0x21,
    family: int | None = None,
    length: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A header of version 2. `source` is the packed address; `tail` holds TLVs."""
    if len(source) == 4:
        block = source + bytes([192, 0, 2, 80]) + struct.pack("!HH", 50000, 443)
    elif len(source) == 16:
        block = source + bytes.fromhex("20010db8000000000000000000000080") + struct.pack("!HH", 50000, 443)
    else:
        block = source
    block += tail
    family = (0x21 if len(source) == 16 else 0x11) if family is None else family
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes, length: int | None = None) -> bytes:
    """A type-length-value field of a PROXY header."""
    return struct.pack("!BH", kind, len(value) if length is None else length) + value


def message(first: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """An HTTP/1.1 message with nothing added."""
    return b"\r\n".join([first, *headers, b"", body])


def dial(
    port: int, peer: str, prefix: bytes = b"", tls: ssl.SSLContext | None = None, alpn: str = "http/1.1"
) -> socket.socket:
    """A connection from `peer` that begins with `prefix`. Closing it leaves no port in TIME-WAIT."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(peer, 0))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection.sendall(prefix)
        if tls is not None:
            tls.set_alpn_protocols([alpn])
            return tls.wrap_socket(connection, server_hostname="demo")
    except BaseException:
        connection.close()
        raise
    return connection


def more(connection: socket.socket, seconds: float) -> bytes | None:
    """What came within `seconds`: bytes, nothing (None), or the end of the connection (empty)."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1 << 16)
    except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
        return None
    except OSError:
        return b""


def statuses(raw: bytes, *, bodies: bool = True) -> list[int | str]:
    """Statuses of the complete answers in `raw`, interim answers left out."""
    found: list[int | str] = []
    while match := re.match(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n", raw):
        size = message_length(raw) if bodies else raw.find(b"\r\n\r\n") + 4
        if size < 4:
            break
        status, raw = int(match[1]), raw[size:]
        if status == 101 or status >= 200:
            found.append(status)
    return found


def statuses_without_bodies(raw: bytes) -> list[int | str]:
    """The same for HEAD: the lengths in its answer are those of bodies that do not come."""
    first, _, rest = raw.partition(b"\r\n\r\n")
    return statuses(first + b"\r\n\r\n", bodies=False) + statuses(rest)


def close(connection: socket.socket) -> None:
    """Close without waiting for anybody."""
    with contextlib.suppress(OSError):
        connection.close()
