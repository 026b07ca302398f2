"""Why pods are not ready, from their own status, the ends of their logs and the events about them. Pure.

The scheduler, the storage, the kubelet and the container each leave their reason in another place; the
first of these that speaks is the cause, in the order in which a pod comes to life.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ai_sandbox_operator.api import names
from ai_sandbox_operator.api.conditions import Reason

from . import container_end, engine_log, engine_phase, fetch_result, images, node_trouble, scheduling, text
from .container_end import Failure as Failure
from .engine_signatures import SIGNATURES
from .finding import Finding as Finding

#: Waiting reasons of a container that say nothing by themselves.
_USUAL = frozenset({"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
_ENGINE = "engine"

#: Findings by which a pod has not come to a node; none of them is the fault of its containers.
UNPLACED = frozenset(
    {
        Reason.Unschedulable,
        Reason.NoGPUNode,
        Reason.GPUsInUse,
        Reason.NoMatchingNode,
        Reason.InsufficientResources,
        Reason.TaintNotTolerated,
        Reason.NodeUnavailable,
        Reason.VolumePending,
        Reason.VolumeNodeConflict,
        Reason.VolumeLimitReached,
    }
)

#: Findings that a person is told of by a Warning event.
FAILURES = (
    (UNPLACED - {Reason.VolumePending})
    | {row.reason for row in SIGNATURES}
    | {*fetch_result.REASONS.values(), Reason.FetchFailed}
    | images.REASONS
    | node_trouble.REASONS
    | {Reason.CrashLoop, Reason.ContainerKilled, Reason.OutOfMemory, Reason.StartStalled}
    | {Reason.SecretNotFound, Reason.SecretKeyMissing, Reason.ContainerStartFailed}
)


class Run(NamedTuple):
    """One run of a container, by which its log is read at most once."""

    pod: str
    pod_uid: str
    container: str
    identity: str
    previous: bool
    """Whether the log is that of the run before the present one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was read beyond a pod's status; all of it without secrets.

    Attributes:
        failure: what the log of the run that `ended_run` names comes to.
        phase: how far the running engine is.
        silent_seconds: how long it has printed nothing.
        events: Warning events about the pod and about volumes that it waits for.
    """

    failure: Failure | None = None
    phase: engine_phase.Phase | None = None
    silent_seconds: float = 0.0
    events: Sequence[Mapping[str, Any]] = ()


NOTHING = Evidence()


def speaker(pods: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The youngest living pod of those that are not ready; None without pods."""
    living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    troubled = [pod for pod in living if not _ready(pod)] or living
    return max(troubled, key=_age, default=None)


def diagnose(
    pods: Iterable[Mapping[str, Any]], *, secrets: Iterable[str] = (), evidence: Evidence = NOTHING
) -> Finding | None:
    """The cause that the pod shows that speaks for them; None without pods.

    A program that fails may print its keys. `secrets` never get any further, nor does what looks like a
    token (I6).
    """
    pod = speaker(pods)
    if pod is None:
        return None
    hidden = list(secrets)
    found = _pod({**pod, "status": text.redact(pod.get("status") or {}, hidden)}, evidence)
    # Once more: events and the like may repeat what a container printed.
    return dataclasses.replace(found, message=text.redact(found.message, hidden))


def ended_run(pod: Mapping[str, Any]) -> Run | None:
    """The run of a container that failed and whose log is worth reading."""
    for status in _containers(pod):
        state = status.get("state") or {}
        ended, now = state.get("terminated"), True
        if not ended:
            ended, now = (status.get("lastState") or {}).get("terminated"), False
        if not ended or not _failed(status, ended) or fetch_result.finding(str(ended.get("message", ""))):
            continue
        return Run(
            pod=pod["metadata"]["name"],
            pod_uid=str(pod["metadata"].get("uid", "")),
            container=str(status.get("name", "")),
            identity=str(
                ended.get("containerID") or f"{status.get('restartCount', 0)}/{ended.get('finishedAt')}"
            ),
            previous=not now,
        )
    return None


def starting_engine(pod: Mapping[str, Any]) -> str | None:
    """Name of the engine's container if it runs and is not ready, so that its log tells how far it is."""
    if _component(pod) != _ENGINE:
        return None
    for status in _containers(pod):
        if "running" in (status.get("state") or {}) and not status.get("ready"):
            return str(status.get("name", ""))
    return None


def waits_for_node(pod: Mapping[str, Any]) -> bool:
    """Whether the node or the storage prepares the pod, which only events tell about."""
    status = pod.get("status") or {}
    if status.get("phase", "Pending") != "Pending" or _unscheduled(status) is not None:
        return False
    states = [(each.get("state") or {}).get("waiting") for each in _containers(pod)]
    return all((waiting or {}).get("reason") == "ContainerCreating" for waiting in states[-1:]) or not states


