"""Plans in words, and records of what stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import plan
from unit.desired import samples
from unit.observed.live import live, observed

Json = Any
Stage = facts.Stage
Key = tuple[str, str]
Records = dict[Key, seen.Seen]

PUBLIC: dict[str, Json] = {"access": {"exposure": "NodeBalancer"}}
ALL = samples.rendered(PUBLIC, samples.EXPOSED)
#: What is rendered while the firewall is not known, or when the spec asks for no address.
INSIDE = tuple(child for child in ALL if child.stage is not Stage.EXPOSURE)
CONTEXT = plan.Context(uid=samples.UID, expose=True, exposed=True, model_cached=True)


def words(found: plan.Plan) -> list[str]:
    """A plan as sentences, in the order of writing."""
    return [word(step) for step in (*found.retract, *found.steps, *found.prune)]


def word(step: plan.Step) -> str:
    if isinstance(step, plan.Delete):
        return f"delete {step.record.kind} {step.record.name}"
    verb = type(step).__name__.lower()
    if isinstance(step, plan.Apply) and not step.whole:
        verb = "apply metadata of"
    return f"{verb} {step.child.kind} {step.child.name}"


def child_of(kind: str, name: str) -> facts.Child:
    return next(child for child in ALL if (child.kind, child.name) == (kind, name))


def changed(kind: str, name: str, change: Callable[[dict[str, Json]], object]) -> Records:
    """Everything as wanted, but for one object that somebody changed."""
    body = live(child_of(kind, name).manifest)
    change(body)
    return {**observed(ALL), (kind, name): seen.observe(kind, body)}


def with_facts(records: Records, key: Key, **values: Json) -> Records:
    record = records[key]
    return {**records, key: dataclasses.replace(record, facts={**record.facts, **values})}
