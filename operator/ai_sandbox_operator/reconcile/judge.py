"""From what was observed to conditions. Pure.

A condition is True only because the thing was observed for the current generation (I8); what is not
known is Unknown or False, never True.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ai_sandbox_operator.api import names, v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Status, Verdict
from ai_sandbox_operator.desired import access as desired_access
from ai_sandbox_operator.desired.facts import Stage
from ai_sandbox_operator.observed import diagnosis, seen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in the way that a person may have to remove."""

    reason: Reason
    message: str
    stalled: bool = False
    """No retry can help until somebody acts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinodeView:
    """What is known of the sandbox's Linode objects.

    Attributes:
        current: the firewall was observed with exactly the rules of the current allowlist.
        attached: the NodeBalancer was observed with that firewall attached.
        problem: why not, if not.
        unseen: this process has not looked at Linode yet; what was observed before it started stands.
    """

    firewall_id: int | None = None
    firewall_version: int | None = None
    nodebalancer_id: int | None = None
    current: bool = False
    attached: bool = False
    problem: Problem | None = None
    unseen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatewayProof:
    """What is known of the allowlist and keys that the gateway's pods serve.

    Attributes:
        proven: every ready pod was observed to serve what its Secret holds.
        reason, message: why not, if not.
        unseen: this process has not asked yet; what was observed before it started stands.
    """

    proven: bool = False
    reason: Reason = Reason.ProtectionPending
    message: str = "the gateway is not there yet"
    unseen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that conditions are judged from.

    Attributes:
        pending: stages of which an object is not as wanted, as observed.
        problems: what is wrong with the spec, its Secrets or the writes.
        findings: causes by component, for components that are not ready.
        children: the sandbox's own; never those of an earlier sandbox of the same name.
        releasing: an earlier exposure is not yet known to be gone.
    """

    sandbox: v1alpha1.AISandbox
    children: Mapping[tuple[str, str], seen.Seen]
    engine_inputs: str
    fetch_job: str
    pending: frozenset[Stage] = frozenset()
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()
    linode: LinodeView = LinodeView()
    gateway: GatewayProof = GatewayProof()
    releasing: bool = False
    findings: Mapping[str, diagnosis.Finding] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.sandbox.metadata.name

    @property
    def public(self) -> bool:
        return self.sandbox.spec.access.exposure == "NodeBalancer"

    @property
    def suspended(self) -> bool:
        return self.sandbox.spec.lifecycle.state == "Suspended"


def judge(situation: Situation) -> tuple[Verdict, ...]:
    """All conditions, in stored order."""
    parts = (
        _spec_valid(situation),
        _network_protected(situation),
        _model_cached(situation),
        _engine_ready(situation),
        _chat_ready(situation),
        _exposed(situation),
    )
    return (*_summary(situation, parts), *parts)


def _verdict(type_: ConditionType, status: Status, reason: Reason, message: str = "") -> Verdict:
    doc = reason.doc
    text = message or doc.meaning
    bad = status == "True" if type_ is ConditionType.STALLED else status != "True"
    if bad and doc.remedy not in ("Nothing to do.", "Wait."):
        text = f"{text.rstrip('.')}. {doc.remedy}"
    return Verdict(type=type_, status=status, reason=reason, message=text)


