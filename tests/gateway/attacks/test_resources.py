"""Clients that are slow, large or many: they are refused in time, and a good client is served beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from ai_sandbox_operator.desired import envoy_listeners
from gateway.attacks import site, wire
from gateway.attacks.wire import message
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

_KEYLESS = message(b"POST /v1/completions HTTP/1.1", site.HOST, b"Content-Length: 100000")


@dataclasses.dataclass
class Slow:
    """A client that sends something at once, then a byte now and then, and what becomes of it."""

    at_once: bytes
    drip: bytes = b""
    encrypted: bool = False
    ended: float = 0.0
    answer: bytes = b""


def _clients() -> dict[str, Slow]:
    ask = site.get(b"/v1/models")
    return {
        "no PROXY header": Slow(b""),
        "a PROXY header byte by byte": Slow(b"", site.FROM_OFFICE),
        "half a PROXY header": Slow(site.FROM_OFFICE[:14]),
        "no request": Slow(site.FROM_OFFICE + ask[:1]),
        "a request byte by byte": Slow(site.FROM_OFFICE, ask),
        "headers that never end": Slow(site.FROM_OFFICE + ask[:-4], b"\r\nX-Note: a" * 9),
        "no handshake": Slow(site.FROM_OFFICE, encrypted=True),
        "half a handshake": Slow(site.FROM_OFFICE + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", encrypted=True),
    }


@pytest.fixture(scope="module")
def slow(plain: site.Site, encrypted_site: site.Site) -> dict[str, Slow]:
    """All slow clients at once, for as long as the longest limit and a little more."""
    clients, selector, begin = _clients(), selectors.DefaultSelector(), time.monotonic()
    for client in clients.values():
        connection = (encrypted_site if client.encrypted else plain).dial(prefix=client.at_once)
        selector.register(connection, selectors.EVENT_READ, client)
    while selector.get_map() and time.monotonic() < begin + 14:
        for key, _ in selector.select(0.5):
            assert isinstance(key.fileobj, socket.socket)
            chunk = wire.more(key.fileobj, 0.1)
            key.data.answer += chunk or b""
            if not chunk:
                key.data.ended = time.monotonic() - begin
                selector.unregister(key.fileobj)
                key.fileobj.close()
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(OSError):
                key.fileobj.sendall(key.data.drip[:1])
            key.data.drip = key.data.drip[1:]
        plain.fence()
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    selector.close()
    return clients


@pytest.mark.parametrize(
    ("name", "limit", "status"),
    [
        ("no PROXY header", 5, None),
        ("a PROXY header byte by byte", 5, None),
        ("half a PROXY header", 5, None),
        ("no request", 10, 408),
        ("a request byte by byte", 10, 408),
        ("headers that never end", 10, 408),
        ("no handshake", 10, None),
        ("half a handshake", 10, None),
    ],
)
def test_a_slow_client_is_refused_in_time(
    slow: dict[str, Slow], name: str, limit: float, status: int | None
) -> None:
    client = slow[name]
    assert limit - 1 < client.ended < limit + 3
    assert wire.statuses(client.answer) == ([status] if status else [])


@pytest.mark.parametrize(
    ("name", "raw", "seen"),
    [
        ("a header of 40 KiB", site.get(b"/v1/models", b"X-Note: " + b"a" * 40960), (431,)),
        ("many headers of 40 KiB together", site.get(b"/v1/models", *[b"X-Note: " + b"a" * 1000] * 41), (431,)),
        ("a hundred and one headers", site.get(b"/v1/models", *[b"X: a"] * 101), (431,)),
        ("ten thousand headers", site.get(b"/v1/models", *[b"X:"] * 10000), (431,)),
        ("a target of 40 KiB", site.get(b"/v1/models?" + b"a" * 40960), (431,)),
        ("a header name of 40 KiB", site.get(b"/v1/models", b"a" * 40960 + b": x"), (431,)),
        ("a key of 20 KiB", site.ask(b"Authorization: Bearer " + b"k" * 20480), (401,)),
        ("a body that is announced and never comes, without a key", _KEYLESS, (401,)),
        ("a body of a megabyte without a key", _KEYLESS.replace(b"100000", b"1000000") + b"a" * 1000000, (401,)),
        ("a method of 40 KiB", message(b"A" * 40960 + b" /v1/models HTTP/1.1", site.HOST, site.GOOD), (431,)),
        ("blank lines without end", b"\r\n" * 500000, "open"),
    ],
)  # fmt: skip
def test_a_large_request_is_refused_and_reaches_nobody(
    plain: site.Site, name: str, raw: bytes, seen: tuple[int, ...] | str
) -> None:
    outcome = plain.send(raw)
    assert outcome.seen == seen
    assert outcome.engine == ()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("an extension of a megabyte", b"2;" + b"a" * 1000000 + b"\r\n{}\r\n0\r\n\r\n"),
        ("a size of a megabyte of zeros", b"0" * 1000000 + b"2\r\n{}\r\n0\r\n\r\n"),
        ("a trailer of 40 KiB", b"2\r\n{}\r\n0\r\nX-Note: " + b"a" * 40960 + b"\r\n\r\n"),
        ("a thousand trailers", b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * 1000 + b"\r\n"),
    ],
)
def test_what_belongs_to_no_body_is_not_passed_on(plain: site.Site, name: str, body: bytes) -> None:
    raw = message(
        b"POST /v1/completions HTTP/1.1", site.HOST, site.GOOD, b"Transfer-Encoding: chunked", body=body
    )
    outcome = plain.send(raw)
    assert all(len(one) < 1000 for one in outcome.engine)
    assert outcome.seen in ((200,), (400,), (431,), "closed")


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[site.Site]:
    one = site.Site(tmp_path)
    one.gateway.start()
    yield one
    one.close()


@contextlib.contextmanager
def crowd(one: site.Site, count: int) -> Iterator[list[socket.socket]]:
    """So many clients from outside that say nothing."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(one.dial(prefix=site.FROM_OFFICE)) for _ in range(count)]
        one.fence()
        yield connections


def test_a_good_client_is_served_beside_hundreds_that_say_nothing(own: site.Site) -> None:
    with crowd(own, 800):
        assert own.send(site.get(b"/v1/models")).seen == (200,)
        assert own.send(site.get(b"/"), listener="external_chat").seen == (200,)


def test_more_connections_than_a_listener_allows_are_ended_and_the_other_listeners_serve(
    own: site.Site,
) -> None:
    allowed = envoy_listeners.MAX_CONNECTIONS
    with crowd(own, allowed + 60) as connections:
        ended = sum(wire.more(connection, 0.001) == b"" for connection in connections)
        assert ended == 60
        assert own.send(site.get(b"/v1/models")).seen == "closed"
        assert own.send(site.get(b"/"), listener="external_chat").seen == (200,)
        assert own.send(site.get(b"/v1/models"), listener="internal_api").seen == (200,)
        assert own.gateway.status("/ready").status == 200
    envoy_process.wait_for(lambda: own.send(site.get(b"/v1/models")).seen == (200,))
