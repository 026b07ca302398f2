"""HTTP/2 as bytes: a writer that can write what no library would, and a reader of the answers' statuses.

Sources: RFC 9113 (frames), RFC 7541 (HPACK; its appendices A and B for the indexed statuses and the
codes of digits).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

Field = tuple[bytes, bytes]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
#: Settings: size of the table of the answers' headers, and of the window of a new stream.
TABLE_SIZE, INITIAL_WINDOW = 0x1, 0x4

_INDEXED = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
_DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {f"{0x19 + n:06b}": str(3 + n) for n in range(7)}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; `length` lies about its length."""
    size = len(payload) if length is None else length
    return struct.pack("!I", size)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *pair) for pair in pairs))


def start(*pairs: tuple[int, int]) -> bytes:
    """The beginning of a connection. Answers come without a table, so each stands for itself."""
    return PREFACE + settings((TABLE_SIZE, 0), *pairs)


def _integer(value: int, bits: int, first: int = 0) -> bytes:
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def literal(name: bytes, value: bytes, first: int = 0x00) -> bytes:
    """A header as it stands: not indexed, or (0x40) put into the table."""
    return bytes([first]) + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def block(fields: Iterable[Field]) -> bytes:
    return b"".join(literal(*field) for field in fields)


def headers(fields: Iterable[Field], *, stream: int = 1, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(fields))


def answers(raw: bytes) -> list[int | str]:
    """Statuses, in the order in which streams were answered, `reset` and `goaway` among them."""
    found: list[int | str] = []
    while len(raw) >= 9:
        size = int.from_bytes(raw[:3], "big")
        kind, payload = raw[3], raw[9 : 9 + size]
        if len(payload) < size:
            break
        if kind == HEADERS and (status := _status(payload)) and status >= 200:
            found.append(status)
        elif kind == RESET and not found:
            found.append("reset")
        elif kind == GOAWAY:
            found.append("goaway")
        raw = raw[9 + size :]
    return found


def alive(raw: bytes) -> bool:
    """Whether a ping was answered: a connection in error is closed late, but reads nothing any more."""
    while len(raw) >= 9:
        if raw[3] == PING and raw[4] & 0x1:
            return True
        raw = raw[9 + int.from_bytes(raw[:3], "big") :]
    return False


def _status(payload: bytes) -> int | None:
    """The status, which comes first; None for trailers. Envoy neither pads nor prioritises answers."""
    while payload and payload[0] & 0xE0 == 0x20:  # the size of the table
        payload = payload[1:]
    if payload[0] & 0x80:
        return _INDEXED.get(payload[0] & 0x7F)
    if payload[0] & 0x0F not in _INDEXED:
        return None
    text = payload[2 : 2 + (payload[1] & 0x7F)]
    if not payload[1] & 0x80:
        return int(text)
    bits, digits = "".join(f"{byte:08b}" for byte in text), ""
    while len(digits) < 3:
        size = next(size for size in (5, 6) if bits[:size] in _DIGITS)
        digits, bits = digits + _DIGITS[bits[:size]], bits[size:]
    return int(digits)
