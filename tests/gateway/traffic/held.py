"""What stays open while things change: event streams and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from gateway.traffic.connection import Connection
from gateway.traffic.fleet import Caller
from gateway.traffic.http2 import Stream

SOCKET_PATH = "/ws/socket.io/?EIO=4&transport=websocket"


@dataclasses.dataclass
class Held:
    """One stream or socket: how far it came, and whether it is still open."""

    name: str
    messages: int = 0
    open: bool = False


class Holding:
    """Streams and sockets for as long as the block lasts. Each must have been unbroken at its end."""

    def __init__(self) -> None:
        self._starts: list[Callable[[Held, asyncio.Event], Coroutine[Any, Any, None]]] = []
        self._names: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self.held: list[Held] = []

    def stream(self, name: str, caller: Caller, *, pause: float = 0.1) -> None:
        """A stream of numbered events over HTTP/1.1, again and again until the end."""

        async def hold(held: Held, over: asyncio.Event) -> None:
            connection = await Connection.open(caller.port(), source=caller.source, tls=caller.tls)
            with contextlib.closing(connection):
                head = await connection.send("POST", _endless(pause), caller.headers)
                assert head.status == 200, f"{name}: {head}"
                async for event in connection.events():
                    assert event["number"] == held.messages
                    held.messages, held.open = held.messages + 1, True
                    if over.is_set():
                        return
            raise ConnectionResetError(f"{name}: ended by itself")

        self._add(name, hold)

    def http2(self, name: str, caller: Caller, *, pause: float = 0.1) -> None:
        """The same over HTTP/2."""

        async def hold(held: Held, over: asyncio.Event) -> None:
            async with Stream.open(caller, _endless(pause)) as stream:
                async for data in stream.data():
                    held.messages, held.open = held.messages + data.count(b"data: "), True
                    if over.is_set():
                        return
            raise ConnectionResetError(f"{name}: ended by itself")

        self._add(name, hold)

    def socket(self, name: str, caller: Caller, *, pause: float = 0.1) -> None:
        """A WebSocket with an echo every `pause` seconds."""

        async def hold(held: Held, over: asyncio.Event) -> None:
            connection = await Connection.open(caller.port(), source=caller.source, tls=caller.tls)
            with contextlib.closing(connection):
                head = await connection.upgrade(SOCKET_PATH)
                assert head.status == 101, f"{name}: {head}"
                while not over.is_set():
                    text = f"message {held.messages}"
                    assert await connection.echo(text) == text
                    held.messages, held.open = held.messages + 1, True
                    await asyncio.sleep(pause)

        self._add(name, hold)

    def _add(self, name: str, hold: Callable[[Held, asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        self._names.append(name)
        self._starts.append(hold)

    async def __aenter__(self) -> Self:
        for name, start in zip(self._names, self._starts, strict=True):
            self.held.append(Held(name))
            self._tasks.append(asyncio.create_task(start(self.held[-1], self._over)))
        while not all(one.open for one in self.held):
            for task in self._tasks:
                if task.done():
                    await self._end(cancel=True)
                    task.result()
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        results = await self._end(cancel=kind is not None)
        print("held: " + ", ".join(f"{one.name} {one.messages} messages" for one in self.held))
        if kind is None:
            broken = [
                f"{one.name}: {r!r}" for one, r in zip(self.held, results, strict=True) if r is not None
            ]
            assert broken == []

    async def _end(self, *, cancel: bool) -> list[BaseException | None]:
        self._over.set()
        if cancel:
            for task in self._tasks:
                task.cancel()
        ending: Awaitable[list[BaseException | None]] = asyncio.gather(*self._tasks, return_exceptions=True)
        return await ending


def _endless(pause: float) -> str:
    return f"/v1/chat/completions?events=1000000&pause={pause}"
