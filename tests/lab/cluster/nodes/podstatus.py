"""The status of a pod that follows from its state. Pure.

Written as a kubelet writes it, because its readers (Deployments, Jobs, people, the operator's diagnosis)
look at details: which condition carries the reason, what stays in `lastState`, what a message says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.lifecycle import ENDED, WAITING, End, Phase, State, completes

#: Conditions this module writes; those of others are kept.
_OURS = frozenset({"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"})
_PHASES = {Phase.SUCCEEDED: "Succeeded", Phase.FAILED: "Failed"}
#: What the kubelet says, not what the lab waits: its back-off begins at 10 s and ends at 5 min.
_BACKOFF_SECONDS = (10, 300)


@dataclass(frozen=True)
class Place:
    """Where the pod runs."""

    host_ip: str
    pod_ip: str


def timestamp(seconds: float) -> str:
    """RFC 3339, whole seconds, as Kubernetes writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build(pod: Mapping[str, Any], state: State, behaviour: Behaviour, place: Place) -> dict[str, Any]:
    """The whole status of the pod, for a merge patch."""
    spec = pod["spec"]
    ready = is_ready(pod, state)
    statuses = [
        _container(pod, container, state, behaviour, first=index == 0, ready=ready)
        for index, container in enumerate(spec["containers"])
    ]
    status: dict[str, Any] = {
        "phase": _PHASES.get(state.phase, "Pending" if state.phase in WAITING else "Running"),
        "qosClass": (pod.get("status") or {}).get("qosClass"),
        "hostIP": place.host_ip,
        "hostIPs": [{"ip": place.host_ip}],
        "startTime": timestamp(state.seen),
        "conditions": _conditions(pod, state, [c["name"] for c in statuses if not c["ready"]]),
        "containerStatuses": statuses,
    }
    if state.phase is not Phase.CREATING:
        status |= {"podIP": place.pod_ip, "podIPs": [{"ip": place.pod_ip}]}
    if init := spec.get("initContainers"):
        status["initContainerStatuses"] = [_init(pod, container, state) for container in init]
    return {key: value for key, value in status.items() if value is not None}


def is_ready(pod: Mapping[str, Any], state: State) -> bool:
    """Whether the pod counts as ready; one that runs to completion has no probe to wait for."""
    return state.phase is Phase.READY or (state.phase is Phase.RUNNING and completes(pod))


def _container(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    state: State,
    behaviour: Behaviour,
    *,
    first: bool,
    ready: bool,
) -> dict[str, Any]:
    """Failures are the first container's; the others live on as long as the pod does."""
    name = container["name"]
    running = {"running": {"startedAt": timestamp(state.started)}}
    restarts = state.restarts if first else 0
    current: dict[str, Any] = running
    last: dict[str, Any] = {}
    if state.phase in ENDED:
        assert state.last is not None
        current = _ended(pod, name, restarts, state.last if first else _quiet(state.last))
    elif state.phase in WAITING:
        current = {"waiting": _waiting(pod, container, state, behaviour)}
    elif first and state.last is not None:
        in_backoff = state.phase is Phase.BACKOFF
        last = _ended(pod, name, restarts if in_backoff else restarts - 1, state.last)
        if in_backoff:
            current = {"waiting": _crash_loop(pod, name, restarts)}
    is_running = "running" in current
    result: dict[str, Any] = {
        "name": name,
        "image": container["image"],
        "imageID": "" if state.phase in WAITING else _image_id(container["image"]),
        "ready": is_running and (ready or not first),
        "started": is_running and (ready or not first or "startupProbe" not in container),
        "restartCount": restarts,
        "state": current,
        "lastState": last,
    }
    if state.phase not in WAITING:
        result["containerID"] = _container_id(pod, name, restarts)
    return result


def _init(pod: Mapping[str, Any], container: Mapping[str, Any], state: State) -> dict[str, Any]:
    """Init containers run and succeed in the instant before the others start; sidecars keep running."""
    name = container["name"]
    sidecar = container.get("restartPolicy") == "Always"
    waiting = state.phase in WAITING
    at = End(0, "Completed", None, state.started, state.started)
    current: dict[str, Any]
    if waiting:
        missing = state.blocked is not None and state.blocked.container == name
        current = {"waiting": _config_error(state) if missing else {"reason": "PodInitializing"}}
    elif sidecar and state.phase not in ENDED:
        current = {"running": {"startedAt": timestamp(state.started)}}
    else:
        current = _ended(pod, name, 0, at)
    result: dict[str, Any] = {
        "name": name,
        "image": container["image"],
        "imageID": "" if waiting else _image_id(container["image"]),
        "ready": not waiting and ("running" in current or not sidecar),
        "started": "running" in current,
        "restartCount": 0,
        "state": current,
        "lastState": {},
    }
    if not waiting:
        result["containerID"] = _container_id(pod, name, 0)
    return result


