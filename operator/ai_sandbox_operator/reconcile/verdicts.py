"""The words of a verdict. Pure."""

from __future__ import annotations

from ai_sandbox_operator.api.conditions import ConditionType, Reason, Status, Verdict
from ai_sandbox_operator.observed import diagnosis

from .views import Situation

_ABNORMAL_TRUE = frozenset({ConditionType.STALLED, ConditionType.UPDATE_AVAILABLE})


def verdict(
    type_: ConditionType, status: Status, reason: Reason, message: str = "", advice: str = ""
) -> Verdict:
    """A verdict whose words end with what to do, unless there is nothing to do.

    Args:
        message: what was observed; the reason's meaning where nothing was.
        advice: instead of the reason's remedy, with more detail.
    """
    doc = reason.doc
    text = message or doc.meaning
    bad = status == "True" if type_ in _ABNORMAL_TRUE else status != "True"
    if bad and doc.remedy not in ("Nothing to do.", "Wait."):
        text = f"{text.rstrip('.')}. {advice or doc.remedy}"
    return Verdict(type=type_, status=status, reason=reason, message=text)


def told_before(situation: Situation, type_: ConditionType) -> Verdict | None:
    """What was told of this very generation stands until it was looked again: a restart says nothing new (I4)."""
    for condition in situation.sandbox.status.conditions:
        current = condition.observed_generation == situation.sandbox.metadata.generation
        if condition.type == type_ and current and condition.reason in Reason.__members__:
            return Verdict(
                type=type_,
                status=condition.status,
                reason=Reason[condition.reason],
                message=condition.message,
            )
    return None


def pods(type_: ConditionType, finding: diagnosis.Finding | None, fallback: str = "") -> Verdict:
    """What a finding about pods says."""
    if finding is None:
        return verdict(type_, "False", Reason.Starting, fallback)
    return verdict(type_, "False", finding.reason, finding.message, finding.advice)
