"""Stands in for the engine: wants its key, streams word by word, and can sleep in two ways.

A suspended engine refuses connections (a Service without endpoints); one whose packets are dropped never
answers. Both are what the chat meets while the GPU is free.
"""

from __future__ import annotations

import asyncio
import enum
import json
from types import TracebackType
from typing import Any, Self

from aiohttp import web

MODEL = "mistralai/Mistral-7B-Instruct-v0.3"
WORDS = ("This ", "answer ", "came ", "out ", "of ", "the ", "sandbox ", "word ", "by ", "word.")
ANSWER = "".join(WORDS)
#: Seconds between two words.
PAUSE = 0.2


class State(enum.Enum):
    """What a client meets."""

    SERVING = "serving"
    REFUSING = "refusing"
    SILENT = "silent"


class Engine:
    """An engine at an address of the loopback network.

    Attributes:
        key: the key that counts now.
        asked: bodies of the chat completions that were accepted, oldest first.
        refused: how many requests had another key.
    """

    def __init__(self, address: str, port: int, key: str) -> None:
        self.key = key
        self.asked: list[dict[str, Any]] = []
        self.refused = 0
        self._address = (address, port)
        self._state = State.REFUSING
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.become(State.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.become(State.REFUSING)

    async def become(self, state: State) -> None:
        """Change what clients meet; connections that are open end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._state = state
        if state is State.REFUSING:
            return
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()

    @property
    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
            if self._state is State.SILENT:
                await asyncio.sleep(600)
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                self.refused += 1
                return web.json_response({"error": "Unauthorized"}, status=401)
            answer: web.StreamResponse = await handler(request)
            return answer

        return guard

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if not body.get("stream"):
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"object": "chat.completion", "model": MODEL, "choices": [choice]})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for word in WORDS:
            await stream.write(_event({"content": word}, None))
            await asyncio.sleep(PAUSE)
        await stream.write(_event({}, "stop"))
        await stream.write(b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()
