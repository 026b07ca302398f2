"""The life of a pod as a state machine. Pure: no clock, no client.

`advance` is asked with the current time and answers with the state and the time to ask again, so the
kubelet keeps one timer per pod and looks at none in between. Every status that is written follows from
the state alone (`podstatus.py`), so one state means one write.

    CREATING -> RUNNING -> READY             a service
    CREATING -> RUNNING -> SUCCEEDED|FAILED  a pod that runs to completion
    CREATING <-> CONFIG_ERROR                a Secret or key of the environment is missing
    CREATING -> PULL_ERROR -> PULL_BACKOFF   the image cannot be pulled
    RUNNING, READY -> BACKOFF -> RUNNING     the container ended and is restarted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour


class Phase(StrEnum):
    """Where in its life a pod is."""

    CREATING = "Creating"
    CONFIG_ERROR = "ConfigError"
    PULL_ERROR = "PullError"
    PULL_BACKOFF = "PullBackoff"
    RUNNING = "Running"
    READY = "Ready"
    BACKOFF = "Backoff"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


WAITING = frozenset({Phase.CREATING, Phase.CONFIG_ERROR, Phase.PULL_ERROR, Phase.PULL_BACKOFF})
ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED})


@dataclass(frozen=True)
class Times:
    """Seconds of each step; short, so that tests are.

    Attributes:
        creating: from bound to started.
        ready: from started to ready.
        job: from started to ended, for pods that run to completion.
        ending: from asked to end to gone.
        retry: between two looks at a missing Secret or volume.
        pull_error: from ErrImagePull to ImagePullBackOff.
        backoff: before the second restart; doubles with each, up to `max_backoff`.
        tell_creating: creation is written into the status only when it takes longer.
    """

    creating: float = 0.05
    ready: float = 0.1
    job: float = 0.2
    ending: float = 0.05
    retry: float = 0.5
    pull_error: float = 0.3
    backoff: float = 0.5
    max_backoff: float = 5.0
    tell_creating: float = 0.5


@dataclass(frozen=True)
class Blocked:
    """Something the pod needs is missing.

    Attributes:
        message: what, in the kubelet's words.
        container: whose environment needs it; None: a volume of the pod.
    """

    message: str
    container: str | None = None


@dataclass(frozen=True)
class End:
    """How a container ended; `voices.finish` adds the message and the log."""

    exit_code: int
    reason: str
    message: str | None
    started: float
    finished: float
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """All that is remembered of a pod.

    Attributes:
        since: when this phase began.
        seen: when the kubelet took the pod up.
        started: when the containers that run, or ran last, were started.
        restarts: how often the container was restarted.
        last: the end before this run; in ENDED and BACKOFF the end itself.
        blocked: why CREATING or CONFIG_ERROR lasts.
    """

    phase: Phase
    since: float
    seen: float
    started: float = 0.0
    restarts: int = 0
    last: End | None = None
    blocked: Blocked | None = None


def begin(now: float) -> State:
    """The state of a pod that was just bound to its node."""
    return State(Phase.CREATING, since=now, seen=now)


def completes(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is meant to end: a Job's, or any that is not always restarted."""
    return bool(pod["spec"].get("restartPolicy", "Always") != "Always")


def advance(
    state: State,
    pod: Mapping[str, Any],
    behaviour: Behaviour,
    now: float,
    *,
    times: Times = Times(),
    blocked: Blocked | None = None,
) -> tuple[State, float | None]:
    """The state at `now`, and when to ask again unless something changes before.

    `blocked` counts only before the containers start. Each transition happens at `now`, never in the
    past, so a late call does not skip states that a watcher would have seen.
    """
    match state.phase:
        case Phase.CREATING | Phase.CONFIG_ERROR:
            return _create(state, behaviour, now, times, blocked)
        case Phase.PULL_ERROR | Phase.PULL_BACKOFF if behaviour.kind != "image-pull":
            return _start(replace(state, phase=Phase.CREATING), now), now
        case Phase.PULL_ERROR:
            due = state.since + times.pull_error
            return (replace(state, phase=Phase.PULL_BACKOFF, since=now), None) if now >= due else (state, due)
        case Phase.RUNNING:
            return _run(state, pod, behaviour, now, times)
        case Phase.READY if behaviour.ends:
            return _end(state, pod, behaviour, now)
        case Phase.READY if behaviour.kind == "never-ready":
            return replace(state, phase=Phase.RUNNING, since=now), None
        case Phase.BACKOFF:
            due = state.since + _backoff(state.restarts, times) if behaviour.ends else now
            return (
                (_start(replace(state, restarts=state.restarts + 1), now), now)
                if now >= due
                else (state, due)
            )
    return state, None


def _create(
    state: State, behaviour: Behaviour, now: float, times: Times, blocked: Blocked | None
) -> tuple[State, float | None]:
    if blocked is not None:
        phase = Phase.CREATING if blocked.container is None else Phase.CONFIG_ERROR
        if (phase, blocked) != (state.phase, state.blocked):
            state = replace(state, phase=phase, since=now, blocked=blocked)
        return state, now + times.retry
    # What was waited for is there: the rest of the creation is done long since.
    due = now if state.blocked else state.since + times.creating
    if now < due:
        return state, due
    if behaviour.kind == "image-pull":
        return replace(state, phase=Phase.PULL_ERROR, since=now, blocked=None), now + times.pull_error
    return _start(state, now), now


def _run(
    state: State, pod: Mapping[str, Any], behaviour: Behaviour, now: float, times: Times
) -> tuple[State, float | None]:
    if behaviour.kind == "never-ready":
        return state, None
    to_completion = completes(pod)
    due = state.since + behaviour.duration(times.job if to_completion else times.ready)
    if now < due:
        return state, due
    if behaviour.ends:
        return _end(state, pod, behaviour, now)
    if to_completion:
        end = End(0, "Completed", behaviour.message, state.started, now)
        return replace(state, phase=Phase.SUCCEEDED, since=now, last=end), None
    return replace(state, phase=Phase.READY, since=now), None


def _start(state: State, now: float) -> State:
    return replace(state, phase=Phase.RUNNING, since=now, started=now, blocked=None)


def _end(
    state: State, pod: Mapping[str, Any], behaviour: Behaviour, now: float
) -> tuple[State, float | None]:
    """The container ends by itself; what comes next is the restart policy's."""
    code = behaviour.exit_code if behaviour.exit_code is not None else 137 if behaviour.kind == "oom" else 1
    reason = "OOMKilled" if behaviour.kind == "oom" else "Error" if code else "Completed"
    ended = replace(state, since=now, last=End(code, reason, behaviour.message, state.started, now))
    policy = pod["spec"].get("restartPolicy", "Always")
    if policy == "Never" or (policy == "OnFailure" and code == 0):
        return replace(ended, phase=Phase.FAILED if code else Phase.SUCCEEDED), None
    if state.restarts == 0:
        # The first restart is immediate, as a kubelet's is.
        return _start(replace(ended, restarts=1), now), now
    return replace(ended, phase=Phase.BACKOFF), now


def _backoff(restarts: int, times: Times) -> float:
    return min(times.backoff * 2.0 ** (restarts - 1), times.max_backoff)


def worth_telling(state: State, times: Times) -> bool:
    """Whether the state is to be written: creation only when somebody could notice it."""
    return (
        state.phase is not Phase.CREATING or state.blocked is not None or times.creating > times.tell_creating
    )
