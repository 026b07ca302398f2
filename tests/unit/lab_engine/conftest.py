from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lab.engine import arguments
from lab.engine.api import Api
from lab.engine.engine import Engine
from lab.engine.script import Script

MODEL, KEY = "tiny/model", "sk-of-a-test"
QUICK = Script(context=2048, token=0.0)


@dataclass
class Served:
    """An engine behind a port of its own, and a client with its key."""

    engine: Engine
    url: str
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any, **more: Any) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body, **more) as answer:
            return answer.status, await answer.json()

    async def chat(self, content: str = "hello", **more: Any) -> dict[str, Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}
        status, answer = await self.post("/v1/chat/completions", body)
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    async def value(self, name: str) -> float:
        """A metric's value, by its name and what else its line says."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            lines = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
        words = name.split()
        found = [line for line in lines if line.startswith(words[0]) and all(word in line for word in words)]
        assert len(found) == 1, found
        return float(found[0].rsplit(" ", 1)[1])


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@contextlib.asynccontextmanager
async def serve(*flags: str, script: Script = QUICK) -> AsyncIterator[Served]:
    """An engine with these flags."""
    argv = ("/models/tiny", "--served-model-name", MODEL, "--max-model-len", "auto", *flags)
    engine = Engine(arguments.parse(argv, {"VLLM_API_KEY": KEY}), script)
    api = Api(engine)
    server = web.Server(lambda request: api.answer(request, request.path))
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Served(engine, f"http://127.0.0.1:{runner.addresses[0][1]}", session)
    finally:
        await runner.cleanup()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve("--disable-fastapi-docs") as made:
        yield made
