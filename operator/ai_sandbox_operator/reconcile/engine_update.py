"""Whether the engine's pod template changes, and back to what. Pure.

One GPU and a ReadWriteOnce volume leave no room for two engines, so the old pod ends before the new
one is tried. What was observed to serve is therefore kept, as text, in an annotation of the
Deployment: a change that fails for good is answered with exactly that template. The template is only
ever one of two things: what was rendered for a change that the user asked for, or the last good one.

"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import common
from ai_sandbox_operator.desired.facts import Child
from ai_sandbox_operator.observed import seen

from .engine_state import Failed, Good, Live, Template, container, parse_good
from .engine_trial import Trial

#: Said while the engine is being replaced: how, and why so.
STRATEGY = (
    "replacing the engine: one GPU and a ReadWriteOnce volume, so the old pod ends first (up to 120 s for open "
    "streams)"
)
#: Restarts after which a container that ends again and again is given up. The kubelet waits 10, 20 and
#: 40 s before them, so a fault that passes by itself has a minute to do so.
RESTARTS = 3
#: Seconds for which an image that cannot be pulled, or a pod that no node takes, is waited for.
PATIENCE = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What this release renders for the current spec.

    Attributes:
        inputs, rendered: see `Live`.
        budget: seconds from the time at which a pod has a node to ready, at the most.
    """

    inputs: str
    rendered: str
    template: Template
    budget: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """What decides besides the two templates.

    Attributes:
        changeable: the wanted template could start: its model is cached, or nothing runs.
        serving: EngineReady was told as True for the current generation of the sandbox.
        update, retry: the user's words in annotations of the sandbox; empty if there are none.
        silent: what is wrong with the answers of an engine whose pod is ready; empty if nothing is known.
        now: absent where nobody can tell how long something took.
    """

    changeable: bool = True
    serving: bool = False
    update: str = ""
    retry: str = ""
    trial: Trial | None = None
    silent: str = ""
    now: datetime.datetime | None = None
    patience: float = PATIENCE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What the Deployment is to be.

    Attributes:
        template: what its pod template becomes; None: it stays.
        annotations: all annotations of `seen.ENGINE_STATE`; one that is not named goes.
    """

    template: Template | None
    annotations: Mapping[str, str]


def wanted(manifest: Mapping[str, Any]) -> Wanted:
    """What a rendered Deployment asks for; its template is marked, so that its pods can be told apart."""
    template = manifest["spec"]["template"]
    rendered = common.fingerprint(template)
    marks = {**template["metadata"].get("annotations", {}), seen.ANNOTATION_ENGINE_TEMPLATE: rendered}
    return Wanted(
        inputs=manifest["metadata"]["annotations"][seen.ANNOTATION_ENGINE_INPUTS],
        rendered=rendered,
        template={**template, "metadata": {**template["metadata"], "annotations": marks}},
        budget=float(manifest["spec"]["progressDeadlineSeconds"]),
    )


def with_model_of(child: Child, record: seen.Seen) -> Child:
    """The child with the model that the live engine carries: what is held takes over nothing of the spec."""
    metadata = child.manifest["metadata"]
    annotations = {k: v for k, v in metadata["annotations"].items() if k != names.ANNOTATION_MODEL}
    if record.facts["model"]:
        annotations[names.ANNOTATION_MODEL] = record.facts["model"]
    metadata = {**metadata, "annotations": annotations}
    return dataclasses.replace(child, manifest={**child.manifest, "metadata": metadata})


def as_decided(child: Child, decision: Decision, *, template: Template, replicas: int) -> Child:
    """The engine's Deployment with the annotations that were decided; `template` where none was."""
    manifest = child.manifest
    others = {k: v for k, v in manifest["metadata"]["annotations"].items() if k not in seen.ENGINE_STATE}
    chosen = template if decision.template is None else decision.template
    spec = {**manifest["spec"], "replicas": replicas, "template": dict(chosen)}
    annotations = {**others, **decision.annotations}
    metadata = {**manifest["metadata"], "annotations": annotations}
    return dataclasses.replace(child, manifest={**manifest, "metadata": metadata, "spec": spec})


def first(want: Wanted, ask: Ask) -> Decision:
    """The Deployment when it is made: what the user asked for until now is part of it."""
    return Decision(template=want.template, annotations=_state(want, update=ask.update))


def decide(now: Live, want: Wanted, ask: Ask) -> Decision:
    """The next state of the engine's Deployment."""
    keep = {name: now.annotations[name] for name in seen.ENGINE_STATE if name in now.annotations}
    if now.candidate and ask.serving and now.rolled_out and now.inputs == want.inputs and not now.foreign:
        return Decision(template=None, annotations={**keep, seen.ANNOTATION_ENGINE_GOOD: now.candidate})
    if ask.changeable and _asked_for(now, want, ask):
        good = keep.get(seen.ANNOTATION_ENGINE_GOOD, "")
        return Decision(
            template=want.template, annotations=_state(want, good=good, update=ask.update or now.update)
        )
    if now.good is not None and (cause := failure(now, ask, want.budget)) is not None:
        return _roll_back(now, now.good, ask, cause)
    if now.foreign:
        if now.good is not None and not now.on_trial:
            return Decision(template=now.good.template, annotations=keep)
        if ask.changeable:
            good, update = keep.get(seen.ANNOTATION_ENGINE_GOOD, ""), now.update
            return Decision(template=want.template, annotations=_state(want, good=good, update=update))
    if ask.update and now.rendered == want.rendered:
        # Nothing to take over; a later release is not meant by it.
        keep[seen.ANNOTATION_ENGINE_UPDATE] = ask.update
    if now.failed is not None and now.inputs == want.inputs != now.failed.inputs:
        # The user has taken the change back; the next time it is a new one.
        keep.pop(seen.ANNOTATION_ENGINE_FAILED, None)
    return Decision(template=None, annotations=keep)