def _summary(situation: Situation, parts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    ready, reconciling, stalled = ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED
    open_parts = [p for p in parts if p.status != "True"]
    blocking = [p for p in situation.problems if p.stalled]
    if blocking:
        first = blocking[0]
        return (
            _verdict(ready, "False", first.reason, first.message),
            _verdict(reconciling, "False", first.reason, first.message),
            _verdict(stalled, "True", first.reason, first.message),
        )
    not_stalled = _verdict(stalled, "False", Reason.NotStalled)
    if situation.suspended:
        essential = [p for p in open_parts if p.type in _SUSPENDED_ESSENTIALS]
        settled = not essential and not situation.pending
        return (
            _verdict(ready, "False", Reason.Suspended),
            _verdict(reconciling, "False", Reason.Settled)
            if settled
            else _verdict(reconciling, "True", Reason.Progressing, essential[0].message if essential else ""),
            not_stalled,
        )
    if not open_parts and not situation.pending:
        notices = "; ".join(situation.notices)
        message = f"{Reason.AllReady.doc.meaning.rstrip('.')}; {notices}." if notices else ""
        return (
            _verdict(ready, "True", Reason.AllReady, message),
            _verdict(reconciling, "False", Reason.Settled),
            not_stalled,
        )
    cause = open_parts[0] if open_parts else None
    reason, message = (cause.reason, cause.message) if cause else (Reason.Progressing, "")
    return (
        Verdict(type=ready, status="False", reason=reason, message=message or reason.doc.meaning),
        _verdict(reconciling, "True", Reason.Progressing, f"waiting for {cause.type}" if cause else ""),
        not_stalled,
    )


_SUSPENDED_ESSENTIALS = frozenset(
    {ConditionType.SPEC_VALID, ConditionType.NETWORK_PROTECTED, ConditionType.EXPOSED}
)


def _spec_valid(situation: Situation) -> Verdict:
    if situation.problems:
        first = situation.problems[0]
        others = len(situation.problems) - 1
        message = first.message + (f" (and {others} more)" if others else "")
        return _verdict(ConditionType.SPEC_VALID, "False", first.reason, message)
    if situation.notices:
        return _verdict(
            ConditionType.SPEC_VALID,
            "True",
            Reason.Valid,
            "The spec is valid; " + "; ".join(situation.notices) + ".",
        )
    return _verdict(ConditionType.SPEC_VALID, "True", Reason.Valid)


def _network_protected(situation: Situation) -> Verdict:
    type_ = ConditionType.NETWORK_PROTECTED
    gateway = situation.gateway
    if Stage.POLICY in situation.pending:
        return _verdict(type_, "False", Reason.ProtectionPending)
    if not situation.public and situation.releasing:
        return _verdict(
            type_, "False", Reason.ProtectionPending, "the earlier NodeBalancer is not yet known to be gone"
        )
    outside = _protected_outside(situation) if situation.public else None
    if outside is not None:
        return outside
    if gateway.unseen and (held := _held(situation, type_)) is not None:
        return held
    if not gateway.proven:
        return _verdict(type_, "False", gateway.reason, gateway.message)
    if not situation.public:
        text = "NetworkPolicies and gateway hold the allowlist; nothing is public."
        return _verdict(type_, "True", Reason.Protected, text)
    count, linode = len(situation.sandbox.spec.access.allowlist), situation.linode
    return _verdict(
        type_,
        "True",
        Reason.Protected,
        f"Cloud Firewall {linode.firewall_id} on NodeBalancer {linode.nodebalancer_id}, NetworkPolicies and "
        f"gateway admit {count} network{'' if count == 1 else 's'}" + (" (nobody)." if count == 0 else "."),
    )


def _protected_outside(situation: Situation) -> Verdict | None:
    """What is missing at Linode; None once the firewall was observed on the NodeBalancer."""
    type_, linode, text = ConditionType.NETWORK_PROTECTED, situation.linode, ""
    service = situation.children.get(("Service", situation.name))
    if linode.problem is not None:
        return _verdict(type_, "False", linode.problem.reason, linode.problem.message)
    if linode.unseen and (held := _held(situation, type_)) is not None:
        return held
    if not linode.current:
        text = "the Cloud Firewall is being brought up to date"
    elif service is None or not (service.facts["address"] or service.facts["hostname"]):
        # The proof is the firewall on the NodeBalancer, read from Linode; without one there is none.
        text = f"Cloud Firewall {linode.firewall_id} holds the allowlist and waits for the NodeBalancer"
    elif not linode.attached:
        # Seen bare is the keeper's problem NotAttached; not looked at yet is no cause for alarm.
        text = "the NodeBalancer is being looked up at Linode"
    return _verdict(type_, "False", Reason.ProtectionPending, text) if text else None


def _held(situation: Situation, type_: ConditionType) -> Verdict | None:
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


def _model_cached(situation: Situation) -> Verdict:
    type_ = ConditionType.MODEL_CACHED
    job = situation.children.get(("Job", situation.fetch_job))
    if job is not None and job.facts["complete"]:
        return _verdict(type_, "True", Reason.Cached)
    finding = situation.findings.get("fetch")
    if job is not None and job.facts["failed"]:
        return _verdict(type_, "False", Reason.FetchFailed, finding.message if finding else "")
    if finding is not None and finding.reason not in (Reason.Starting, Reason.NotReady):
        return _verdict(type_, "False", finding.reason, finding.message)
    volume = situation.children.get(("PersistentVolumeClaim", f"{situation.name}-model"))
    if volume is None or volume.facts["phase"] != "Bound":
        return _verdict(
            type_, "False", Reason.VolumePending, f"volume {situation.name}-model is not bound yet"
        )
    return _verdict(type_, "False", Reason.Fetching)


def _engine_ready(situation: Situation) -> Verdict:
    type_ = ConditionType.ENGINE_READY
    if situation.suspended:
        return _verdict(type_, "False", Reason.Suspended)
    engine = situation.children.get(("Deployment", f"{situation.name}-engine"))
    if engine is not None and engine.facts["engine_inputs"] == situation.engine_inputs and rolled_out(engine):
        return _verdict(type_, "True", Reason.EngineServing)
    if engine is None or not engine.facts["replicas"]:
        return _verdict(type_, "False", Reason.WaitingForModel)
    return _pods(type_, situation.findings.get("engine"))


def _chat_ready(situation: Situation) -> Verdict:
    type_ = ConditionType.CHAT_READY
    if Stage.WORKLOAD in situation.pending:
        # A Deployment that could not be brought to the spec still runs what an earlier spec asked for.
        finding = situation.findings.get("chat") or situation.findings.get("gateway")
        return _pods(type_, finding, "a workload is not as the spec says yet")
    gateway = situation.children.get(("Deployment", f"{situation.name}-gateway"))
    if gateway is None or not rolled_out(gateway):
        return _pods(type_, situation.findings.get("gateway"), "the gateway's pods are starting")
    if not situation.sandbox.spec.chat.enabled:
        return _verdict(type_, "True", Reason.ChatDisabled)
    chat = situation.children.get(("Deployment", f"{situation.name}-chat"))
    if chat is not None and rolled_out(chat):
        return _verdict(type_, "True", Reason.ChatServing)
    return _pods(type_, situation.findings.get("chat"))


def _exposed(situation: Situation) -> Verdict:
    type_ = ConditionType.EXPOSED
    if not situation.public and situation.releasing:
        return _verdict(type_, "False", Reason.Progressing, "The earlier NodeBalancer is being removed.")
    if not situation.public:
        # "Nothing public" is what this spec asks for: True, so that all-True means done.
        return _verdict(type_, "True", Reason.NotExposed)
    service = situation.children.get(("Service", situation.name))
    if service is None:
        return _verdict(type_, "False", Reason.ExposureHeldBack)
    address = service.facts["address"] or service.facts["hostname"]
    if not address:
        return _verdict(type_, "False", Reason.AddressPending)
    return _verdict(type_, "True", Reason.AddressAssigned, f"The NodeBalancer's address is {address}.")


def _pods(type_: ConditionType, finding: diagnosis.Finding | None, fallback: str = "") -> Verdict:
    if finding is None:
        return _verdict(type_, "False", Reason.Starting, fallback)
    return _verdict(type_, "False", finding.reason, finding.message)


def rolled_out(deployment: seen.Seen) -> bool:
    """Whether the current template runs with all its replicas ready, and nothing of an older one."""
    facts = deployment.facts
    return bool(
        facts["replicas"] > 0
        and facts["observed_generation"] >= facts["generation"]
        and facts["updated"] == facts["ready"] == facts["current"] == facts["replicas"]
    )


def endpoints(situation: Situation) -> dict[str, str]:
    """URLs of the sandbox, for status; empty until there is something to reach."""
    access = situation.sandbox.spec.access
    scheme = "http" if access.tls.mode == "Disabled" else "https"
    if situation.public:
        service = situation.children.get(("Service", situation.name))
        address = (service.facts["address"] or service.facts["hostname"]) if service else ""
        host = access.hostnames[0] if access.hostnames and address else address
    else:
        host = f"{situation.name}-internal.{situation.sandbox.metadata.namespace}.svc"
    if not host:
        return {}
    urls = {"api": f"{scheme}://{host}:{names.PORT_API}/v1"}
    if situation.sandbox.spec.chat.enabled:
        urls["chat"] = f"{scheme}://{host}:{names.PORT_CHAT}"
    if access.tls.mode == "SelfSigned":
        urls["caSecretName"] = desired_access.authority_name(situation.sandbox)
    return urls
