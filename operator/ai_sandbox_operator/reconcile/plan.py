"""From wanted and observed children to an ordered list of writes. Pure.

Order is safety: what is no longer wanted outside goes first, then policies, then everything that
stands behind them, the exposure last, and what is left over is removed in reverse. A step that fails
holds back only what depends on it (see execute.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.desired import facts as desired_facts
from ai_sandbox_operator.desired import quantity
from ai_sandbox_operator.observed import canonical, seen

from . import engine_state, engine_update

Stage = desired_facts.Stage
Child = desired_facts.Child
Observed = Mapping[tuple[str, str], seen.Seen]

ENGINE = "engine"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Create:
    """POST the object; a name that is taken is never overwritten."""

    stage: Stage
    child: Child


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply:
    """Server-side apply, then removal of what somebody else added."""

    stage: Stage
    child: Child
    manifest: Mapping[str, Any]
    """What is sent: the child's manifest, or its metadata alone where the content is not ours to restore."""
    whole: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merge:
    """A merge patch of one field, where the rest of the object must not be touched."""

    stage: Stage
    child: Child
    patch: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete exactly this object, by UID."""

    stage: Stage
    record: seen.Seen


Step: TypeAlias = Create | Apply | Merge | Delete


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Writes in order.

    Attributes:
        retract: deletions of what is no longer wanted outside; they come before everything else.
        steps: writes by stage.
        prune: deletions of leftovers, pods before the policies that guard them.
        waiting: names of objects whose predecessors must vanish first.
        pending: stages of which something is not as wanted, whether it can be changed now or not.
    """

    retract: tuple[Delete, ...] = ()
    steps: tuple[Step, ...] = ()
    prune: tuple[Delete, ...] = ()
    waiting: tuple[str, ...] = ()
    pending: frozenset[Stage] = frozenset()

    @property
    def empty(self) -> bool:
        return not (self.retract or self.steps or self.prune)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What the plan needs besides the objects.

    Attributes:
        accepted: by (kind, name) the pair (wanted digest, live digest) that a repair could not bring
            closer: defaults of an API server newer than the table in canonical.py.
        hold: components whose objects are neither created nor changed in this pass.
        expose: whether the external Service may be written: its firewall is proven for this spec.
        exposed: whether the spec wants the external Service; it is deleted only if not.
        model_cached: whether the model that the engine would load is complete.
        running: whether the sandbox is meant to run rather than be suspended.
        keep: objects by (kind, name) that are no longer wanted and stay for now all the same.
        replace: objects by (kind, name) that are deleted to be made anew, such as a failed Job.
        ask: what the user says of the engine, and how its last change does.
    """

    uid: str
    accepted: Mapping[tuple[str, str], tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    hold: frozenset[str] = frozenset()
    expose: bool = False
    exposed: bool = False
    model_cached: bool = False
    running: bool = True
    keep: frozenset[tuple[str, str]] = frozenset()
    replace: frozenset[tuple[str, str]] = frozenset()
    ask: engine_update.Ask = dataclasses.field(default_factory=engine_update.Ask)


def plan(desired: Iterable[Child], observed: Observed, context: Context) -> Plan:
    """The writes that bring `observed` to `desired`."""
    wanted = {(child.kind, child.name): child for child in desired}
    steps: list[Step] = []
    waiting: list[str] = []
    pending: set[Stage] = set()
    ceiling = max(Stage) + 1
    for key, child in sorted(wanted.items(), key=lambda item: (item[1].stage, item[0])):
        record = observed.get(key)
        if child.stage is Stage.EXPOSURE and not context.expose:
            continue
        if component(child) in context.hold and child.stage is not Stage.POLICY:
            # What is held is not changed; but an engine whose last change fails goes back all the same.
            if record is not None and _is_engine(child) and _is_ours(record, context):
                steps += [step] if (step := _change_engine(child, record, context)) is not None else []
            continue
        if record is None:
            steps.append(Create(stage=child.stage, child=_first(child, context)))
        elif not _is_ours(record, context):
            waiting.append(f"{child.kind} {child.name}")
            pending.add(child.stage)
            # A policy that is going away guards no new pod, and what is incomplete is not exposed.
            ceiling = min(ceiling, Stage.WORKLOAD if child.stage is Stage.POLICY else Stage.EXPOSURE)
        elif key in context.replace:
            steps.append(Delete(stage=child.stage, record=record))
        elif (step := _change(child, record, context)) is not None:
            steps.append(step)
    leftovers = [
        record
        for key, record in observed.items()
        if key not in wanted and key not in context.keep and _removable(record, context.uid)
    ]
    retract = tuple(
        # The one external Service that the spec wants stays, whatever is known of its firewall.
        Delete(stage=Stage.EXPOSURE, record=record)
        for record in leftovers
        if _is_external(record) and not (context.exposed and record.name == record.sandbox)
    )
    prune = tuple(
        Delete(stage=stage, record=record)
        for stage, record in sorted(
            ((_stage(record), record) for record in leftovers if not _is_external(record)),
            key=lambda pair: (-pair[0], pair[1].kind, pair[1].name),
        )
    )
    return Plan(
        retract=retract,
        steps=tuple(step for step in steps if step.stage < ceiling),
        prune=prune,
        waiting=tuple(waiting),
        pending=frozenset(pending | {step.stage for step in (*retract, *steps, *prune)}),
    )


def component(child: Child) -> str:
    """Component label of a child."""
    return str(child.manifest["metadata"]["labels"][names.LABEL_COMPONENT])


def is_identity(child: Child) -> bool:
    """Whether only metadata is compared: the content is generated, immutable or the server's."""
    return child.create_only or child.kind in {"Job", "PersistentVolumeClaim"}


