"""HTTP/2 used to exhaust: the connection ends, and a good client beside it is served all the while."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

import pytest

from gateway.attacks import frames, site, wire
from gateway.attacks.frames import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, frame
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

_POST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"demo"),
    (b":path", b"/v1/completions"),
]
_GET = [(b":method", b"GET"), *_POST[1:3], (b":path", b"/v1/models")]
_KEY = (b"authorization", b"Bearer " + site.KEY.encode())


def rapid_reset() -> bytes:
    """CVE-2023-44487."""
    return b"".join(
        frames.headers([*_GET, _KEY], stream=number) + frame(frames.RESET, 0, number, struct.pack("!I", 8))
        for number in range(1, 8001, 2)
    )


def endless_continuation() -> bytes:
    """CVE-2024-27316: headers in many frames that never end."""
    more = frames.block([(b"x-note", b"a" * 1000)])
    return frame(HEADERS, END_STREAM, 1, frames.block(_GET)) + frame(CONTINUATION, 0, 1, more) * 4000


def empty_continuation() -> bytes:
    return frame(HEADERS, END_STREAM, 1, frames.block(_GET)) + frame(CONTINUATION, 0, 1) * 40000


def bomb() -> bytes:
    """One header in the table, and thousands of references to it."""
    block = frames.block(_GET) + frames.literal(b"x-note", b"a" * 3900, 0x40) + b"\xbe" * 15000
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, block)


def many_settings() -> bytes:
    return frames.settings((frames.INITIAL_WINDOW, 65535)) * 60000


def many_pings() -> bytes:
    return frame(frames.PING, 0, 0, b"8" * 8) * 60000


def many_priorities() -> bytes:
    return b"".join(frame(frames.PRIORITY, 0, 2 * n + 1, struct.pack("!IB", 0, 1)) for n in range(60000))


def many_windows() -> bytes:
    return frame(frames.WINDOW, 0, 0, struct.pack("!I", 1)) * 60000


def many_empty_frames() -> bytes:
    return frames.headers(_POST, flags=END_HEADERS) + frame(frames.DATA, 0, 1) * 60000


def _pour(connection: socket.socket, raw: bytes) -> None:
    """Write without reading, until all is written or the gateway has had enough."""
    connection.settimeout(2)
    try:
        connection.sendall(raw)
    except OSError:
        return


def _has_ended(connection: socket.socket) -> bool:
    """Whether the connection is over, within five seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if wire.more(connection, 0.2) == b"":
            return True
    return False


@pytest.mark.parametrize(
    "flood",
    [rapid_reset, endless_continuation, empty_continuation, bomb, many_settings, many_pings, many_priorities,
     many_windows, many_empty_frames],
)  # fmt: skip
def test_a_flood_ends_its_connection_and_nobody_elses(flood: Callable[[], bytes], plain: site.Site) -> None:
    mark = plain.engine.mark()
    raw = flood()
    with plain.dial(prefix=site.FROM_OFFICE) as connection:
        connection.sendall(frames.start())
        _pour(connection, raw)
        plain.fence()
        assert _has_ended(connection)
    plain.fence()
    seen = len(plain.engine.since(mark))
    assert seen <= (4000 if flood is rapid_reset else 0)


def test_more_streams_than_allowed_are_refused(plain: site.Site) -> None:
    mark = plain.engine.mark()
    with plain.dial(prefix=site.FROM_OFFICE) as connection:
        streams = (frames.headers([*_POST, _KEY], stream=2 * n + 1, flags=END_HEADERS) for n in range(300))
        connection.sendall(frames.start() + b"".join(streams))
        plain.fence()
        assert len(plain.engine.since(mark)) <= 100
    plain.fence()


def test_a_client_that_does_not_read_holds_no_more_than_its_window(plain: site.Site) -> None:
    big = [(b":method", b"GET"), *_POST[1:3], (b":path", b"/v1/models?bytes=8000000"), _KEY]
    before = _paused(plain)
    with plain.dial(prefix=site.FROM_OFFICE) as connection:
        connection.sendall(frames.start((frames.INITIAL_WINDOW, 0)))
        connection.sendall(b"".join(frames.headers(big, stream=2 * n + 1) for n in range(8)))
        for _ in range(5):
            plain.fence()
        received = b""
        while chunk := wire.more(connection, 0.2):
            received += chunk
        assert len(received) < 10_000
        assert _paused(plain) - before >= 8, "the gateway holds what nobody reads"


def _paused(one: site.Site) -> int:
    """How often the gateway stopped reading from the engine because a client did not read."""
    text = one.gateway.admin("/stats?filter=cluster.engine.upstream_flow_control_paused_reading_total")
    return int(text.split(": ")[1])
