"""What containers say: their logs and termination messages, by component. Pure.

The engine's log is that of the stand-in for vLLM and grows with the time since the start, so a slow start
looks like one; here are only the ends that a rule makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.lifecycle import End, Phase, State, Times, completes
from lab.engine import failures, plan
from lab.engine.script import HEALTHY, Script

_LABEL_COMPONENT = "app.kubernetes.io/component"
_SIZE = 16_196_395_008
_COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"
#: Lines of what never gets ready.
_STUCK = 6
#: An engine that never gets ready, or that a rule ends, is loading weights.
_LOADING = Script(hang="load")


def log(pod: Mapping[str, Any], container: str, state: State, behaviour: Behaviour, now: float) -> list[str]:
    """The log of the container that runs, or ran last, up to `now`."""
    if behaviour.log is not None:
        return behaviour.log.splitlines()
    over = state.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.BACKOFF)
    if over and state.last is not None and container == _first(pod)["name"]:
        return list(state.last.log)
    times = Times()
    expected = behaviour.duration(times.job if completes(pod) else times.ready)
    if _component(pod) == "engine" and container == _first(pod)["name"]:
        stuck = behaviour.kind == "never-ready"
        running = state.phase is Phase.RUNNING and not stuck
        said = _engine(pod, _LOADING if stuck else HEALTHY, expected, state.started)
        return said.log(now - state.since if running else math.inf)
    lines = _usual(pod, container, state.started)
    if state.phase is not Phase.RUNNING:
        return lines
    if behaviour.kind == "never-ready":
        return lines[:_STUCK]
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
    if _component(pod) == "engine":
        return _ended_engine(pod, end)
    lines = _usual(pod, container, end.started)
    if end.exit_code == 0 and completes(pod):
        return lines
    if end.reason == "OOMKilled":
        return lines[:_STUCK]
    message = (end.message or "").splitlines()
    if _component(pod) == "fetch":
        said = end.message or "HubUnreachable: the connection was lost"
        failed = {"reason": said.partition(":")[0], "permanent": end.exit_code == 78, "message": said}
        return [*lines[:2], json.dumps({"event": "failed", **failed})]
    return [lines[0], *(message or [f"{container}: error, exit code {end.exit_code}"])]


def _engine(pod: Mapping[str, Any], script: Script, total: float, started: float) -> plan.Plan:
    return plan.of_container(_first(pod), script, total=total, began=started)


def _ended_engine(pod: Mapping[str, Any], end: End) -> list[str]:
    """An engine that a rule ended while it loaded; its message is the cause."""
    found = _engine(pod, _LOADING, end.finished - end.started, end.started)
    lines = found.log(math.inf)
    if end.reason == "OOMKilled" or found.arguments is None:
        return lines
    cause = (end.message or "RuntimeError: unknown error").splitlines()
    failure = failures.Failure(_LOADING.hang or "", failures.ENGINE, tuple(cause))
    return [*lines, *failures.lines(failure, found.arguments, HEALTHY, end.finished)]


def _usual(pod: Mapping[str, Any], container: str, started: float) -> list[str]:
    """The log of a container that comes to its end or to readiness."""
    spec = next((one for one in pod["spec"]["containers"] if one["name"] == container), None)
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
            "doneBytes": size * quarter // 4,
            "totalBytes": size,
            "bytesPerSecond": size // 120,
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
        "commit": after("--commit", _COMMIT),
        "format": "hf",
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
