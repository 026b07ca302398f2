"""What the engine says while it starts, line by line with its time. Pure.

Sources and places of the lines are those of vLLM 0.32.0; recordings/ holds the real ones of a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lab.engine import routes
from lab.engine.arguments import Arguments
from lab.engine.script import Script

VERSION = "0.33.0"
#: Process ids in a container.
API, CORE = "(APIServer pid=1)", "(EngineCore pid=72)"
#: Tokens of one block of the KV cache.
_BLOCK = 16
_GIB_PER_TOKEN = 128 / (1 << 20)
_LOGO = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)
#: Phase, share of the phase that is over, process, source, text.
_LINES: tuple[tuple[str, float, str, str, str], ...] = (
    *(("import", 0.55, API, "api_utils.py:347", line) for line in _LOGO),
    ("import", 0.55, API, "api_utils.py:286", "non-default args: {given}"),
    ("config", 0.5, API, "model.py:733", "Resolved architecture: {architecture}"),
    ("config", 0.5, API, "model.py:2152", "Using max model len {wanted}"),
    ("config", 0.6, API, "scheduler.py:308", "Chunked prefill is enabled with max_num_batched_tokens=2048."),
    ("config", 0.9, CORE, "core.py:133", "Initializing a V1 LLM engine (v{version}) with config: {config}"),
    ("load", 0.0, CORE, "gpu_model_runner.py:5040", "Starting to load model {model}..."),
    *(
        ("load", 0.05 + 0.85 * part / 4, CORE, "", f"{part * 25:3d}% Completed | {part}/4")
        for part in range(5)
    ),
    ("load", 0.92, CORE, "default_loader.py:501", "Loading weights took {load:.2f} seconds"),
    (
        "load",
        1.0,
        CORE,
        "gpu_model_runner.py:5149",
        "Model loading took 13.51 GiB memory and {load:.6f} seconds",
    ),
    ("compile", 0.1, CORE, "backends.py:1131", "Using cache directory: {cache} for vLLM's torch.compile"),
    ("compile", 1.0, CORE, "monitor.py:53", "torch.compile took {compile:.2f} s in total"),
    ("profile", 0.5, CORE, "gpu_worker.py:759", "Available KV cache memory: {memory} GiB"),
    ("profile", 0.8, CORE, "kv_cache_utils.py:2468", "{fit}"),
    ("profile", 0.9, CORE, "kv_cache_utils.py:2327", "{size}"),
    ("graphs", 0.0, CORE, "", "Capturing CUDA graphs (decode, FULL):   0%|          | 0/35 [00:00<?, ?it/s]"),
    ("graphs", 0.95, CORE, "", "Capturing CUDA graphs (decode, FULL): 100%|██████████| 35/35"),
    (
        "graphs",
        1.0,
        CORE,
        "gpu_model_runner.py:6581",
        "Graph capturing finished in {graphs:.0f} secs, took 0.51 GiB",
    ),
    ("serve", 0.1, CORE, "core.py:394", "{init}"),
    ("serve", 0.4, API, "entry.py:136", "Supported tasks: {tasks}"),
    ("serve", 0.9, API, "entry.py:140", "Starting vLLM server on http://{host}:{port}"),
    ("serve", 0.9, API, "launcher.py:186", "Available routes are:"),
)
#: From the web server itself, without the prefix of vLLM's log.
_READY = (
    "INFO:     Started server process [1]",
    "INFO:     Waiting for application startup.",
    "INFO:     Application startup complete.",
)


@dataclass(frozen=True)
class Said:
    """A line of the log and when it is said, in seconds since the start."""

    after: float
    text: str


def effective(arguments: Arguments, script: Script) -> int:
    """Tokens of the longest request: what was asked for, or the longest that fits."""
    wanted = arguments.max_model_len
    if wanted == -1:
        return min(script.context, script.kv_tokens // _BLOCK * _BLOCK)
    return wanted or script.context


def log(arguments: Arguments, script: Script, total: float, began: float) -> list[Said]:
    """The whole log of a start that comes to its end; `began` in seconds since 1970."""
    return list(_say(arguments, script, total, began))


def _say(arguments: Arguments, script: Script, total: float, began: float) -> Iterator[Said]:
    begins, seconds = script.begins(total), script.seconds(total)
    values = _values(arguments, script, seconds)
    for phase, share, process, source, text in _LINES:
        if not (said := text.format_map(values)) and text:
            continue
        after = begins[phase] + share * seconds[phase]
        if text.endswith("/4"):
            said = f"Loading safetensors checkpoint shards: {said} [{_took(share * seconds['load'])}]"
        yield Said(after, _line(began + after, process, source, said))
    for method, path in routes.listed(pooling=arguments.pooling, docs=arguments.docs):
        text = f"Route: {path}, Methods: {method}"
        yield Said(begins["up"], _line(began + begins["up"], API, "launcher.py:195", text))
    yield from (Said(begins["up"], line) for line in _READY)


def _line(moment: float, process: str, source: str, text: str) -> str:
    return f"{process} {text}" if not source else record(moment, process, source, text)


def record(moment: float, process: str, source: str, text: str, level: str = "INFO") -> str:
    """One record in the form of vLLM's log; each line of a text has the prefix."""
    clock = datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M:%S")
    prefix = f"{process} {level} {clock} [{source}] "
    return prefix + text.replace("\n", f"\n{prefix}")


def _values(arguments: Arguments, script: Script, seconds: dict[str, float]) -> dict[str, object]:
    # vLLM hides these two.
    shown = {
        key: "***" if key in ("api_key", "hf_token") else value for key, value in arguments.given.items()
    }
    limit = effective(arguments, script)
    memory = round(script.kv_tokens * _GIB_PER_TOKEN, 2)
    init = seconds["compile"] + seconds["profile"] + seconds["graphs"]
    if arguments.max_model_len != -1:
        fit = ""
    elif limit == script.context:
        fit = (
            f"Auto-fit max_model_len: full model context length {limit} fits in available KV cache memory "
            f"({memory} GiB GPU)"
        )
    else:
        fit = (
            f"Auto-fit max_model_len: reduced from {script.context} to {limit} to fit in available KV cache "
            f"memory ({memory} GiB GPU)"
        )
    wanted = arguments.max_model_len
    return {
        **seconds,
        "version": VERSION,
        "model": arguments.model,
        "given": shown,
        "architecture": script.architecture,
        "wanted": script.context if wanted in (None, -1) else wanted,
        "config": f"model='{arguments.model}', tensor_parallel_size={arguments.tensor_parallel_size}, ...",
        "cache": "/home/engine/.cache/vllm/torch_compile_cache",
        "memory": memory,
        "fit": fit,
        "size": f"GPU KV cache size: {script.kv_tokens:,} tokens, Maximum concurrency for {limit:,} tokens "
        f"per request: {script.kv_tokens / limit:.2f}x",
        "init": f"init engine (profile, create kv cache, warmup model) took {init:.2f} s "
        f"(compilation: {seconds['compile']:.2f} s)",
        "tasks": ["embed"] if arguments.pooling else ["generate"],
        "host": arguments.host,
        "port": arguments.port,
    }


def _took(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def until(said: Sequence[Said], age: float) -> list[str]:
    """The lines of the first `age` seconds."""
    return [line for one in said if one.after <= age for line in one.text.split("\n")]
