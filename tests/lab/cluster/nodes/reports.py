"""Events of a kubelet about a pod in trouble. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.lifecycle import Phase, State
from lab.cluster.nodes.podstatus import pull_error, timestamp


def build(pod: Mapping[str, Any], state: State, behaviour: Behaviour, now: float) -> dict[str, Any] | None:
    """The Event that belongs to the state just reached; None when nothing is wrong."""
    told = _told(pod, state, behaviour)
    if told is None:
        return None
    reason, message = told
    reference = {"apiVersion": "v1", "kind": "Pod"} | {
        key: pod["metadata"][key] for key in ("namespace", "name", "uid")
    }
    return event(reference, reason, message, now, component="kubelet", host=pod["spec"]["nodeName"])


def event(
    about: Mapping[str, str],
    reason: str,
    message: str,
    now: float,
    *,
    component: str,
    host: str = "",
    kind: str = "Warning",
) -> dict[str, Any]:
    """A core/v1 Event about an object."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name']}.{uuid.uuid4().hex[:16]}", "namespace": about["namespace"]},
        "involvedObject": dict(about),
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "source": {"component": component, **({"host": host} if host else {})},
        "reportingComponent": component,
    }


def _told(pod: Mapping[str, Any], state: State, behaviour: Behaviour) -> tuple[str, str] | None:
    first = pod["spec"]["containers"][0]
    name, image = first["name"], first["image"]
    match state.phase:
        case Phase.CREATING if state.blocked is not None:
            return "FailedMount", state.blocked.message
        case Phase.CONFIG_ERROR if state.blocked is not None:
            return "Failed", f"Error: {state.blocked.message}"
        case Phase.PULL_ERROR:
            cause = behaviour.message or pull_error(image)
            return "Failed", f'Failed to pull image "{image}": {cause}'
        case Phase.PULL_BACKOFF:
            return "BackOff", f'Back-off pulling image "{image}"'
        case Phase.BACKOFF:
            meta = pod["metadata"]
            where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
            return "BackOff", f"Back-off restarting failed container {name} in pod {where}"
        case Phase.RUNNING if behaviour.kind == "never-ready":
            return "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"
    return None
