"""An engine that is silent for minutes before or within an answer, and WebSockets that nobody uses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from gateway.cases import KEY, OFFICE
from gateway.traffic.certificates import trusting
from gateway.traffic.conftest import Opening, Site
from gateway.traffic.connection import Connection
from gateway.traffic.fleet import Caller
from gateway.traffic.held import SOCKET_PATH
from gateway.traffic.http2 import Stream

#: All times of the configuration that could end a silent request, at a hundredth or less.
HUNDREDTH = {
    '"idle_timeout": "900s"': '"idle_timeout": "9s"',
    '"idle_timeout": "3600s"': '"idle_timeout": "36s"',
    '"idle_timeout": "600s"': '"idle_timeout": "6s"',
    '"stream_idle_timeout": "300s"': '"stream_idle_timeout": "3s"',
    '"request_timeout": "120s"': '"request_timeout": "1.2s"',
    '"request_timeout": "1800s"': '"request_timeout": "1.2s"',
}
ANSWER = "/v1/chat/completions"


def caller(one: Site, listener: str = "external_api", *, protocol: str = "http/1.1") -> Caller:
    source = OFFICE if listener.startswith("external") else None
    tls = trusting(one.authority, protocol=protocol)
    return Caller(one.gateway.port(listener), source, KEY, tls)


@contextlib.asynccontextmanager
async def connected(who: Caller) -> AsyncIterator[Connection]:
    connection = await Connection.open(who.port(), source=who.source, tls=who.tls)
    with contextlib.closing(connection):
        yield connection


async def answered(who: Caller, path: str) -> tuple[int, bytes]:
    """Status and body over HTTP/1.1."""
    async with connected(who) as connection:
        head = await connection.send("POST", path, who.headers, b'{"messages":[]}')
        return head.status, await connection.body(head)


async def streamed(who: Caller, path: str) -> list[int]:
    """Numbers of the events over HTTP/1.1."""
    async with connected(who) as connection:
        head = await connection.send("POST", path, who.headers)
        assert head.status == 200
        return [event["number"] async for event in connection.events()]


async def is_cut(who: Caller, path: str) -> bool:
    """Whether a stream ends without its proper end."""
    try:
        await streamed(who, path)
    except ConnectionResetError:
        return True
    return False


async def answered_http2(who: Caller, path: str) -> tuple[bool | None, bytes]:
    """Whether the status was 200, and the body, over HTTP/2."""
    async with Stream.open(who, path) as stream:
        body = b"".join([piece async for piece in stream.data()])
        return stream.status_200, body


async def used_after(who: Caller, seconds: float) -> None:
    """A WebSocket that is silent, then used."""
    async with connected(who) as connection:
        assert (await connection.upgrade(SOCKET_PATH)).status == 101
        assert await connection.echo("before") == "before"
        await asyncio.sleep(seconds)
        assert await connection.echo("after") == "after"


async def survive(one: Site, seconds: float) -> None:
    """What must live through so long a silence."""
    silent, within = f"{ANSWER}?silence={seconds}", f"{ANSWER}?events=2&pause={seconds}"
    two = caller(one, protocol="h2")
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(answered(caller(one), silent))
        stream = group.create_task(streamed(caller(one), within))
        inner_stream = group.create_task(streamed(caller(one, "internal_api"), within))
        two_answer = group.create_task(answered_http2(two, silent))
        two_stream = group.create_task(answered_http2(two, within))
        group.create_task(used_after(caller(one, "external_chat"), seconds))
        group.create_task(used_after(caller(one, "internal_chat"), seconds))
    print(f"silent for {seconds} s, all done after {time.monotonic() - began:.1f} s")
    status, body = answer.result()
    assert (status, json.loads(body)["object"]) == (200, "chat.completion")
    assert stream.result() == inner_stream.result() == [0, 1]
    good, body = two_answer.result()
    assert (good, json.loads(body)["object"]) == (True, "chat.completion")
    good, body = two_stream.result()
    assert (good, body.count(b"data: ")) == (True, 3)


async def test_two_thirds_of_the_idle_time_pass_and_more_than_it_is_cut(site: Opening) -> None:
    """Without the routes' own idle time the listener's would cut after a third of it."""
    async with site(replacements=HUNDREDTH) as one:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(answered(caller(one), f"{ANSWER}?silence=12"))
            two_answer = group.create_task(answered_http2(caller(one, protocol="h2"), f"{ANSWER}?silence=12"))
            stream = group.create_task(is_cut(caller(one), f"{ANSWER}?events=2&pause=12"))
            await survive(one, 6)
        status, body = answer.result()
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (504, "server_error", "timeout")
        good, body = two_answer.result()
        assert (good, json.loads(body)["error"]) == (False, error)
        # The head was sent long before: no status can follow, so the connection ends without a last chunk.
        assert stream.result()


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_ten_silent_minutes_are_survived(site: Opening) -> None:
    async with site() as one:
        await survive(one, 600)
