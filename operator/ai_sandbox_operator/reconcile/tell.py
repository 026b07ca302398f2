"""Builds the status that is written, and the events that go with it. Pure but for the given time.

`lastTransitionTime` moves only with a condition's status, and nothing else in the status depends on
the clock: a pass that changes nothing must produce the same bytes, or it would cause the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Verdict
from ai_sandbox_operator.observed import diagnosis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Announcement:
    """An event to record."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def build_status(
    sandbox: v1alpha1.AISandbox,
    verdicts: Sequence[Verdict],
    *,
    now: str,
    endpoints: Mapping[str, str],
    linode: Mapping[str, int],
    applied: Mapping[str, str],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The complete status; empty groups are left out."""
    held = {condition.type: condition for condition in sandbox.status.conditions}
    conditions = []
    for verdict in verdicts:
        before = held.get(verdict.type)
        unchanged = before is not None and before.status == verdict.status
        conditions.append(
            {
                "type": str(verdict.type),
                "status": verdict.status,
                "observedGeneration": sandbox.metadata.generation,
                "lastTransitionTime": before.last_transition_time if before and unchanged else now,
                "reason": verdict.reason.name,
                "message": verdict.message,
            }
        )
    status: dict[str, Any] = {"observedGeneration": sandbox.metadata.generation, "conditions": conditions}
    groups: dict[str, Mapping[str, Any]] = {
        "model": model,
        "endpoints": endpoints,
        "linode": linode,
        "applied": applied,
    }
    return {**status, **{name: dict(group) for name, group in groups.items() if group}}


def differs(body: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether writing `status` would change the stored object."""
    held = body.get("status") or {}
    return any(held.get(field) != value for field, value in status.items()) or any(
        field in held and field not in status for field in ("model", "endpoints", "linode", "applied")
    )


def urgent(
    sandbox: v1alpha1.AISandbox, verdicts: Sequence[Verdict], *, linode: Mapping[str, int] | None = None
) -> bool:
    """Whether a change must be told at once: another generation, a status that turned, a new Linode object.

    Ids of Linode objects are recorded early, because deletion finds by them what the cloud controller
    manager forgot. A mere change of words may wait a little, so that a burst of pod events costs one write.
    """
    if sandbox.status.observed_generation != sandbox.metadata.generation:
        return True
    known = sandbox.status.linode or v1alpha1.LinodeStatus()
    recorded = {"firewallID": known.firewall_id, "nodeBalancerID": known.node_balancer_id}
    if any((linode or {}).get(name, ident) != ident for name, ident in recorded.items()):
        return True
    held = {c.type: c.status for c in sandbox.status.conditions}
    watched = (ConditionType.READY, ConditionType.STALLED, ConditionType.NETWORK_PROTECTED)
    return any(held.get(v.type) != v.status for v in verdicts if v.type in watched)


def announcements(sandbox: v1alpha1.AISandbox, verdicts: Sequence[Verdict]) -> list[Announcement]:
    """Events for conditions that turned, or that stayed False for another reason."""
    held = {condition.type: condition for condition in sandbox.status.conditions}
    told = []
    for verdict in verdicts:
        if verdict.type not in _ANNOUNCED:
            continue
        before = held.get(verdict.type)
        turned = before is None or before.status != verdict.status or before.reason != verdict.reason.name
        bad = verdict.reason.name in _WARNINGS
        if turned and (verdict.status == "True" or bad):
            told.append(
                Announcement(
                    type="Warning" if bad else "Normal", reason=verdict.reason.name, message=verdict.message
                )
            )
    return list({(a.reason, a.message): a for a in told}.values())


_ANNOUNCED = frozenset({ConditionType.READY, ConditionType.NETWORK_PROTECTED, ConditionType.STALLED})
_WARNINGS = frozenset(reason.name for reason in diagnosis.FAILURES) | frozenset(
    {
        "DeletionBlocked",
        "InvalidSpec",
        "SecretNotFound",
        "SecretKeyMissing",
        "NameTaken",
        "WriteRefused",
        "AuthorityUnusable",
        "OperatorFault",
        "NoLinodeToken",
        "LinodeUnavailable",
        "ForeignFirewall",
        "TooManyNetworks",
        "NotAttached",
        "RolledBack",
        "OldPodStuck",
    }
)
