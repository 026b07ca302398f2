"""Asks two engines the same questions and says where their answers differ.

    python -m lab.engine.compare --engine /path/to/vllm [--record FILE]
    python -m lab.engine.compare --recording FILE

Each is started with the same arguments on a tiny model that is made here and has no weights. The second
one is the stand-in. Exit code 1: there are differences.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import aiohttp

from lab.engine import probes

RECORDING = pathlib.Path(__file__).with_name("recordings") / "vllm-0.32.0-cpu.json"
_TESTS = pathlib.Path(__file__).resolve().parents[2]
_MODEL, _KEY = "tiny/model", "sk-of-the-comparison"
_FLAGS = (
    *("--served-model-name", _MODEL, "--host", "127.0.0.1", "--max-model-len", "auto"),
    *("--disable-fastapi-docs", "--shutdown-timeout", "20", "--load-format", "dummy", "--enforce-eager"),
    *("--disable-access-log-for-endpoints", "/health,/metrics,/ping"),
)
_ENVIRONMENT = {
    "VLLM_API_KEY": _KEY,
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_COLOR": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "LAB_ENGINE_SPEED": "100",
}
#: Seconds until a start must have come to its end, until an end must have, and between two looks.
_START, _END, _LOOK = 300.0, 60.0, 0.2
#: Command lines that are refused, by what is wrong.
REFUSED: Mapping[str, tuple[str, ...]] = {
    "unknown flag": ("--no-such-flag", "3"),
    "wrong value": ("--max-num-seqs", "many"),
    "unknown tool parser": ("--enable-auto-tool-choice", "--tool-call-parser", "nope"),
    "unknown reasoning parser": ("--reasoning-parser", "nope"),
    "context too long": ("--max-model-len", "99999"),
    "heads not divisible": ("--tensor-parallel-size", "3"),
}
#: Texts by which a start is followed, as far as a CPU without weights comes to them.
MARKERS = (
    *("non-default args:", "Resolved architecture:", "Using max model len", "Initializing a V1 LLM engine"),
    *("Starting to load model", "Auto-fit max_model_len:", "KV cache size:"),
    *(
        "init engine (profile, create kv cache, warmup model) took",
        "Supported tasks:",
        "Starting vLLM server on",
    ),
    *("Available routes are:", "Application startup complete."),
)
#: What was seen of one engine.
Seen = dict[str, Any]


def make_model(folder: pathlib.Path) -> pathlib.Path:
    """A model of two layers with a tokenizer that knows letters; its weights are made up at the start."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 512,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
    }
    special = ["<unk>", "<s>", "</s>"]
    words = [*special, *map(chr, range(ord("a"), ord("z") + 1))]
    words += [f"w{number}" for number in range(512 - len(words))]
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, **common} for number, text in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 2048,
        "chat_template": template,
    }
    for name, content in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", about),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder


async def observe(command: Sequence[str], folder: pathlib.Path) -> Seen:
    """Everything that is compared of one engine; `command` without `serve`."""
    model = str(make_model(folder / "model"))
    async with _running(command, model, folder / "serve.log") as (process, url):
        answers = await probes.ask_all(url, model=_MODEL, key=_KEY)
        ending = await _end(process, url)
    text = (folder / "serve.log").read_text(errors="replace")
    refused = {}
    for name, flags in REFUSED.items():
        refused[name] = await _refused(command, model, flags, folder / f"{name.replace(' ', '-')}.log")
    return {"answers": answers, "markers": markers(text), "end": ending, "refused": refused}


def markers(text: str) -> list[str]:
    """The markers of a start in the order of their first appearance."""
    places = {marker: text.find(marker) for marker in MARKERS}
    return sorted((marker for marker, place in places.items() if place >= 0), key=places.__getitem__)


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str], model: str, log: pathlib.Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The engine, serving; killed at the end if it still runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await _spawn(command, [model, *_FLAGS, "--port", str(port)], log)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(_START):
            while await _status(url, "/health") != 200:
                if process.returncode is not None:
                    raise RuntimeError(f"it ended with {process.returncode}:\n{log.read_text()[-4000:]}")
                await asyncio.sleep(_LOOK)
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _spawn(
    command: Sequence[str], argv: Sequence[str], log: pathlib.Path
) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": str(_TESTS), **_ENVIRONMENT}
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *command, "serve", *argv, stdout=output, stderr=output, env=environment
        )


async def _status(url: str, path: str) -> int | None:
    try:
        async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
            return answer.status
    except aiohttp.ClientError:
        return None


async def _end(process: asyncio.subprocess.Process, url: str) -> Seen:
    """A request to end while a stream is open."""
    body = {"model": _MODEL, "prompt": "a", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/completions", json=body) as stream,
    ):
        await stream.content.readany()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(_LOOK)
        health = await _status(url, "/health")
        async with session.get(f"{url}/v1/models") as models:
            listed = models.status
        async with session.post(f"{url}/v1/completions", json={**body, "stream": False}) as late:
            refusal = {"status": late.status, "body": await late.json()}
        complete = (await stream.read()).endswith(probes.DONE)
    code = await asyncio.wait_for(process.wait(), _END)
    return {"health": health, "models": listed, "late": refusal, "complete": complete, "code": code}


async def _refused(command: Sequence[str], model: str, flags: Sequence[str], log: pathlib.Path) -> Seen:
    """How a start with these flags ends: the exit code and the line that says why."""
    process = await _spawn(command, [model, *_FLAGS, *flags], log)
    try:
        code = await asyncio.wait_for(process.wait(), _START)
    finally:
        if process.returncode is None:
            process.kill()
    return {"code": code, "cause": cause(log.read_text(errors="replace"))}


def cause(text: str) -> str:
    """The last line that names an error, up to what depends on the version."""
    found = [line for line in text.splitlines() if re.search(r"\w*[Ee]rror(:|, )|KeyError", line)]
    line = found[-1].strip() if found else ""
    return re.split(r" \(chose from| Available parsers| \[type=", line)[0]


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two observations differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                yield f"{path}/{key}: only in the {'first' if key in one else 'second'}"
            else:
                yield from differences(one[key], other[key], f"{path}/{key}")
    elif one != other:
        yield f"{path}: {json.dumps(one)} and {json.dumps(other)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.engine.compare", description="vLLM and its stand-in.")
    parser.add_argument("--engine", type=shlex.split, help="the program of the real engine")
    parser.add_argument("--record", type=pathlib.Path, help="write what was seen of it here")
    parser.add_argument(
        "--recording", type=pathlib.Path, default=RECORDING, help="without --engine: what was seen before"
    )
    return parser


async def main(argv: Sequence[str]) -> int:
    """Compare, and say what differs; the exit code."""
    options = _parser().parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        if options.engine:
            (base / "first").mkdir()
            first = await observe(options.engine, base / "first")
            print(f"asked {options.engine[0]} in {time.monotonic() - began:.0f} s")
            if options.record:
                options.record.parent.mkdir(parents=True, exist_ok=True)
                options.record.write_text(json.dumps(first, indent=1, sort_keys=True) + "\n")
        else:
            first = json.loads(options.recording.read_text())
        (base / "second").mkdir()
        second = await observe([sys.executable, "-m", "lab.engine"], base / "second")
    found = list(differences(first, second))
    for line in found:
        print(line)
    print(f"{len(found)} differences in {len(first['answers'])} answers and {len(first['refused'])} refusals")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
