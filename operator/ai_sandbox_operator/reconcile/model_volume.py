"""Who uses the model volume, as far as the place of a download depends on it. Pure.

The volume is attached to one node at a time. While a pod of the engine is on a node, a download must run on
that node, and cannot anywhere else; without such a pod it must not wait for one. The engine's Deployment does
not tell: its pod may wait for a node, or be on one and end again and again. So the pods themselves are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import common

Pod = Mapping[str, Any]
_ENDED = frozenset({"Succeeded", "Failed"})
_JOB = "batch.kubernetes.io/job-name"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Use:
    """The pods on the volume.

    Attributes:
        engine_node: node of the engine's pod; empty while none is on a node to stay.
        jobs: by Job the node (empty: none yet) and the phase of each of its pods that has not ended.
    """

    engine_node: str = ""
    jobs: Mapping[str, tuple[tuple[str, str], ...]] = dataclasses.field(default_factory=dict)

    def strands(self, job: str, *, beside: bool) -> bool:
        """Whether an unfinished Job's pod would wait for ever.

        Args:
            beside: it may run beside an engine only.
        """
        if beside == bool(self.engine_node):
            return False
        # A pod that has a place keeps it: beside an engine that has left, or before one that waits for the volume.
        return not any(
            node and (beside or phase == "Running" or node == self.engine_node)
            for node, phase in self.jobs.get(job, ())
        )


#: While nothing is to be downloaded, nobody looks.
UNUSED = Use()


def use(pods: Iterable[Pod]) -> Use:
    """What a sandbox's pods say."""
    jobs: dict[str, tuple[tuple[str, str], ...]] = {}
    engine_node = ""
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        phase = str((pod.get("status") or {}).get("phase") or "")
        if phase in _ENDED:
            continue
        if labels.get(names.LABEL_COMPONENT) == common.ENGINE and "deletionTimestamp" not in pod["metadata"]:
            engine_node = engine_node or node
        if job := labels.get(_JOB):
            jobs[job] = (*jobs.get(job, ()), (node, phase))
    return Use(engine_node=engine_node, jobs=jobs)
