"""Why pods are not ready, from their own status. Pure.

The scheduler, the kubelet and the container each leave their reason in another place; the first of
these that speaks is the cause, in the order in which a pod comes to life.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api.conditions import Reason

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_USUAL = frozenset({"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
MESSAGE_LIMIT = 400
#: Shorter values are no secrets, and blotting them out would garble the text.
MIN_SECRET = 8


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cause and the words of the component that reported it."""

    reason: Reason
    message: str


def diagnose(pods: Iterable[Mapping[str, Any]], *, secrets: Iterable[str] = ()) -> Finding | None:
    """The cause that the youngest living pod shows, of those that are not ready; None without pods.

    A program that fails may print its keys. `secrets` never get any further, nor do tokens of the hub (I6).
    """
    living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    troubled = [pod for pod in living if not _ready(pod)] or living
    if not troubled:
        return None
    pod = max(troubled, key=_age)
    # Before anything is shortened: half a key is a secret too.
    hidden = [secret for secret in secrets if len(secret) >= MIN_SECRET]
    return _pod({**pod, "status": _blot(pod.get("status") or {}, hidden)})


def _blot(value: Any, secrets: list[str]) -> Any:
    """`value` with every secret in its texts blotted out."""
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, "[secret]")
            return _HUB_TOKEN.sub("[secret]", value)
        case dict():
            return {key: _blot(item, secrets) for key, item in value.items()}
        case list():
            return [_blot(item, secrets) for item in value]
        case _:
            return value


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _age(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Pods of one second are told apart by name, so that the same one speaks each time."""
    return str(pod["metadata"].get("creationTimestamp", "")), str(pod["metadata"]["name"])


def _pod(pod: Mapping[str, Any]) -> Finding:
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Finding(Reason.Unschedulable, f"pod {name}: {shorten(condition.get('message', ''))}")
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        if (finding := _container(name, container)) is not None:
            return finding
    if status.get("phase") == "Failed" and status.get("reason"):
        text = shorten(f"{status['reason']}: {status.get('message', '')}")
        return Finding(Reason.NotReady, f"pod {name} ended: {text}")
    if status.get("phase") == "Running":
        return Finding(Reason.NotReady, f"pod {name} runs but is not ready yet")
    return Finding(Reason.Starting, f"pod {name} is starting")


def _container(pod: str, status: Mapping[str, Any]) -> Finding | None:
    name = f"container {status.get('name')} of pod {pod}"
    waiting = (status.get("state") or {}).get("waiting") or {}
    ended = (
        (status.get("state") or {}).get("terminated")
        or (status.get("lastState") or {}).get("terminated")
        or {}
    )
    if waiting.get("reason") in _PULL:
        return Finding(
            Reason.ImagePullFailed, f"{name}: {status.get('image')}: {shorten(waiting.get('message', ''))}"
        )
    if (reason := waiting.get("reason", "")) not in _USUAL:
        # A missing Secret, a container runtime's own words, or what a later kubelet may say.
        return Finding(Reason.Starting, f"{name}: {shorten(waiting.get('message') or reason)}")
    if ended.get("reason") == "OOMKilled" and not status.get("ready"):
        return Finding(
            Reason.OutOfMemory,
            f"{name} used more memory than its limit ({status.get('restartCount', 0)} restarts)",
        )
    failed = bool(ended) and not status.get("ready") and (status.get("restartCount") or ended.get("exitCode"))
    if waiting.get("reason") == "CrashLoopBackOff" or failed:
        detail = shorten(ended.get("message", ""))
        code = ended.get("exitCode", "unknown")
        return Finding(
            Reason.CrashLoop,
            f"{name} ended with exit code {code} after {status.get('restartCount', 0)} restarts"
            + (f": {detail}" if detail else ""),
        )
    return None


def shorten(text: str) -> str:
    """`text` on one line, its end kept: causes stand at the end of what programs print."""
    line = " ".join(str(text).split())
    return line if len(line) <= MESSAGE_LIMIT else "… " + line[-MESSAGE_LIMIT:]
