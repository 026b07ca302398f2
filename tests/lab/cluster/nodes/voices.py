"""What containers say: their logs and termination messages, by component. Pure.

The engine's log holds the lines by which a start is followed (`Loading safetensors checkpoint shards`,
`torch.compile took`, ...) and grows with the time since the start, so a slow start looks like one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.lifecycle import End, Phase, State, Times, completes

_LABEL_COMPONENT = "app.kubernetes.io/component"
_SIZE = 16_196_395_008
_COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"
_ENGINE = (
    "(APIServer pid=1) INFO {t} [utils.py:253] non-default args: {{'model': '{model}', 'max_model_len': -1}}",
    "(APIServer pid=1) INFO {t} [model.py:547] Resolved architecture: Qwen2ForCausalLM",
    "(APIServer pid=1) INFO {t} [model.py:1730] Using max model len 32768",
    "(EngineCore pid=72) INFO {t} [gpu_model_runner.py:3751] Starting to load model {model}...",
    "(EngineCore pid=72) Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]",
    "(EngineCore pid=72) Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:21<00:21, 10.60s/it]",
    "(EngineCore pid=72) Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:42<00:00, 10.61s/it]",
    "(EngineCore pid=72) INFO {t} [default_loader.py:314] Loading weights took 42.63 seconds",
    "(EngineCore pid=72) INFO {t} [gpu_model_runner.py:3838] Model loading took 14.25 GiB and 44.1 seconds",
    "(EngineCore pid=72) INFO {t} [monitor.py:34] torch.compile took 31.87 s in total",
    "(EngineCore pid=72) INFO {t} [gpu_worker.py:359] Available KV cache memory: 2.61 GiB",
    "(EngineCore pid=72) INFO {t} [kv_cache_utils.py:1229] GPU KV cache size: 48,880 tokens",
    "(EngineCore pid=72) INFO {t} [gpu_model_runner.py:4587] Capturing CUDA graphs (decode, FULL)",
    "(EngineCore pid=72) INFO {t} [gpu_model_runner.py:4612] Graph capturing finished in 18 secs, took 0.51 GiB",
    "(EngineCore pid=72) INFO {t} [core.py:210] init engine (profile, create kv cache, warmup model) "
    "took 74.20 seconds",
    "(APIServer pid=1) INFO {t} [api_server.py:1351] Starting vLLM server on http://0.0.0.0:8000",
    "(APIServer pid=1) INFO:     Application startup complete.",
)
_ENGINE_END = (
    "(EngineCore pid=72) ERROR {t} [core.py:842] EngineCore failed to start.",
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {{}}",
)
#: Lines of an engine that never gets ready: as far as the weights.
_STUCK = 6


def log(pod: Mapping[str, Any], container: str, state: State, behaviour: Behaviour, now: float) -> list[str]:
    """The log of the container that runs, or ran last, up to `now`."""
    if behaviour.log is not None:
        return behaviour.log.splitlines()
    over = state.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.BACKOFF)
    if over and state.last is not None and container == _first(pod)["name"]:
        return list(state.last.log)
    lines = _usual(pod, container, state.started)
    if state.phase is not Phase.RUNNING:
        return lines
    if behaviour.kind == "never-ready":
        return lines[:_STUCK]
    times = Times()
    expected = behaviour.duration(times.job if completes(pod) else times.ready)
    share = min(max((now - state.since) / expected, 0.0), 1.0) if expected > 0 else 1.0
    return lines[: max(1, int(len(lines) * share))]


def previous_log(end: End, behaviour: Behaviour) -> list[str]:
    """The log of the container before the one that runs."""
    return list(end.log) if behaviour.previous_log is None else behaviour.previous_log.splitlines()


def finish(pod: Mapping[str, Any], end: End, behaviour: Behaviour) -> End:
    """The end with what the container leaves: its log and its termination message.

    Fixed at that moment, so that they stay when the rule is gone.
    """
    lines = _ended(pod, end) if behaviour.log is None else behaviour.log.splitlines()
    return replace(end, log=tuple(lines), message=_termination_message(pod, end, lines))


def _termination_message(pod: Mapping[str, Any], end: End, lines: Sequence[str]) -> str | None:
    if end.message is not None:
        return end.message
    container = _first(pod)
    if end.reason == "Completed" and _component(pod) == "fetch":
        return json.dumps(_summary(container))
    if end.exit_code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        # The kubelet takes the last 2 KiB or 80 lines of the log.
        return "\n".join(lines[-80:])[-2048:]
    return None


def _ended(pod: Mapping[str, Any], end: End) -> list[str]:
    container = _first(pod)["name"]
    lines = _usual(pod, container, end.started)
    if end.exit_code == 0 and completes(pod):
        return lines
    if end.reason == "OOMKilled":
        return lines[:_STUCK]
    message = (end.message or "").splitlines()
    if _component(pod) == "engine":
        moment = _clock(end.finished, "%m-%d %H:%M:%S")
        return [*lines[:_STUCK], *message, *(line.format(t=moment) for line in _ENGINE_END)]
    if _component(pod) == "fetch":
        failed = {"event": "failed", "permanent": False, "message": end.message or "the connection was lost"}
        return [*lines[:2], json.dumps(failed)]
    return [lines[0], *(message or [f"{container}: error, exit code {end.exit_code}"])]


def _usual(pod: Mapping[str, Any], container: str, started: float) -> list[str]:
    """The log of a container that comes to its end or to readiness."""
    spec = next((one for one in pod["spec"]["containers"] if one["name"] == container), None)
    if spec is not None and _component(pod) == "engine":
        arguments = spec.get("args") or ["/models/model"]
        moment = _clock(started, "%m-%d %H:%M:%S")
        return [line.format(t=moment, model=arguments[0]) for line in _ENGINE]
    if spec is not None and _component(pod) == "fetch":
        return [json.dumps(event) for event in _fetch(_summary(spec))]
    moment = _clock(started, "%Y-%m-%dT%H:%M:%SZ")
    return [
        f"{moment} {container}: starting",
        f"{moment} {container}: configuration read",
        f"{moment} {container}: serving",
    ]


def _fetch(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    size = int(summary["bytes"])
    start = {"files": 9, "totalBytes": size, "missingBytes": size}
    progress = [
        {
            "event": "progress",
            "downloadedBytes": size * quarter // 4,
            "totalBytes": size,
            "etaSeconds": 30 * (4 - quarter),
        }
        for quarter in range(1, 5)
    ]
    about = {key: summary[key] for key in ("model", "commit", "format")}
    return [{"event": "start", **about, **start}, *progress, {"event": "complete", **summary}]


def _summary(container: Mapping[str, Any]) -> dict[str, Any]:
    arguments: Sequence[str] = container.get("args") or ()

    def after(flag: str, default: str) -> str:
        return arguments[arguments.index(flag) + 1] if flag in arguments[:-1] else default

    return {
        "model": after("--model", "unknown/model"),
        "revision": after("--revision", "main"),
        "commit": _COMMIT,
        "format": "safetensors",
        "bytes": _SIZE,
    }


def _first(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that fails when one does."""
    first: Mapping[str, Any] = pod["spec"]["containers"][0]
    return first


def _component(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(_LABEL_COMPONENT, ""))


def _clock(seconds: float, layout: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(layout)
