"""Stands in for engine and chat behind the gateways of the lab: answers, streams, a page, a WebSocket.

The engine's server knows nothing of clients: it wants its own key, as vLLM does with VLLM_API_KEY.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

MODEL = "mistralai/Mistral-7B-Instruct-v0.3"
WORDS = ("A", " sandbox", " that", " only", " you", " can", " reach", ".")
#: Seconds between two tokens of a stream.
PAUSE = 0.05
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
        engine_key: the key that the engine wants now; None: there is no engine, and no answer.

    Attributes:
        ports: by component, known after `start`.
        seen: the last requests.
    """

    def __init__(self, engine_key: Callable[[], Awaitable[str | None]]) -> None:
        self._engine_key = engine_key
        self._runners: list[web.AppRunner] = []
        self.ports: dict[str, int] = {}
        self.seen: collections.deque[Seen] = collections.deque(maxlen=_REMEMBERED)

    async def start(self) -> None:
        """Listen."""
        engine = web.Application(middlewares=[self._record("engine"), self._with_key])
        engine.router.add_get("/v1/models", self._models)
        engine.router.add_post("/v1/chat/completions", self._complete)
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

    @property
    def _with_key(self) -> Any:
        @web.middleware
        async def check(request: web.Request, handler: Any) -> web.StreamResponse:
            key = await self._engine_key()
            if key is None and request.transport is not None:
                request.transport.abort()
            if request.headers.get("Authorization") != f"Bearer {key}":
                return web.json_response({"error": "Unauthorized"}, status=401)
            answer: web.StreamResponse = await handler(request)
            return answer

        return check

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if not (await request.json()).get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"object": "chat.completion", "model": MODEL, "choices": [choice]})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for word in WORDS:
            await asyncio.sleep(PAUSE)
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
            await stream.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=f"<title>Chat</title> {request.path}\n", content_type="text/html")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
