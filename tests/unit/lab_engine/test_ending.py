"""Beginning and end of the program: its port, signals, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from unit.lab_engine.conftest import MODEL

TESTS = pathlib.Path(__file__).resolve().parents[2]
STREAM = {"model": MODEL, "prompt": "a", "max_tokens": 40, "ignore_eos": True, "stream": True}
COMPLETIONS = "/v1/completions"


@dataclass
class Program:
    """The stand-in as a process."""

    process: asyncio.subprocess.Process
    url: str
    log: pathlib.Path
    session: aiohttp.ClientSession = field(repr=False)

    async def health(self) -> int | None:
        """None: nobody listens."""
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with self.session.get(f"{self.url}/health") as answer:
                return answer.status
        return None

    async def up(self) -> None:
        async with asyncio.timeout(10):
            while await self.health() != 200:
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def code(self, within: float = 10) -> int:
        return await asyncio.wait_for(self.process.wait(), within)

    def stream(self, **more: Any) -> Any:
        return self.session.post(self.url + COMPLETIONS, json={**STREAM, **more})


@contextlib.asynccontextmanager
async def program(folder: pathlib.Path, *flags: str, **script: Any) -> AsyncIterator[Program]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "LAB_ENGINE_SPEED": "1000",
        "LAB_ENGINE_SCRIPT": json.dumps(script),
    }
    argv = ("/models/m", "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port))
    log = folder / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lab.engine", "serve", *argv, *flags),
            stdout=output,
            stderr=output,
            env=environment,
        )
    try:
        async with aiohttp.ClientSession() as session:
            yield Program(process, f"http://127.0.0.1:{port}", log, session)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_nobody_listens_before_it_is_up(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, phases={"load": 1000}) as engine:
        async with asyncio.timeout(10):
            while "Starting to load model" not in engine.log.read_text():
                await asyncio.sleep(0.02)
        assert await engine.health() is None
        await engine.up()
        assert "Application startup complete." in engine.log.read_text()


async def test_asked_to_end_while_it_starts_it_neither_ends_nor_gets_up(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, phases={"load": 500}) as engine:
        async with asyncio.timeout(10):
            while "Starting to load model" not in engine.log.read_text():
                await asyncio.sleep(0.02)
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await engine.code(within=1.5)
        assert await engine.health() is None
        assert "Application startup complete." not in engine.log.read_text()


async def test_idle_it_ends_with_code_0_in_less_than_a_second(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, "--shutdown-timeout", "20") as engine:
        await engine.up()
        began = time.monotonic()
        engine.process.send_signal(signal.SIGTERM)
        assert await engine.code() == 0
        assert time.monotonic() - began < 1
        assert "mode=drain timeout=20s" in engine.log.read_text()


async def test_with_a_timeout_a_stream_finishes_and_new_requests_fail_meanwhile(
    tmp_path: pathlib.Path,
) -> None:
    async with program(tmp_path, "--shutdown-timeout", "20", token=20) as engine:
        await engine.up()
        async with engine.stream() as stream:
            await stream.content.readany()
            engine.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert await engine.health() == 200
            async with engine.stream() as late:
                assert late.status == 500
                message = (await late.json())["error"]["message"]
            assert message == "cannot schedule new futures after shutdown"
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert await engine.code() == 0


async def test_a_stream_that_outlasts_the_timeout_is_cut(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, "--shutdown-timeout", "1", token=300) as engine:
        await engine.up()
        async with engine.stream() as stream:
            await stream.content.readany()
            engine.process.send_signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
        assert await engine.code() == 0


async def test_without_a_timeout_a_stream_is_aborted_and_it_ends_at_once(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, token=50) as engine:
        await engine.up()
        async with engine.stream() as stream:
            await stream.content.readany()
            engine.process.send_signal(signal.SIGTERM)
            blocks = (await stream.read()).split(b"\n\n")
        assert blocks[-2] == b"data: [DONE]"
        last = json.loads(blocks[-3].removeprefix(b"data: "))
        assert last["choices"][0]["finish_reason"] == "abort"
        assert await engine.code(within=2) == 0


async def test_a_crash_while_serving_shows_in_health_and_ends_with_code_0(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, crash_after=500, dying=1000) as engine:
        await engine.up()
        async with asyncio.timeout(5):
            while await engine.health() == 200:
                await asyncio.sleep(0.02)
        assert await engine.health() == 503
        async with engine.stream() as late:
            assert late.status == 500
            assert (await late.json())["error"]["message"].startswith("EngineCore encountered an issue.")
        assert await engine.code() == 0
        assert "vllm.v1.engine.exceptions.EngineDeadError" in engine.log.read_text()


@pytest.mark.parametrize(
    ("flags", "script", "code", "said"),
    [
        (("--no-such-flag",), {}, 2, "vllm: error: unrecognized arguments: --no-such-flag"),
        ((), {"fail": "CorruptWeights"}, 1, "Error while deserializing header"),
        (("--max-model-len", "9999999"), {}, 1, "is greater than the derived max_model_len"),
    ],
)
async def test_a_start_that_fails_ends_with_its_code(
    tmp_path: pathlib.Path, flags: tuple[str, ...], script: dict[str, Any], code: int, said: str
) -> None:
    async with program(tmp_path, *flags, **script) as engine:
        assert await engine.code() == code
        assert said in engine.log.read_text()


async def test_a_stream_is_told_when_the_engine_dies(tmp_path: pathlib.Path) -> None:
    async with program(tmp_path, crash_after=300, dying=1000, token=20) as engine:
        await engine.up()
        async with engine.stream(max_tokens=2000) as stream:
            blocks = (await stream.read()).split(b"\n\n")
    assert blocks[-2] == b"data: [DONE]"
    assert blocks[-3].startswith(b'data: {"error": {"message": "EngineCore encountered an issue.')