def _waiting(
    pod: Mapping[str, Any], container: Mapping[str, Any], state: State, behaviour: Behaviour
) -> dict[str, str]:
    image = container["image"]
    if state.phase is Phase.PULL_ERROR:
        return {"reason": "ErrImagePull", "message": behaviour.message or pull_error(image)}
    if state.phase is Phase.PULL_BACKOFF:
        cause = behaviour.message or pull_error(image)
        return {
            "reason": "ImagePullBackOff",
            "message": f'Back-off pulling image "{image}": ErrImagePull: {cause}',
        }
    if state.phase is Phase.CONFIG_ERROR and state.blocked and state.blocked.container == container["name"]:
        return _config_error(state)
    return {"reason": "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"}


def _config_error(state: State) -> dict[str, str]:
    assert state.blocked is not None
    return {"reason": "CreateContainerConfigError", "message": state.blocked.message}


def pull_error(image: str) -> str:
    """What containerd says about an image that is not there."""
    reference = image if "/" in image else f"library/{image}"
    if "." not in reference.split("/")[0]:
        reference = f"docker.io/{reference}"
    return (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{reference}": '
        f'failed to resolve reference "{reference}": {reference}: not found'
    )


def _crash_loop(pod: Mapping[str, Any], name: str, restarts: int) -> dict[str, str]:
    low, high = _BACKOFF_SECONDS
    seconds = min(low * 2 ** min(restarts - 1, 10), high)
    delay = f"{seconds // 60}m{seconds % 60}s" if seconds >= 60 else f"{seconds}s"
    meta = pod["metadata"]
    where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    return {
        "reason": "CrashLoopBackOff",
        "message": f"back-off {delay} restarting failed container={name} pod={where}",
    }


def _ended(pod: Mapping[str, Any], name: str, restarts: int, end: End) -> dict[str, Any]:
    terminated: dict[str, Any] = {
        "exitCode": end.exit_code,
        "reason": end.reason,
        "startedAt": timestamp(end.started),
        "finishedAt": timestamp(end.finished),
        "containerID": _container_id(pod, name, restarts),
    }
    if end.message:
        terminated["message"] = end.message
    return {"terminated": terminated}


def _quiet(end: End) -> End:
    """The end of a container that did nothing wrong."""
    return End(0, "Completed", None, end.started, end.finished)


def _conditions(pod: Mapping[str, Any], state: State, unready: Sequence[str]) -> list[dict[str, Any]]:
    """`unready` names the containers that are not ready."""
    ended = state.phase in ENDED
    why: dict[str, str] = {}
    if ended:
        why = {"reason": "PodCompleted" if state.phase is Phase.SUCCEEDED else "PodFailed"}
    elif unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        why = {"reason": "ContainersNotReady", "message": message}
    init = [one["name"] for one in pod["spec"].get("initContainers") or ()]
    uninitialized = state.phase in WAITING and bool(init)
    initialized: dict[str, str] = {}
    if uninitialized:
        message = f"containers with incomplete status: [{' '.join(init)}]"
        initialized = {"reason": "ContainersNotInitialized", "message": message}
    elif state.phase is Phase.SUCCEEDED:
        initialized = why
    wanted: tuple[tuple[str, bool, Mapping[str, str]], ...] = (
        ("PodReadyToStartContainers", state.phase is not Phase.CREATING and not ended, {}),
        ("Initialized", not uninitialized, initialized),
        ("Ready", not why, why),
        ("ContainersReady", not why, why),
        ("PodScheduled", True, {}),
    )
    before = {one["type"]: one for one in (pod.get("status") or {}).get("conditions") or ()}
    result = [
        _condition(kind, holds, detail, before.get(kind), timestamp(state.since))
        for kind, holds, detail in wanted
    ]
    return result + [one for kind, one in before.items() if kind not in _OURS]


def _condition(
    kind: str, holds: bool, detail: Mapping[str, str], before: Mapping[str, Any] | None, now: str
) -> dict[str, Any]:
    """The transition time changes with the status alone."""
    status = str(holds)
    since = before["lastTransitionTime"] if before and before["status"] == status else now
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since, **detail}


def _container_id(pod: Mapping[str, Any], name: str, restarts: int) -> str:
    return f"containerd://{_digest(pod['metadata']['uid'], name, str(restarts))}"


def _image_id(image: str) -> str:
    folder, slash, name = image.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}@sha256:{_digest(image)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()
