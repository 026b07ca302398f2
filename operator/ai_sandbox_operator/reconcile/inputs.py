"""What a pass feeds into rendering, planning and judging. Pure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from typing import Any

import pydantic

from ai_sandbox_operator.api import names, v1alpha1, validation
from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.linode.ownership import Owner
from ai_sandbox_operator.observed import seen

from . import engine_trial, engine_update, execute, model_cache, model_volume, plan, views

Children = Mapping[tuple[str, str], seen.Seen]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is the same for all sandboxes."""

    cluster_id: str
    release: facts.Release
    storage_class: str
    nodebalancer_ranges: tuple[str, ...]
    pod_ranges: tuple[str, ...]
    operator_namespace: str = ""
    hub_endpoint: str = ""
    hub_networks: tuple[str, ...] = ()
    dns_networks: tuple[str, ...] = ()
    engine_patience: float = engine_update.PATIENCE


def is_public(sandbox: v1alpha1.AISandbox) -> bool:
    """Whether the spec asks for a public address."""
    return sandbox.spec.access.exposure == "NodeBalancer"


def own(children: Children, uid: str) -> dict[tuple[str, str], seen.Seen]:
    """Without what an earlier sandbox of the same name left and the garbage collector has yet to take.

    It holds names, which the plan must know, but proves nothing and lends nothing to this sandbox.
    """
    return {key: record for key, record in children.items() if record.owner_uid in ("", uid)}


def external_service(sandbox: v1alpha1.AISandbox, children: Children) -> seen.Seen | None:
    """The Service behind the NodeBalancer."""
    return children.get(("Service", sandbox.metadata.name))


def public_names(service: seen.Seen | None) -> tuple[str, ...]:
    """Addresses and names of the NodeBalancer; none while there is none."""
    return tuple(service.facts["names"]) if service else ()


def rendering_facts(
    sandbox: v1alpha1.AISandbox,
    children: Children,
    *,
    options: Options,
    material: facts.Material,
    linode: views.LinodeView,
    model: views.ModelView,
    volume: model_volume.Use = model_volume.UNUSED,
) -> facts.Facts:
    """Everything that rendering needs besides the spec."""
    service = external_service(sandbox, children)
    annotated = service.facts["firewall_id"] if service else ""
    held = int(annotated) if annotated.isdigit() else None
    return facts.Facts(
        release=options.release,
        material=material,
        storage_class=options.storage_class,
        nodebalancer_ranges=options.nodebalancer_ranges,
        pod_ranges=options.pod_ranges,
        linode_tags=Owner(cluster_id=options.cluster_id, uid=sandbox.metadata.uid).tags,
        firewall_id=linode.firewall_id or held,
        public_names=public_names(service),
        commit=model.commit,
        model_bytes=model.size_bytes,
        model_cached=model_cache.cached(sandbox, children, model.commit),
        sweep=model_cache.sweep(sandbox, children, model.commit),
        engine_running=bool(volume.engine_node),
        hub_endpoint=options.hub_endpoint,
        hub_networks=options.hub_networks,
        dns_networks=options.dns_networks,
        operator_namespace=options.operator_namespace,
    )


def plan_context(
    sandbox: v1alpha1.AISandbox,
    children: Children,
    *,
    accepted: Mapping[tuple[str, str], tuple[bytes, bytes]],
    hold: frozenset[str],
    linode: views.LinodeView,
    commit: str,
    now: datetime.datetime,
    patience: float = engine_update.PATIENCE,
    trial: engine_trial.Trial | None = None,
    silent: str = "",
    volume: model_volume.Use = model_volume.UNUSED,
) -> plan.Context:
    """Everything that planning needs besides the objects."""
    return plan.Context(
        uid=sandbox.metadata.uid,
        accepted=accepted,
        hold=hold,
        expose=is_public(sandbox) and linode.current and linode.problem is None,
        exposed=is_public(sandbox),
        model_cached=model_cache.cached(sandbox, children, commit),
        running=sandbox.spec.lifecycle.state == "Running",
        keep=model_cache.earlier(sandbox, children, commit),
        replace=model_cache.to_replace(sandbox, children, commit, now, volume),
        ask=engine_update.Ask(
            serving=_told_as_serving(sandbox),
            trial=trial,
            silent=silent,
            now=now,
            patience=patience,
            update=sandbox.metadata.annotations.get(names.ANNOTATION_UPDATE_ENGINE, ""),
            retry=sandbox.metadata.annotations.get(names.ANNOTATION_RETRY_ENGINE, ""),
        ),
    )