def _change(child: Child, record: seen.Seen, context: Context) -> Step | None:
    manifest = child.manifest
    if is_identity(child):
        if (size := _growth(manifest, record)) is not None:
            return Merge(
                stage=child.stage, child=child, patch={"spec": {"resources": {"requests": {"storage": size}}}}
            )
        wanted = canonical.metadata_digest(manifest)
        if record.metadata_digest == wanted or _accepted(child, context, wanted, record.metadata_digest):
            return None
        return Apply(stage=child.stage, child=child, manifest=_metadata_only(manifest), whole=False)
    if _is_engine(child):
        return _change_engine(child, record, context)
    wanted = canonical.digest(manifest)
    if record.digest == wanted or _accepted(child, context, wanted, record.digest):
        return None
    return Apply(stage=child.stage, child=child, manifest=manifest, whole=True)


def _is_engine(child: Child) -> bool:
    return child.kind == "Deployment" and component(child) == ENGINE


def _first(child: Child, context: Context) -> Child:
    if not _is_engine(child):
        return child
    want = engine_update.wanted(child.manifest)
    return engine_update.as_decided(
        child,
        engine_update.first(want, context.ask),
        template=want.template,
        replicas=child.manifest["spec"]["replicas"],
    )


def _change_engine(child: Child, record: seen.Seen, context: Context) -> Step | None:
    """The engine's template changes only by `engine_update.decide` (I5).

    Comparing digests would restart the GPU pod with every release whose defaults differ.
    """
    replicas = child.manifest["spec"]["replicas"]
    # The old engine serves until the new model is complete; and it holds its model in memory, so a
    # download Job that somebody deleted is no reason to end it.
    loading = context.running and not context.model_cached and record.facts["replicas"] > 0
    held = loading or ENGINE in context.hold
    live = engine_state.live(record)
    ask = dataclasses.replace(context.ask, changeable=not held)
    want = engine_update.wanted(child.manifest)
    decision = engine_update.decide(live, want, ask)
    if held:
        child = engine_update.with_model_of(child, record)
    child = engine_update.as_decided(
        child, decision, template=want.template, replicas=record.facts["replicas"] if held else replicas
    )
    if decision.template is not None:
        return Apply(stage=child.stage, child=child, manifest=child.manifest, whole=True)
    if held and decision.annotations == live.annotations:
        return None
    if not held and record.facts["replicas"] != replicas:
        return Merge(stage=child.stage, child=child, patch={"spec": {"replicas": replicas}})
    wanted = canonical.digest(child.manifest)
    if canonical.metadata_digest(child.manifest) != record.metadata_digest and not _accepted(
        child, context, wanted, record.digest
    ):
        gone = {name: None for name in record.facts["engine_state"] if name not in decision.annotations}
        metadata = {
            field: child.manifest["metadata"][field]
            for field in ("labels", "ownerReferences")
            if field in child.manifest["metadata"]
        }
        annotations = {**child.manifest["metadata"]["annotations"], **gone}
        return Merge(
            stage=child.stage, child=child, patch={"metadata": {**metadata, "annotations": annotations}}
        )
    return None


def _is_ours(record: seen.Seen, context: Context) -> bool:
    return not record.deleting and record.owner_uid in ("", context.uid)


def _accepted(child: Child, context: Context, wanted: bytes, live: bytes) -> bool:
    """Whether a repair of exactly this difference has been tried and changed nothing."""
    return context.accepted.get((child.kind, child.name)) == (wanted, live)


def _growth(manifest: Mapping[str, Any], record: seen.Seen) -> str | None:
    """The wanted size of a volume that is smaller; volumes never shrink."""
    if manifest["kind"] != "PersistentVolumeClaim":
        return None
    size = str(manifest["spec"]["resources"]["requests"]["storage"])
    live = str(record.facts.get("size") or size)
    return size if quantity.parse(size) > quantity.parse(live) else None


def _metadata_only(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return {field: manifest[field] for field in ("apiVersion", "kind", "metadata")}


_PROTECTED_COMPONENTS = frozenset({"certificate"})


def _removable(record: seen.Seen, uid: str) -> bool:
    """Volumes and certificates are not rendered away; what is not owned by UID is not ours to delete."""
    return (
        record.owner_uid == uid
        and not record.deleting
        and record.kind != "PersistentVolumeClaim"
        and record.component not in _PROTECTED_COMPONENTS
    )


def _is_external(record: seen.Seen) -> bool:
    return record.kind == "Service" and record.facts["type"] == "LoadBalancer"


def _stage(record: seen.Seen) -> Stage:
    match record.kind:
        case "Deployment" | "Job" | "PodDisruptionBudget":
            return Stage.WORKLOAD
        case "Service":
            return Stage.SERVICE
        case "Secret":
            return Stage.SECRET
        case _:
            return Stage.POLICY


def kind_of(manifest: Mapping[str, Any]) -> kinds.Kind:
    """The kind of a rendered object."""
    return kinds.BY_NAME[str(manifest["kind"])]
