"""How a changed engine does on its first way to ready, from its pods. Pure.

Only pods of the template in question count: each carries the fingerprint of its rendering, so that
what ended the engine before is never taken for a fault of the one after.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis, images, seen

Pod = Mapping[str, Any]

#: Seconds beyond a pod's grace period before it counts as stuck; a kubelet needs a moment to tell of the end.
STUCK_AFTER = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What the pods of one template were seen to do.

    Attributes:
        generation: of the Deployment when the pods were listed; another one has other pods.
        since: when the newest of these pods got its node, RFC 3339; its creation while it has none.
        restarts: ends of their containers, and of pods that ended as a whole.
        unpulled: an image is not to be had.
        unscheduled: no node takes the pod.
        finding: the cause in words.
    """

    generation: int
    since: str
    restarts: int
    unpulled: bool
    unscheduled: bool
    finding: diagnosis.Finding


def observe(pods: Iterable[Pod], deployment: seen.Seen, finding: diagnosis.Finding | None) -> Trial | None:
    """The trial of the Deployment's current template; None while it has no pod."""
    mine = [pod for pod in pods if _of(pod, deployment) and "deletionTimestamp" not in pod["metadata"]]
    if not mine or finding is None:
        return None
    return Trial(
        generation=deployment.facts["generation"],
        since=max(_since(pod) for pod in mine),
        restarts=sum(_ends(pod) for pod in mine),
        unpulled=any(_waits_for(pod) in images.WAITING for pod in mine),
        unscheduled=any(_unscheduled(pod) for pod in mine),
        finding=finding,
    )


def stuck(pods: Sequence[Pod], now: datetime.datetime) -> diagnosis.Finding | None:
    """The pod that should have ended and holds up its successor; None while a new pod is there."""
    ending = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
    if len(ending) < len(pods):
        return None
    for pod in sorted(ending, key=lambda pod: str(pod["metadata"]["name"])):
        # The server sets the deletion's time to the end of the grace period.
        due = datetime.datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
        if (now - due).total_seconds() > STUCK_AFTER:
            node = (pod.get("spec") or {}).get("nodeName", "unknown")
            return diagnosis.Finding(
                Reason.OldPodStuck,
                f"the old pod {pod['metadata']['name']} on node {node} was to end by "
                f"{pod['metadata']['deletionTimestamp']} and has not; it holds the GPU and the model's volume",
            )
    return None


def _of(pod: Pod, deployment: seen.Seen) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return bool(annotations.get(seen.ANNOTATION_ENGINE_TEMPLATE, "") == deployment.facts["engine_template"])


def _ends(pod: Pod) -> int:
    status = pod.get("status") or {}
    failed = status.get("phase") == "Failed"
    return int(failed) + sum(int(c.get("restartCount") or 0) for c in status.get("containerStatuses") or ())


def _waits_for(pod: Pod) -> str:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if reason := ((container.get("state") or {}).get("waiting") or {}).get("reason"):
            return str(reason)
    return ""


def _unscheduled(pod: Pod) -> bool:
    return _scheduled(pod).get("status") == "False"


def _since(pod: Pod) -> str:
    """When its start began. Waiting for a node is no part of it: that may take hours and is nobody's fault."""
    found = _scheduled(pod)
    at = found.get("lastTransitionTime") if found.get("status") == "True" else None
    return str(at or pod["metadata"]["creationTimestamp"])


def _scheduled(pod: Pod) -> Mapping[str, Any]:
    """The pod's condition PodScheduled; empty where there is none."""
    conditions: Iterable[Mapping[str, Any]] = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == "PodScheduled"), {})