def _told_as_serving(sandbox: v1alpha1.AISandbox) -> bool:
    return any(
        condition.type == ConditionType.ENGINE_READY
        and condition.status == "True"
        and condition.observed_generation == sandbox.metadata.generation
        for condition in sandbox.status.conditions
    )


def engine_unkept(sandbox: v1alpha1.AISandbox, children: Children) -> bool:
    """Whether the engine serves with a template that is not kept as the last good one yet."""
    engine = children.get(("Deployment", f"{sandbox.metadata.name}-engine"))
    return engine is not None and seen.rolled_out(engine) and bool(engine.facts["engine_candidate"])


def engine_wanted(desired: Collection[facts.Child]) -> engine_update.Wanted | None:
    """The engine as it was rendered."""
    for child in desired:
        if child.kind == "Deployment" and plan.component(child) == plan.ENGINE:
            return engine_update.wanted(child.manifest)
    return None


def waiting_components(sandbox: v1alpha1.AISandbox, children: Children) -> tuple[str, ...]:
    """Components whose pods should be ready and are not."""
    name = sandbox.metadata.name
    jobs = [
        record
        for (kind, _), record in children.items()
        if kind == "Job" and model_cache.is_fetch(sandbox, record.name)
    ]
    waiting = ["fetch"] if any(not job.facts["complete"] for job in jobs) else []
    for component in ("engine", "chat", "gateway"):
        record = children.get(("Deployment", f"{name}-{component}"))
        if record is not None and record.facts["replicas"] and not seen.rolled_out(record):
            waiting.append(component)
    return tuple(waiting)


def touches_gateway_configuration(steps: Collection[plan.Step], name: str) -> bool:
    """Whether the gateway's configuration is still not as wanted."""
    return any(
        not isinstance(step, plan.Delete)
        and step.child.kind == "Secret"
        and step.child.name == f"{name}-gateway"
        for step in steps
    )


def gateway(sandbox: v1alpha1.AISandbox, children: Children) -> tuple[seen.Seen | None, seen.Seen | None]:
    """The gateway's Deployment, and the Secret with its configuration."""
    name = f"{sandbox.metadata.name}-gateway"
    return children.get(("Deployment", name)), children.get(("Secret", name))


def access_revision(desired: Collection[facts.Child]) -> str:
    """The revision of allowlist and keys that the gateway's rendered Secret holds."""
    for child in desired:
        annotations = child.manifest["metadata"].get("annotations", {})
        if child.kind == "Secret" and names.ANNOTATION_ACCESS_REVISION in annotations:
            return str(annotations[names.ANNOTATION_ACCESS_REVISION])
    raise LookupError("no gateway was rendered")


def write_problems(outcome: execute.Outcome) -> tuple[views.Problem, ...]:
    """What the API server refused, in words for a condition."""
    taken = tuple(
        views.Problem(reason=Reason.NameTaken, message=text, stalled=True) for text in outcome.taken
    )
    refused = tuple(
        views.Problem(reason=Reason.WriteRefused, message=f"{label}: {error}")
        for label, error in outcome.failures
        if isinstance(error, errors.Forbidden | errors.Invalid)
    )
    return (*taken, *refused)


def notices(sandbox: v1alpha1.AISandbox) -> tuple[str, ...]:
    """What the spec asks for and a person should see at every look."""
    access = sandbox.spec.access
    found = []
    if access.tls.mode == "Disabled":
        found.append("TLS is disabled: keys, passwords and chats cross the network in the clear")
    everybody = [entry.cidr for entry in access.allowlist if entry.cidr.endswith("/0")]
    if everybody:
        found.append(f"the allowlist admits every address ({', '.join(everybody)})")
    if twice := list(validation.duplicates(access.allowlist)):
        first, index, network = twice[0]
        more = len(twice) - 1
        others = f", and {more} more {'names' if more == 1 else 'name'} a network again" if more else ""
        found.append(
            f"the allowlist's entries {first} and {index} both name {network}{others}: "
            "each counts, and only without any is it turned away"
        )
    return tuple(found)


def bare(body: Mapping[str, Any]) -> v1alpha1.AISandbox:
    """An object whose spec cannot be read: what was told of it stays known, and it can be deleted."""
    metadata = v1alpha1.Metadata.model_validate(body["metadata"])
    try:
        status = v1alpha1.AISandboxStatus.model_validate(body.get("status") or {})
    except pydantic.ValidationError:
        status = v1alpha1.AISandboxStatus()
    return v1alpha1.AISandbox(metadata=metadata, status=status)