def failure_of(pod: Mapping[str, Any], log: str, ended: Mapping[str, Any]) -> Failure:
    """What the log of a run comes to; `ended` is its terminated state. Only the engine has signatures."""
    classify = engine_log.classify if _component(pod) == _ENGINE else container_end.classify
    return classify(log, exit_code=ended.get("exitCode"), container_reason=str(ended.get("reason") or ""))


def terminated(pod: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """The terminated state of a run."""
    where = "lastState" if run.previous else "state"
    for status in _containers(pod):
        if status.get("name") == run.container:
            return (status.get(where) or {}).get("terminated") or {}
    return {}


def _component(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, ""))


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _age(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Pods of one second are told apart by name, so that the same one speaks each time."""
    return str(pod["metadata"].get("creationTimestamp", "")), str(pod["metadata"]["name"])


def _unscheduled(status: Mapping[str, Any]) -> str | None:
    """The scheduler's words, if it finds no node."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message", ""))
    return None


def _pod(pod: Mapping[str, Any], evidence: Evidence) -> Finding:
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    event = node_trouble.reported(evidence.events, subject=f"pod {name}")
    if (refusal := _unscheduled(status)) is not None:
        finding = scheduling.explain(pod, refusal)
        return event if event is not None and finding.reason is Reason.VolumePending else finding
    if (ended := node_trouble.ended(pod)) is not None and ended.reason is not Reason.NotReady:
        return ended
    for container in _containers(pod):
        if (found := _container(pod, container, evidence)) is not None:
            return found
    if ended is not None:
        return ended
    if event is not None:
        return event
    if status.get("phase") == "Running":
        return _running(pod, name, evidence)
    return Finding(Reason.Starting, f"pod {name} is starting")


def _running(pod: Mapping[str, Any], name: str, evidence: Evidence) -> Finding:
    started = any(status.get("started") for status in _containers(pod))
    if _component(pod) != _ENGINE or (started and evidence.phase is None):
        return Finding(Reason.NotReady, f"pod {name} runs but is not ready yet")
    words, stalled = engine_phase.describe(evidence.phase, silent_seconds=evidence.silent_seconds)
    return Finding(
        Reason.StartStalled if stalled else Reason.Starting, f"the engine runs in pod {name}; {words}"
    )


def _failed(status: Mapping[str, Any], ended: Mapping[str, Any]) -> bool:
    """Whether an end is a failure that has not been overcome."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") == "CrashLoopBackOff":
        return True
    return not status.get("ready") and bool(
        status.get("restartCount") or ended.get("exitCode") or ended.get("reason") == "OOMKilled"
    )


def _container(pod: Mapping[str, Any], status: Mapping[str, Any], evidence: Evidence) -> Finding | None:
    name = f"container {status.get('name')} of pod {pod['metadata']['name']}"
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    why, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if why in images.WAITING:
        reason, permanent = images.cause(why, message)
        said = f"{name}: {status.get('image')}: {text.begin(message or why)}"
        return Finding(reason, said, permanent=permanent)
    if why not in _USUAL:
        return _refused(name, why, message)
    if not ended or not _failed(status, ended):
        return None
    if (fetched := fetch_result.finding(str(ended.get("message", "")))) is not None:
        return fetched
    failure = evidence.failure or failure_of(pod, str(ended.get("message") or ""), ended)
    return _failure(name, status, ended, failure)


def _failure(name: str, status: Mapping[str, Any], ended: Mapping[str, Any], failure: Failure) -> Finding:
    restarts, code = status.get("restartCount", 0), ended.get("exitCode", "unknown")
    times = f"{restarts} restart{'' if restarts == 1 else 's'}"
    if failure.reason is Reason.OutOfMemory:
        said = f"{name} used more memory than its limit, or than the node has ({times})"
    else:
        said = f"{name} ended with exit code {code} after {times}"
        said += f": {failure.said}" if failure.said else ""
    return Finding(failure.reason, said, advice=failure.advice, permanent=failure.permanent)


def _refused(name: str, why: str, message: str) -> Finding:
    """A container that the kubelet or the runtime cannot make, with their own words."""
    said = f"{name}: {text.begin(message or why)}"
    if why == "CreateContainerConfigError":
        if "couldn't find key" in message:
            return Finding(Reason.SecretKeyMissing, said)
        return Finding(Reason.SecretNotFound if "not found" in message else Reason.ContainerStartFailed, said)
    if "exec format error" in message:
        return Finding(Reason.ImageUnusable, said, permanent=True)
    if "nvidia-container-cli" in message:
        return Finding(Reason.GPUNotFound, said)
    if why in ("CreateContainerError", "RunContainerError", "StartError", "PostStartHookError"):
        return Finding(Reason.ContainerStartFailed, said)
    # What a later kubelet may say.
    return Finding(Reason.Starting, said)
