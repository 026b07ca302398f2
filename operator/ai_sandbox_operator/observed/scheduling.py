"""Why the scheduler finds no node, from its one sentence. Pure.

`0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node
affinity/selector. preemption: 0/3 nodes are available: ...` names for each node the first filter that
refused it (Kubernetes 1.37: pkg/scheduler/framework/types.go, FitError). Filters run in the order
cordon, taints, labels, ports, resources, volumes; so the node that came furthest tells the cause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import names
from ai_sandbox_operator.api.conditions import Reason

from . import text
from .finding import Finding

GPU = "nvidia.com/gpu"
#: Taints by which Kubernetes itself says that a node is not to be used.
_UNHEALTHY = re.compile(r"node\.kubernetes\.io/(?!instance)|node\.cloudprovider\.kubernetes\.io/")
_BODY = re.compile(r"nodes are available:\s*(.*?)(?:\.? (?:no new claims|preemption:)|$)", re.DOTALL)
_PART = re.compile(r"(\d+) (.+?)(?=, \d+ |\.?$)", re.DOTALL)
_TAINT = re.compile(r"untolerated taint(?:\(s\))?(?: \{([^}:]*))?")


def explain(pod: Mapping[str, Any], message: str) -> Finding:
    """The cause in words, with the scheduler's own.

    Args:
        pod: the pod that waits; its spec tells the plan and the GPUs that it asks for.
        message: of its condition PodScheduled.
    """
    reason, words, advice = _cause(_counts(message), message, *_asks(pod))
    own = text.begin(message.partition(" preemption:")[0].removesuffix(" no new claims to deallocate,"))
    name = pod["metadata"]["name"]
    return Finding(reason, f"pod {name}: {words} ({own})" if words else f"pod {name}: {own}", advice)


def _asks(pod: Mapping[str, Any]) -> tuple[str, int]:
    """Plan (empty: any) and number of GPUs."""
    spec = pod.get("spec") or {}
    plan = str((spec.get("nodeSelector") or {}).get(names.LABEL_PLAN, ""))
    limits = [(c.get("resources") or {}).get("limits") or {} for c in spec.get("containers") or ()]
    return plan, sum(int(each.get(GPU, 0)) for each in limits)


def _counts(message: str) -> dict[str, int]:
    """Number of nodes by what refused them."""
    body = _BODY.search(message)
    return {words.strip(): int(count) for count, words in _PART.findall(body[1])} if body else {}


def _cause(counts: Mapping[str, int], message: str, plan: str, gpus: int) -> tuple[Reason, str, str]:
    """Reason, words and advice of the node that came furthest."""

    def nodes(words: str) -> int:
        return sum(count for refusal, count in counts.items() if words in refusal)

    if "unbound immediate PersistentVolumeClaims" in message or "waiting for ephemeral volume" in message:
        return Reason.VolumePending, "its volume is not there yet", ""
    if "persistentvolumeclaim" in message.lower() and ("not found" in message or "non-existent" in message):
        return Reason.VolumePending, "its volume does not exist", ""
    if nodes("volume node affinity conflict") or nodes("no available volume zone"):
        return Reason.VolumeNodeConflict, "its volume is elsewhere", ""
    if nodes("exceed max volume count"):
        return Reason.VolumeLimitReached, "the nodes hold as many volumes as they can", ""
    short = [r for r in ("cpu", "memory", "ephemeral-storage", "pods") if nodes(_shortage(r))]
    without_gpu = nodes(f"Insufficient {GPU}")
    refused = sum(counts.values()) - sum(nodes(_shortage(r)) for r in short)
    # A node that lacks several things is counted for each; one that lacks only CPU has GPUs to give.
    if short and (not without_gpu or refused < _total(message)):
        lacking = " and ".join("room for pods" if resource == "pods" else resource for resource in short)
        return Reason.InsufficientResources, f"no node has enough free {lacking}", ""
    if without_gpu:
        return _gpus(message, plan, gpus)
    return _placement(counts, plan)


def _shortage(resource: str) -> str:
    return "Too many pods" if resource == "pods" else f"Insufficient {resource}"


def _total(message: str) -> int:
    found = re.match(r"\s*0/(\d+) nodes", message)
    return int(found[1]) if found else 0


def _gpus(message: str, plan: str, gpus: int) -> tuple[Reason, str, str]:
    """The scheduler tells a node that has too few GPUs from one whose GPUs are in use by its hopes for preemption."""
    wanted = f"{gpus} GPU{'' if gpus == 1 else 's'}" + (f" of plan {plan}" if plan else "")
    of_plan = f"of plan {plan}" if plan else "of a GPU plan"
    if "Preemption is not helpful" in message and "No preemption victims" not in message:
        return (
            Reason.NoGPUNode,
            f"no node has {wanted}",
            f"Add a node pool {of_plan} with {gpus} or more GPUs per node, or lower spec.gpu.count.",
        )
    return (
        Reason.GPUsInUse,
        f"no node has {wanted} free",
        f"Add a node {of_plan}, or free a GPU: suspend another sandbox (spec.lifecycle.state: Suspended).",
    )


def _placement(counts: Mapping[str, int], plan: str) -> tuple[Reason, str, str]:
    taints = [found[1] or "" for refusal in counts if (found := _TAINT.search(refusal))]
    unhealthy = [taint for taint in taints if _UNHEALTHY.match(taint)]
    own = [taint for taint in taints if taint not in unhealthy]
    if own:
        # Kubernetes 1.37 no longer names it.
        words = f"the nodes have the taint {own[0]}" if own[0] else "the nodes have a taint"
        return Reason.TaintNotTolerated, words, ""
    if unhealthy or any("were unschedulable" in refusal for refusal in counts):
        return Reason.NodeUnavailable, "the nodes are cordoned or not ready", ""
    if any("node affinity/selector" in refusal for refusal in counts):
        if plan:
            return (
                Reason.NoMatchingNode,
                f"no node is of plan {plan}, or none of these has the labels asked for",
                f"Add a node pool of plan {plan}, or correct spec.gpu.plan and spec.gpu.nodeSelector.",
            )
        return Reason.NoMatchingNode, "no node has the labels asked for", ""
    return Reason.Unschedulable, "", ""
