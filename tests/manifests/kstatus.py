"""kstatus for custom resources: how `kubectl wait`, Helm 4 and Flux judge an object that they do not know.

The rules are those of sigs.k8s.io/cli-utils, pkg/kstatus/status: generic.go (deletion, generation, Reconciling and
Stalled in stored order) and then status.go (Ready; an object without it counts as current).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Status(enum.StrEnum):
    """The library's words."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def compute(body: Mapping[str, Any]) -> Status:
    """Status of a custom resource."""
    metadata, status = body["metadata"], body.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Status.TERMINATING
    seen = status.get("observedGeneration")
    if seen is not None and "generation" in metadata and seen != metadata["generation"]:
        return Status.IN_PROGRESS
    conditions = status.get("conditions") or ()
    for condition in conditions:
        match condition["type"], condition["status"]:
            case "Reconciling", "True":
                return Status.IN_PROGRESS
            case "Stalled", "True":
                return Status.FAILED
    for condition in conditions:
        if condition["type"] == "Ready":
            return Status.CURRENT if condition["status"] == "True" else Status.IN_PROGRESS
    return Status.CURRENT