def refused(now: Live, want: Wanted, ask: Ask) -> Failed | None:
    """The failed attempt at exactly what is wanted, unless the user asks for another one."""
    failed = now.failed
    if failed is None or (failed.inputs, failed.rendered) != (want.inputs, want.rendered):
        return None
    again = ask.retry not in ("", failed.retry) or ask.update not in ("", now.update)
    return None if again else failed


def failure(now: Live, ask: Ask, budget: float) -> str | None:
    """Why the template on trial is given up; None while it may still come up.

    That no node takes the pod counts only if the last good one asks for other nodes or GPUs: if both ask
    for the same, going back would wait in the same line.
    """
    trial = ask.trial
    if not now.on_trial or not now.replicas:
        return None
    if now.rolled_out:
        waited = _seconds(now.available_since, ask.now)
        return ask.silent if ask.silent and not ask.serving and waited > ask.patience else None
    if now.refused:
        return now.refused if _seconds(now.refused_since, ask.now) > ask.patience else None
    if trial is None or trial.generation != now.generation:
        return None
    cause = trial.finding.message
    if trial.finding.permanent or trial.restarts >= RESTARTS:
        return cause
    waited = _seconds(trial.since, ask.now)
    if trial.unscheduled:
        return cause if waited > ask.patience and _asks_for_other_nodes(now) else None
    if trial.unpulled:
        return cause if waited > ask.patience else None
    if waited > budget:
        return f"it was not ready within {budget / 60:.0f} minutes: {cause}"
    return None


def _seconds(since: str, now: datetime.datetime | None) -> float:
    """Seconds since an RFC 3339 time; 0 where either is not known."""
    if not since or now is None:
        return 0.0
    return (now - datetime.datetime.fromisoformat(since)).total_seconds()


def rolled_back(now: Live, inputs: str) -> Failed | None:
    """The failed change to what the spec asks for with `inputs`, whose place the last good engine took."""
    failed = now.failed
    return failed if failed is not None and failed.inputs == inputs != now.inputs else None


def newer(now: Live, want: Wanted) -> str:
    """In what the engine of this release differs from the one that runs; empty if in nothing."""
    current = now.good or parse_good(now.candidate)
    unchanged = now.inputs != want.inputs or now.rendered in ("", want.rendered)
    if unchanged or now.on_trial or current is None:
        return ""
    before, after = container(current.template), container(want.template)
    parts = []
    if before["image"] != after["image"]:
        parts.append(f"image {before['image']} becomes {after['image']}")
    old, new = list(before.get("args", ())), list(after.get("args", ()))
    if old != new:
        gone = " ".join(argument for argument in old if argument not in new)
        come = " ".join(argument for argument in new if argument not in old)
        changes = [f"without {gone}" if gone else "", f"with {come}" if come else ""]
        parts.append("arguments " + (" and ".join(filter(None, changes)) or "in another order"))
    return "; ".join(parts) or "other settings of the pod"


def _asked_for(now: Live, want: Wanted, ask: Ask) -> bool:
    """Whether somebody asked for the wanted template: by the spec, by annotation, or once more."""
    if refused(now, want, ask) is not None:
        return False
    edited = now.inputs != want.inputs
    differs = now.rendered != want.rendered
    update = ask.update not in ("", now.update)
    tried = now.failed is not None and (now.failed.inputs, now.failed.rendered) == (
        want.inputs,
        want.rendered,
    )
    return edited or (differs and (update or tried))


def _roll_back(now: Live, good: Good, ask: Ask, cause: str) -> Decision:
    failed = Failed(inputs=now.inputs, rendered=now.rendered, cause=cause, retry=ask.retry)
    annotations = {
        seen.ANNOTATION_ENGINE_INPUTS: good.inputs,
        **({seen.ANNOTATION_ENGINE_TEMPLATE: good.rendered} if good.rendered else {}),
        seen.ANNOTATION_ENGINE_GOOD: now.annotations[seen.ANNOTATION_ENGINE_GOOD],
        seen.ANNOTATION_ENGINE_FAILED: json.dumps(dataclasses.asdict(failed), sort_keys=True),
        **({seen.ANNOTATION_ENGINE_UPDATE: now.update} if now.update else {}),
    }
    return Decision(template=good.template, annotations=annotations)


def _state(want: Wanted, *, good: str = "", update: str = "") -> dict[str, str]:
    found = {
        seen.ANNOTATION_ENGINE_INPUTS: want.inputs,
        seen.ANNOTATION_ENGINE_TEMPLATE: want.rendered,
        seen.ANNOTATION_ENGINE_GOOD: good,
        seen.ANNOTATION_ENGINE_UPDATE: update,
    }
    return {name: value for name, value in found.items() if value}


def _asks_for_other_nodes(now: Live) -> bool:
    tried = parse_good(now.candidate)
    if now.good is None or tried is None:
        return False
    return _demands(tried.template) != _demands(now.good.template)


def _demands(template: Template) -> tuple[Any, ...]:
    """What of a template the scheduler reads."""
    pod = template["spec"]
    scheduling = [pod.get(field) for field in ("nodeSelector", "tolerations", "affinity")]
    return (*scheduling, container(template).get("resources"))
