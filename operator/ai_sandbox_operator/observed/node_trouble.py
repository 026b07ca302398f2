"""What the node and the storage system say of a pod: evictions, refusals, Warning events. Pure.

Texts: Kubernetes 1.37 (pkg/kubelet/eviction/helpers.go, pkg/kubelet/nodeshutdown,
pkg/controller/volume), linode-blockstorage-csi-driver (internal/driver/errors.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api.conditions import Reason

from . import text
from .finding import Finding

#: `status.reason` of a pod, words in its message (any of them; none: whatever it says), reason.
_ENDS: tuple[tuple[frozenset[str], tuple[str, ...], Reason], ...] = (
    (
        frozenset({"Evicted"}),
        ("exceeds the limit", "exceeds the total limit", "exceeds the local ephemeral storage"),
        Reason.EphemeralStorageExceeded,
    ),
    (
        frozenset({"Evicted"}),
        ("low on resource: ephemeral-storage", "low on resource: inodes", "DiskPressure"),
        Reason.NodeDiskPressure,
    ),
    (frozenset({"Evicted"}), ("low on resource: memory", "MemoryPressure"), Reason.NodeMemoryPressure),
    (frozenset({"Evicted"}), (), Reason.Evicted),
    (frozenset({"Terminated", "NodeShutdown", "Shutdown", "NodeLost"}), (), Reason.NodeShutdown),
    (
        frozenset({"UnexpectedAdmissionError"}),
        ("nvidia.com/gpu",),
        Reason.GPUNotFound,
    ),
    (frozenset({"OutOfnvidia.com/gpu"}), (), Reason.GPUsInUse),
    (frozenset({"OutOfcpu", "OutOfmemory", "OutOfpods"}), (), Reason.InsufficientResources),
    (frozenset({"NodeAffinity"}), (), Reason.NoMatchingNode),
)

#: Reasons of Warning events, words in the message (any of them; none: whatever it says), reason. In
#: order of precedence.
_EVENTS: tuple[tuple[frozenset[str], tuple[str, ...], Reason], ...] = (
    (frozenset({"ProvisioningFailed"}), ("storageclass.storage.k8s.io",), Reason.StorageClassNotFound),
    (frozenset({"ProvisioningFailed", "VolumeResizeFailed"}), (), Reason.VolumeProvisioningFailed),
    (
        frozenset({"FailedAttachVolume"}),
        ("max number of volumes", "maximum number of volumes", "exceed max volume count"),
        Reason.VolumeLimitReached,
    ),
    (frozenset({"FailedAttachVolume"}), (), Reason.VolumeAttachFailed),
    (frozenset({"FailedMount", "FailedMapVolume"}), ("secret ",), Reason.SecretNotFound),
    (frozenset({"FailedMount", "FailedMapVolume"}), (), Reason.VolumeMountFailed),
    (frozenset({"FailedCreatePodSandBox"}), (), Reason.ContainerStartFailed),
)
REASONS = frozenset(row[2] for row in (*_ENDS, *_EVENTS))
_ATTACHED = frozenset({"FailedAttachVolume"})
_PLACED = _ATTACHED | {"FailedMount", "FailedMapVolume", "FailedCreatePodSandBox"}
#: Normal events, and the warnings that they overcome.
_OVERCOMES: dict[str, frozenset[str]] = {
    "SuccessfulAttachVolume": _ATTACHED,
    "ProvisioningSucceeded": frozenset({"ProvisioningFailed"}),
    "Pulling": _PLACED,
    "Pulled": _PLACED,
    "Started": _PLACED,
}


def ended(pod: Mapping[str, Any]) -> Finding | None:
    """Why a pod ended as a whole, if the node ended or refused it."""
    status = pod.get("status") or {}
    why, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if status.get("phase") != "Failed" or not why:
        return None
    reason = _look_up(_ENDS, why, message) or Reason.NotReady
    return Finding(reason, f"pod {pod['metadata']['name']} ended: {text.begin(f'{why}: {message}')}")


def reported(events: Iterable[Mapping[str, Any]], *, subject: str) -> Finding | None:
    """The gravest of the Warning events about a pod that waits or about its volume, or what it waits for.

    A warning counts until the same thing was reported to work: events are kept for an hour.
    """
    newest_first = sorted(events, key=_seen, reverse=True)
    overcome: set[str] = set()
    best: tuple[int, Finding] | None = None
    for event in newest_first:
        why, message = str(event.get("reason") or ""), str(event.get("message") or "")
        if event.get("type") == "Normal":
            overcome |= _OVERCOMES.get(why, frozenset())
            continue
        rank, reason = _rank(why, message)
        if reason is not None and why not in overcome and (best is None or rank < best[0]):
            best = (rank, Finding(reason, f"{subject}: {text.begin(f'{why}: {message}')}"))
    if best is not None:
        return best[1]
    if newest_first and newest_first[0].get("reason") == "Pulling":
        return Finding(Reason.Starting, f"{subject}: {text.begin(str(newest_first[0].get('message')))}")
    return None


def _seen(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or "")


def _rank(why: str, message: str) -> tuple[int, Reason | None]:
    for rank, (reasons, words, reason) in enumerate(_EVENTS):
        if why in reasons and _says(message, words):
            return rank, reason
    return len(_EVENTS), None


def _look_up(
    table: Iterable[tuple[frozenset[str], tuple[str, ...], Reason]], why: str, message: str
) -> Reason | None:
    return next((r for reasons, words, r in table if why in reasons and _says(message, words)), None)


def _says(message: str, words: tuple[str, ...]) -> bool:
    said = message.lower()
    return not words or any(each.lower() in said for each in words)
