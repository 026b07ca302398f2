"""The stand-in as a program: its start in real time, its port, its end by a signal or by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from lab.engine import dying, plan
from lab.engine.api import Api
from lab.engine.engine import Engine
from lab.engine.requests import MAX_CHOICES
from lab.engine.script import HEALTHY, PHASES, Script

#: Not flags of vLLM, so that every command line is one that vLLM would get.
SPEED, SCRIPT = "LAB_ENGINE_SPEED", "LAB_ENGINE_SCRIPT"
#: Seconds between the death of the engine process and the end of the server.
_DYING = 5.0
#: Seconds that open connections have at the very end.
_GOODBYE = 0.2


def settings(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Script, float]:
    """The script, and the seconds of a start, from the environment and the model's directory.

    LAB_ENGINE_SCRIPT is a JSON object or a file with one; LAB_ENGINE_SPEED divides all times.

    Raises:
        ValueError: one of them is not understood.
    """
    text = environment.get(SCRIPT, "{}")
    if not text.startswith("{"):
        with open(text) as file:
            text = file.read()
    speed = float(environment.get(SPEED, "1"))
    fields = {"dying": _DYING, "token": HEALTHY.token, **_model(argv[0] if argv else ""), **json.loads(text)}
    for field in ("dying", "crash_after", "first_token", "token"):
        if fields.get(field):
            fields[field] /= speed
    if phases := fields.get("phases"):
        fields["phases"] = {phase: seconds / speed for phase, seconds in phases.items()}
    return Script.parse(fields), sum(PHASES.values()) / speed


def _model(path: str) -> dict[str, Any]:
    """What the configuration in the model's directory says, if there is one."""
    try:
        found = json.loads((pathlib.Path(path) / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    said = {
        "context": found.get("max_position_embeddings"),
        "heads": found.get("num_attention_heads"),
        "architecture": (found.get("architectures") or [None])[0],
    }
    return {field: value for field, value in said.items() if value}


async def run(argv: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> int:
    """One run from the start to the end; the exit code."""
    script, total = settings(argv, environment)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    coming = plan.make(argv, environment, script, total=total, began=time.time())
    await _start(coming, ending, say)
    if coming.failure is not None:
        return coming.failure.exit_code
    if coming.up is None or coming.arguments is None:
        await asyncio.Event().wait()
    assert coming.arguments is not None
    choices = int(environment.get("VLLM_MAX_N_SEQUENCES", MAX_CHOICES))
    engine = Engine(coming.arguments, script, choices=choices, say=say)
    api = Api(engine)
    server = web.Server(lambda request: api.answer(request, request.path))
    runner = web.ServerRunner(server, shutdown_timeout=_GOODBYE)
    await runner.setup()
    await web.TCPSite(runner, coming.arguments.host, coming.arguments.port).start()
    await _serve(engine, ending, say)
    await runner.cleanup()
    return 0


async def _start(coming: plan.Plan, ending: asyncio.Event, say: Callable[[str], None]) -> None:
    """Say each line at its time.

    As seen on vLLM 0.32.0: asked to end while it starts, it neither ends nor gets any further.
    """
    began = time.monotonic()
    for one in coming.said:
        if (wait := began + one.after - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if ending.is_set():
            await asyncio.Event().wait()
        say(one.text)
    rest = coming.ends if coming.ends is not None else coming.up
    if rest is not None and (wait := began + rest - time.monotonic()) > 0:
        await asyncio.sleep(wait)


async def _serve(engine: Engine, ending: asyncio.Event, say: Callable[[str], None]) -> None:
    """Until it is asked to end, or dies by its script."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), engine.script.crash_after)
        engine.shut_down(time.time())
        timeout = engine.arguments.shutdown_timeout or None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.idle.wait(), timeout)
        for line in dying.stopped(time.time()):
            say(line)
        return
    engine.crash(time.time())
    await asyncio.sleep(engine.script.dying)


def main(argv: Sequence[str]) -> int:
    """As `vllm serve`; both standard streams go to the container's log."""

    def say(line: str) -> None:
        print(line, flush=True)

    arguments = argv[1:] if argv[:1] == ["serve"] else argv
    return asyncio.run(run(arguments, os.environ, say))
