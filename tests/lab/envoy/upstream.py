"""Stands for engine and chat behind the gateways of the lab: the engine's own answers, a page, a WebSocket."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

#: The engine's answer; None: there is no engine.
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
#: Requests that are remembered.
_REMEMBERED = 200


@dataclasses.dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names in lower case."""

    component: str
    method: str
    path: str
    headers: dict[str, str]


class Upstream:
    """Engine and chat of one sandbox, each on a port of 127.0.0.1.

    Args:
        answer: for the engine; without an engine the connection breaks.

    Attributes:
        ports: by component, known after `start`.
        seen: the last requests.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._runners: list[web.AppRunner] = []
        self.ports: dict[str, int] = {}
        self.seen: collections.deque[Seen] = collections.deque(maxlen=_REMEMBERED)

    async def start(self) -> None:
        """Listen."""
        engine = web.Application(middlewares=[self._record("engine")])
        engine.router.add_route("*", "/{path:.*}", self._engine)
        chat = web.Application(middlewares=[self._record("chat")])
        chat.router.add_get("/ws/socket.io/", self._socket)
        chat.router.add_route("*", "/{path:.*}", self._page)
        for name, application in (("engine", engine), ("chat", chat)):
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
            self._runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.ports[name] = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """End with all connections."""
        for runner in self._runners:
            await runner.cleanup()

    def _record(self, component: str) -> Any:
        @web.middleware
        async def record(request: web.Request, handler: Any) -> web.StreamResponse:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.seen.append(Seen(component, request.method, request.path_qs, headers))
            answer: web.StreamResponse = await handler(request)
            return answer

        return record

    async def _engine(self, request: web.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
        return answer or web.Response(status=502)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=f"<title>Chat</title> {request.path}\n", content_type="text/html")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
