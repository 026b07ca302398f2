"""What the engine's Deployment tells of its past: the template that served, the change that failed. Pure.

The Deployment itself is the memory, in annotations that are written together with the template they
explain, so an operator that is killed between any two writes decides alike when it comes back.
ReplicaSets are no memory: the controller prunes them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.observed import seen

Template = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Good:
    """A template that was observed to serve, and what it was rendered from."""

    inputs: str
    rendered: str
    template: Template


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed:
    """A change that was given up.

    Attributes:
        inputs, rendered: what was tried.
        cause: why it was given up, in words without secrets.
        retry: the user's word for another attempt that was known then.
    """

    inputs: str
    rendered: str
    cause: str
    retry: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Live:
    """The engine's Deployment as it was last seen.

    Attributes:
        inputs: fingerprint of the user's inputs behind the template.
        rendered: fingerprint of the template as it was sent; empty for one that no release of today wrote.
        candidate: what would be kept as good if the template proves itself; empty if it is kept already.
        update: the last word for taking over a release's engine that was acted upon.
        foreign: somebody else set a part of the template.
        refused: why the API server does not take the template's pods; empty if it does.
        refused_since: and since when.
        available_since: since when its pod is ready.
    """

    inputs: str = ""
    rendered: str = ""
    candidate: str = ""
    good: Good | None = None
    failed: Failed | None = None
    update: str = ""
    foreign: bool = False
    rolled_out: bool = False
    refused: str = ""
    refused_since: str = ""
    available_since: str = ""
    replicas: int = 0
    generation: int = 0
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def on_trial(self) -> bool:
        """The template differs from the last good one and has not been seen to serve."""
        return self.good is not None and self.rendered != self.good.rendered


def live(record: seen.Seen) -> Live:
    """The engine's Deployment as far as decisions read it."""
    facts = record.facts
    annotations: Mapping[str, str] = facts["engine_state"]
    good = parse_good(annotations.get(seen.ANNOTATION_ENGINE_GOOD, ""))
    inputs, rendered = facts["engine_inputs"], facts["engine_template"]
    if not inputs and good is not None:
        # Somebody took the annotations off; what is kept as good says what they were.
        inputs, rendered = good.inputs, good.rendered
    current = facts["observed_generation"] >= facts["generation"]
    return Live(
        inputs=inputs,
        rendered=rendered,
        candidate=facts["engine_candidate"],
        good=good,
        failed=parse_failed(annotations.get(seen.ANNOTATION_ENGINE_FAILED, "")),
        update=annotations.get(seen.ANNOTATION_ENGINE_UPDATE, ""),
        foreign=bool(facts["foreign_template"]),
        rolled_out=seen.rolled_out(record),
        refused=facts["pods_refused"][0] if current else "",
        refused_since=facts["pods_refused"][1] if current else "",
        available_since=facts["available_since"],
        replicas=facts["replicas"],
        generation=facts["generation"],
        annotations={
            **annotations,
            seen.ANNOTATION_ENGINE_INPUTS: inputs,
            **({seen.ANNOTATION_ENGINE_TEMPLATE: rendered} if rendered else {}),
        },
    )


def container(template: Template) -> Mapping[str, Any]:
    """The engine's container."""
    found: Mapping[str, Any] = template["spec"]["containers"][0]
    return found


def parse_good(text: str) -> Good | None:
    """What an annotation keeps; None if there is none, or somebody garbled it."""
    try:
        held: Any = json.loads(text)
        good = Good(inputs=held["inputs"], rendered=held["rendered"], template=held["template"])
        container(good.template)["args"][0]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return good


def parse_failed(text: str) -> Failed | None:
    try:
        return Failed(**json.loads(text)) if text else None
    except (TypeError, ValueError):
        return None
