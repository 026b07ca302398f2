"""Stands in for engine and chat under traffic: short answers, event streams, silence, WebSockets.

Idle connections are closed after `keep_alive` seconds, by default 5 as in uvicorn and vLLM, so that a
gateway that keeps a connection for longer meets a closing one.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
from types import TracebackType
from typing import Self

from aiohttp import web

from lab.envoy import process as envoy_process

ID = "x-traffic-id"


class Upstream:
    """One server. `seen` counts requests by their id; a retry of the gateway would count twice."""

    def __init__(self, *, keep_alive: float = 5.0) -> None:
        self.port: int = envoy_process.free_port()
        self.seen: collections.Counter[str] = collections.Counter()
        application = web.Application()
        application.router.add_get("/ws/socket.io/", self._socket)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            application, keepalive_timeout=keep_alive, access_log=None, shutdown_timeout=0.2
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """`?silence=S` waits first; `?events=N&pause=S` answers with a stream of N numbered events."""
        self.seen[request.headers.get(ID, "")] += 1
        await request.read()
        await asyncio.sleep(float(request.query.get("silence", "0")))
        if "events" in request.query:
            return await self._events(request)
        return web.json_response(
            {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}}],
            }
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        pause = float(request.query.get("pause", "0"))
        with contextlib.suppress(ConnectionError):  # the client has enough
            for number in range(int(request.query["events"])):
                await asyncio.sleep(pause)
                await stream.write(f"data: {json.dumps({'number': number})}\n\n".encode())
            await stream.write(b"data: [DONE]\n\n")
            await stream.write_eof()
        return stream

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        self.seen[request.headers.get(ID, "")] += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
