"""Connections that are open while keys and allowlist change: the next request on them meets the new rules."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
from collections.abc import Callable, Iterator

import pytest

from ai_sandbox_operator.desired import envoy_routes
from ai_sandbox_operator.observed import served
from gateway import cases
from gateway.attacks import frames, site, wire
from gateway.attacks.case import targets
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

_FIELDS = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"demo"), (b":path", b"/v1/models"),
           (b"authorization", b"Bearer " + site.KEY.encode())]  # fmt: skip
_ASK = site.get(b"/v1/models")


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[site.Site]:
    one = site.Site(tmp_path)
    one.gateway.start()
    yield one
    one.close()


def without_address(one: site.Site) -> None:
    access = {**site.SPEC["access"], "allowlist": [{"cidr": f"{site.STRANGER}/32"}]}
    one.gateway.update(cases.sandbox({"access": access}), site.KNOWN)


def without_key(one: site.Site) -> None:
    material = dataclasses.replace(site.KNOWN.material, api_keys={"alice": site.FORMER})
    one.gateway.update(cases.sandbox(site.SPEC), dataclasses.replace(site.KNOWN, material=material))


def without_any_key(one: site.Site) -> None:
    material = dataclasses.replace(site.KNOWN.material, api_keys={})
    one.gateway.update(cases.sandbox(site.SPEC), dataclasses.replace(site.KNOWN, material=material))


def without_balancer(one: site.Site) -> None:
    known = dataclasses.replace(site.KNOWN, nodebalancer_ranges=())
    one.gateway.update(cases.sandbox(site.SPEC), known)


def over_http1(connection: socket.socket, number: int) -> list[int | str]:
    connection.sendall(_ASK)
    return _read(connection, wire.statuses, 1)


def in_a_burst(connection: socket.socket, number: int) -> list[int | str]:
    connection.sendall(_ASK * 5)
    return _read(connection, wire.statuses, 5)


def over_http2(connection: socket.socket, number: int) -> list[int | str]:
    connection.sendall(
        (frames.start() if number == 0 else b"") + frames.headers(_FIELDS, stream=2 * number + 1)
    )
    return _read(connection, frames.answers, 1)


def _read(connection: socket.socket, read: Callable[[bytes], list[int | str]], count: int) -> list[int | str]:
    raw = b""
    while len(read(raw)) < count and (chunk := wire.more(connection, 10)):
        raw += chunk
    return read(raw)


def without_nodebalancer(one: site.Site) -> None:
    one.gateway.update(
        cases.sandbox({"access": {**site.SPEC["access"], "exposure": "ClusterIP"}}), site.KNOWN
    )


@pytest.mark.parametrize("speak", [over_http1, in_a_burst, over_http2])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (without_address, 403),
        (without_balancer, 403),
        (without_nodebalancer, 403),
        (without_key, 401),
        (without_any_key, 401),
    ],
)
def test_the_next_request_of_an_open_connection_meets_the_change(
    own: site.Site,
    speak: Callable[[socket.socket, int], list[int | str]],
    change: Callable[[site.Site], None],
    status: int,
) -> None:
    connection = own.dial(prefix=site.FROM_OFFICE)
    try:
        first = speak(connection, 0)
        assert set(first) == {200}
        mark = own.engine.mark()
        assert targets(tuple(own.engine.since(0))) == (b"/v1/models",) * len(first)
        change(own)
        # Of a burst of refusals Envoy writes only the first few, then it ends the connection.
        second = speak(connection, 1)
        assert second == [status] * max(1, len(second))
        assert own.engine.since(mark) == []
    finally:
        wire.close(connection)


@pytest.mark.parametrize("listener", ["external_chat", "internal_chat"])
def test_the_next_request_to_a_chat_that_was_switched_off_is_refused(own: site.Site, listener: str) -> None:
    prefix = site.FROM_OFFICE if listener.startswith("external") else b""
    connection = own.dial(listener, prefix=prefix)
    try:
        connection.sendall(site.get(b"/api/models"))
        assert _read(connection, wire.statuses, 1) == [200]
        mark = own.engine.mark()
        own.gateway.update(cases.sandbox({**site.SPEC, "chat": {"enabled": False}}), site.KNOWN)
        connection.sendall(site.get(b"/api/models"))
        assert _read(connection, wire.statuses, 1) == [403]
        assert own.engine.since(mark) == []
    finally:
        wire.close(connection)


def test_a_listener_that_is_drained_follows_its_routes_to_the_end(own: site.Site) -> None:
    """A revision is proven only when the drained listener has it too."""
    connection = own.dial(prefix=site.FROM_OFFICE)
    try:
        access = {**site.SPEC["access"], "exposure": "ClusterIP"}
        for chat in ({}, {"enabled": False}):
            one = cases.sandbox({"access": access, "chat": chat})
            own.gateway.update(one, site.KNOWN)
            revision = envoy_routes.configurations(one, site.KNOWN)[0]
            said = served.revisions(own.gateway.status(served.STATUS_PATH).body.decode())
            assert said["external_api"] == revision
            assert set(said.values()) == {revision}
    finally:
        wire.close(connection)


def test_a_request_that_began_before_the_change_and_ends_after_it_is_judged_by_the_new_rules(
    own: site.Site,
) -> None:
    connection = own.dial(prefix=site.FROM_OFFICE)
    try:
        connection.sendall(_ASK[:-4])
        own.fence()
        without_address(own)
        mark = own.engine.mark()
        connection.sendall(_ASK[-4:])
        assert _read(connection, wire.statuses, 1) == [403]
        assert own.engine.since(mark) == []
    finally:
        wire.close(connection)
