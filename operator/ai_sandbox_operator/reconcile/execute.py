"""Carries a plan out: closed first, one stage after the other, within a stage all at once.

A failed policy holds back every pod and the exposure; any other failure holds back the exposure
alone. Errors are gathered, not raised, so that one refused object does not keep the rest from
narrowing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.desired import facts as desired_facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import canonical, seen

from . import plan as planning

log = logging.getLogger(__name__)

T = TypeVar("T")
Stage = desired_facts.Stage
#: Takes in the answer to a write, so that the next pass knows it before the watch tells.
WriteBack = Callable[[kinds.Kind, Mapping[str, Any]], seen.Seen]


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What a plan led to.

    Attributes:
        taken: what there is to say of each object whose name belongs to somebody else.
        failures: errors by object, worth another pass.
        held_back: stages that were not carried out, because an earlier one failed.
        accepted: additions to `planning.Context.accepted`.
        writes: number of writes that the API server took.
    """

    taken: list[str] = dataclasses.field(default_factory=list)
    failures: list[tuple[str, errors.KubeError]] = dataclasses.field(default_factory=list)
    held_back: list[Stage] = dataclasses.field(default_factory=list)
    accepted: dict[tuple[str, str], tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    writes: int = 0

    @property
    def clean(self) -> bool:
        return not (self.taken or self.failures or self.held_back)

    @property
    def refused(self) -> bool:
        """Whether the API server refused something, or did not answer; lost races do not count."""
        return any(not isinstance(error, errors.Conflict) for _, error in self.failures)

    def extend(self, other: Outcome) -> None:
        """Add what a further plan of the same pass led to."""
        self.taken += other.taken
        self.failures += other.failures
        self.held_back += other.held_back
        self.accepted.update(other.accepted)
        self.writes += other.writes


class Executor:
    """Writes to the API server for one sandbox at a time."""

    def __init__(self, client: kube_client.KubeClient, write_back: WriteBack) -> None:
        self._client = client
        self._write_back = write_back

    async def execute(self, plan: planning.Plan, *, namespace: str, uid: str) -> Outcome:
        """Carry out `plan`; never raises for what the API server refuses."""
        outcome = Outcome()
        await self._together(plan.retract, outcome, namespace, uid)
        policy_failed = False
        for stage in Stage:
            steps = [step for step in plan.steps if step.stage is stage]
            if not steps:
                continue
            if (policy_failed and stage >= Stage.WORKLOAD) or (stage is Stage.EXPOSURE and not outcome.clean):
                outcome.held_back.append(stage)
                continue
            before = len(outcome.failures) + len(outcome.taken)
            await self._together(steps, outcome, namespace, uid)
            if stage is Stage.POLICY and len(outcome.failures) + len(outcome.taken) > before:
                policy_failed = True
        if not policy_failed:
            for stage in reversed(Stage):
                leftovers = [step for step in plan.prune if step.stage is stage]
                await self._together(leftovers, outcome, namespace, uid)
        return outcome

    async def _together(
        self, steps: Sequence[planning.Step], outcome: Outcome, namespace: str, uid: str
    ) -> None:
        """Carry out steps at once; returns or raises only when none of them goes on."""
        results = await asyncio.gather(
            *(self._one(step, outcome, namespace, uid) for step in steps), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _one(self, step: planning.Step, outcome: Outcome, namespace: str, uid: str) -> None:
        label = _label(step)
        try:
            match step:
                case planning.Create(child=child):
                    await self._create(child, outcome, namespace, uid)
                case planning.Apply(child=child, manifest=manifest, whole=whole):
                    await self._apply(child, dict(manifest), outcome, uid, whole=whole)
                case planning.Merge(child=child, patch=patch):
                    kind = planning.kind_of(child.manifest)
                    answer = await self._client.merge_patch(kind, namespace, child.name, dict(patch))
                    self._accept(child, answer, outcome)
                case planning.Delete(record=record):
                    await self._client.delete(
                        kinds.BY_NAME[record.kind],
                        record.namespace,
                        record.name,
                        uid=record.uid,
                        # The next Job writes to the same volume, so the pods of this one go first.
                        foreground=record.kind == kinds.JOB.kind,
                    )
            outcome.writes += 1
        except errors.KubeError as error:
            outcome.failures.append((label, error))

    async def _create(self, child: desired_facts.Child, outcome: Outcome, namespace: str, uid: str) -> None:
        kind = planning.kind_of(child.manifest)
        try:
            answer = await self._client.create(kind, child.manifest)
        except errors.AlreadyExists:
            # Either the watch is behind our own earlier write, or the name is somebody else's.
            live = await self._client.get(kind, namespace, child.name)
            record = seen.observe(kind.kind, live)
            label = child.manifest["metadata"]["labels"][names.LABEL_SANDBOX]
            if record.owner_uid == uid and not (record.managed and record.sandbox == label):
                # Ours by owner, but without the labels it is out of the watch's sight.
                self._write_back(kind, await self._client.apply(kind, _labels_only(child.manifest)))
                raise errors.Conflict(f"{kind.kind} {child.name} had lost its labels", status=409) from None
            if record.managed and record.owner_uid in ("", uid):
                self._write_back(kind, live)
                raise errors.Conflict(f"{kind.kind} {child.name} exists already", status=409) from None
            outcome.taken.append(_taken(child, record))
            raise errors.Conflict(
                f"{kind.kind} {child.name} exists and is not this sandbox's", status=409
            ) from None
        self._accept(child, answer, outcome)

    async def _apply(
        self,
        child: desired_facts.Child,
        manifest: dict[str, Any],
        outcome: Outcome,
        uid: str,
        *,
        whole: bool,
    ) -> None:
        kind = planning.kind_of(manifest)
        try:
            answer = await self._client.apply(kind, manifest)
        except errors.Invalid:
            if not whole or kind.kind not in _MERGED:
                raise
            await self._replace_lists(kind, manifest)
            outcome.writes += 1
            answer = await self._client.apply(kind, manifest)
        live = answer if whole else {field: answer[field] for field in manifest if field in answer}
        operations = canonical.excess(canonical.canonical(manifest), canonical.canonical(live))
        operations += _disowned(manifest["metadata"], answer["metadata"], uid)
        if operations:
            version = answer["metadata"]["resourceVersion"]
            test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
            answer = await self._client.json_patch(
                kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"], [test, *operations]
            )
            outcome.writes += 1
        self._accept(child, answer, outcome)

    async def _replace_lists(self, kind: kinds.Kind, manifest: Mapping[str, Any]) -> None:
        """Put our ports in the place of the live ones, whatever those are.

        Their numbers are their keys: one that somebody changed is another port to an apply, which would
        then add ours beside it, under the same name, and is refused for that.
        """
        metadata = manifest["metadata"]
        live = await self._client.get(kind, metadata["namespace"], metadata["name"])
        test = {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": live["metadata"]["resourceVersion"],
        }
        operation = {"op": "replace", **_MERGED[kind.kind](manifest, live)}
        await self._client.json_patch(kind, metadata["namespace"], metadata["name"], [test, operation])

    def _accept(self, child: desired_facts.Child, answer: Mapping[str, Any], outcome: Outcome) -> None:
        kind = planning.kind_of(child.manifest)
        record = self._write_back(kind, answer)
        if planning.is_identity(child):
            wanted, live = canonical.metadata_digest(child.manifest), record.metadata_digest
        else:
            wanted, live = canonical.digest(child.manifest), record.digest
        if live != wanted:
            log.info(
                "the API server stores an object differently from how it was written",
                extra={"kind": kind.kind, "object": child.name},
            )
            outcome.accepted[child.kind, child.name] = (wanted, live)


def _ports(manifest: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Our ports, each with the node port that the live one of its name has: a NodeBalancer leads to it."""
    held = {
        port.get("name"): port["nodePort"] for port in live["spec"].get("ports") or () if "nodePort" in port
    }
    ports = [
        {**port, **({"nodePort": held[port["name"]]} if port["name"] in held else {})}
        for port in manifest["spec"]["ports"]
    ]
    return {"path": "/spec/ports", "value": ports}


def _template(manifest: Mapping[str, Any], _live: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": "/spec/template", "value": manifest["spec"]["template"]}


#: Where lists of ports are, by kind.
_MERGED: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "Service": _ports,
    "Deployment": _template,
}


def _taken(child: desired_facts.Child, record: seen.Seen) -> str:
    """What to say of an object in the way; a volume without an owner may be one that was kept (I2)."""
    text = f"{child.kind} {child.name} exists and belongs to somebody else"
    if child.kind != kinds.PVC.kind or record.owner_uid:
        return text
    labels = " ".join(f"{name}={value}" for name, value in child.manifest["metadata"]["labels"].items())
    return f"{text}; if it is the volume of an earlier sandbox of this name, label it with {labels} again"


def _labels_only(manifest: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {field: manifest["metadata"][field] for field in ("namespace", "name", "labels")}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}


def _disowned(wanted: Mapping[str, Any], live: Mapping[str, Any], uid: str) -> list[dict[str, Any]]:
    """Operations that take the sandbox off the owners of what is to outlive it.

    Server-side apply does not: an object that was created by POST has its owners from another manager.
    """
    if any(owner["uid"] == uid for owner in wanted.get("ownerReferences") or ()):
        return []
    held = [owner["uid"] for owner in live.get("ownerReferences") or ()]
    return [
        {"op": "remove", "path": f"/metadata/ownerReferences/{index}"}
        for index in reversed(range(len(held)))
        if held[index] == uid
    ]


def _label(step: planning.Step) -> str:
    if isinstance(step, planning.Delete):
        return f"{step.record.kind} {step.record.name}"
    return f"{step.child.kind} {step.child.name}"


async def attempt(outcome: Outcome, what: str, action: Awaitable[T]) -> T | None:
    """Do it; a refusal is noted and does not keep the rest of the pass from narrowing and telling."""
    try:
        return await action
    except errors.AlreadyExists as error:
        outcome.taken.append(f"{error} exists and belongs to somebody else")
    except errors.KubeError as error:
        outcome.failures.append((what, error))
    return None
