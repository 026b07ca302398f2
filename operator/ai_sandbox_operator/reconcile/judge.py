"""From what was observed to conditions. Pure.

A condition is True only because the thing was observed for the current generation (I8); what is not
known is Unknown or False, never True.
"""

from __future__ import annotations

from ai_sandbox_operator.api import names
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Verdict
from ai_sandbox_operator.desired import access as desired_access
from ai_sandbox_operator.desired.facts import Stage
from ai_sandbox_operator.observed import seen

from . import judge_engine
from .verdicts import pods, told_before, verdict
from .views import Progress, Situation


def judge(situation: Situation) -> tuple[Verdict, ...]:
    """All conditions, in stored order."""
    parts = (
        _spec_valid(situation),
        _network_protected(situation),
        _model_cached(situation),
        judge_engine.ready(situation),
        _chat_ready(situation),
        _exposed(situation),
    )
    return (*_summary(situation, parts), *parts, *judge_engine.update_available(situation))


def _summary(situation: Situation, parts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    ready, reconciling, stalled = ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED
    open_parts = [p for p in parts if p.status != "True"]
    failure = situation.model.failure
    blocking = [p for p in (*situation.problems, *([failure] if failure else ())) if p.stalled]
    if blocking:
        first = blocking[0]
        return (
            verdict(ready, "False", first.reason, first.message),
            verdict(reconciling, "False", first.reason, first.message),
            verdict(stalled, "True", first.reason, first.message),
        )
    not_stalled = verdict(stalled, "False", Reason.NotStalled)
    if situation.suspended:
        essential = [p for p in open_parts if p.type in _SUSPENDED_ESSENTIALS]
        settled = not essential and not situation.pending
        return (
            verdict(ready, "False", Reason.Suspended),
            verdict(reconciling, "False", Reason.Settled)
            if settled
            else verdict(reconciling, "True", Reason.Progressing, essential[0].message if essential else ""),
            not_stalled,
        )
    if not open_parts and not situation.pending:
        notices = "; ".join(situation.notices)
        message = f"{Reason.AllReady.doc.meaning.rstrip('.')}; {notices}." if notices else ""
        return (
            verdict(ready, "True", Reason.AllReady, message),
            verdict(reconciling, "False", Reason.Settled),
            not_stalled,
        )
    cause = open_parts[0] if open_parts else None
    reason, message = (cause.reason, cause.message) if cause else (Reason.Progressing, "")
    if (
        cause
        and not situation.pending
        and all(judge_engine.waits_for_person(situation, part) for part in open_parts)
    ):
        told = [Verdict(type=t, status="False", reason=reason, message=message) for t in (ready, reconciling)]
        return *told, Verdict(type=stalled, status="True", reason=reason, message=message)
    return (
        Verdict(type=ready, status="False", reason=reason, message=message or reason.doc.meaning),
        verdict(reconciling, "True", Reason.Progressing, f"waiting for {cause.type}" if cause else ""),
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
        return verdict(ConditionType.SPEC_VALID, "False", first.reason, message)
    if situation.notices:
        return verdict(
            ConditionType.SPEC_VALID,
            "True",
            Reason.Valid,
            "The spec is valid; " + "; ".join(situation.notices) + ".",
        )
    return verdict(ConditionType.SPEC_VALID, "True", Reason.Valid)


def _network_protected(situation: Situation) -> Verdict:
    type_ = ConditionType.NETWORK_PROTECTED
    gateway = situation.gateway
    if Stage.POLICY in situation.pending:
        return verdict(type_, "False", Reason.ProtectionPending)
    if not situation.public and situation.releasing:
        return verdict(
            type_, "False", Reason.ProtectionPending, "the earlier NodeBalancer is not yet known to be gone"
        )
    outside = _protected_outside(situation) if situation.public else None
    if outside is not None:
        return outside
    if gateway.unseen and (held := told_before(situation, type_)) is not None:
        return held
    if not gateway.proven:
        return verdict(type_, "False", gateway.reason, gateway.message)
    if not situation.public:
        text = "NetworkPolicies and gateway hold the allowlist; nothing is public."
        return verdict(type_, "True", Reason.Protected, text)
    count, linode = len(situation.sandbox.spec.access.allowlist), situation.linode
    return verdict(
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
        return verdict(type_, "False", linode.problem.reason, linode.problem.message)
    if linode.unseen and (held := told_before(situation, type_)) is not None:
        return held
    if not linode.current:
        text = "the Cloud Firewall is being brought up to date"
    elif service is None or not (service.facts["address"] or service.facts["hostname"]):
        # The proof is the firewall on the NodeBalancer, read from Linode; without one there is none.
        text = f"Cloud Firewall {linode.firewall_id} holds the allowlist and waits for the NodeBalancer"
    elif not linode.attached:
        # Seen bare is the keeper's problem NotAttached; not looked at yet is no cause for alarm.
        text = "the NodeBalancer is being looked up at Linode"
    return verdict(type_, "False", Reason.ProtectionPending, text) if text else None


def _model_cached(situation: Situation) -> Verdict:
    type_ = ConditionType.MODEL_CACHED
    job = situation.children.get(("Job", situation.fetch_job))
    if job is not None and job.facts["complete"]:
        return verdict(type_, "True", Reason.Cached)
    if (failure := situation.model.failure) is not None:
        return verdict(type_, "False", failure.reason, failure.message)
    if not situation.model.commit:
        return verdict(type_, "False", Reason.Resolving)
    finding = situation.findings.get("fetch")
    vague = finding is None or finding.reason in (Reason.Starting, Reason.NotReady, Reason.CrashLoop)
    if vague and job is not None and job.facts["failed"]:
        return verdict(type_, "False", Reason.FetchFailed, finding.message if finding else "")
    if finding is not None and finding.reason not in (Reason.Starting, Reason.NotReady):
        return verdict(type_, "False", finding.reason, finding.message, finding.advice)
    volume = situation.children.get(("PersistentVolumeClaim", f"{situation.name}-model"))
    if volume is None or volume.facts["phase"] != "Bound":
        return verdict(
            type_, "False", Reason.VolumePending, f"volume {situation.name}-model is not bound yet"
        )
    return verdict(type_, "False", Reason.Fetching, _downloaded(situation.progress))


def _downloaded(progress: Progress | None) -> str:
    """Progress in words; no more than whole percents and minutes, so that the words seldom change."""
    if progress is None or not progress.total_bytes:
        return ""
    done, total = progress.downloaded_bytes, progress.total_bytes
    left = f", about {max(1, round(progress.eta_seconds / 60))} min left" if progress.eta_seconds else ""
    return f"{100 * done // total} % of {total / 2**30:.1f} GiB{left}"


def _chat_ready(situation: Situation) -> Verdict:
    type_ = ConditionType.CHAT_READY
    if Stage.WORKLOAD in situation.pending:
        # A Deployment that could not be brought to the spec still runs what an earlier spec asked for.
        finding = situation.findings.get("chat") or situation.findings.get("gateway")
        return pods(type_, finding, "a workload is not as the spec says yet")
    gateway = situation.children.get(("Deployment", f"{situation.name}-gateway"))
    if gateway is None or not seen.rolled_out(gateway):
        return pods(type_, situation.findings.get("gateway"), "the gateway's pods are starting")
    if not situation.sandbox.spec.chat.enabled:
        return verdict(type_, "True", Reason.ChatDisabled)
    chat = situation.children.get(("Deployment", f"{situation.name}-chat"))
    if chat is not None and seen.rolled_out(chat):
        return verdict(type_, "True", Reason.ChatServing)
    return pods(type_, situation.findings.get("chat"))


def _exposed(situation: Situation) -> Verdict:
    type_ = ConditionType.EXPOSED
    if not situation.public and situation.releasing:
        return verdict(type_, "False", Reason.Progressing, "The earlier NodeBalancer is being removed.")
    if not situation.public:
        # "Nothing public" is what this spec asks for: True, so that all-True means done.
        return verdict(type_, "True", Reason.NotExposed)
    service = situation.children.get(("Service", situation.name))
    if service is None:
        return verdict(type_, "False", Reason.ExposureHeldBack)
    address = service.facts["address"] or service.facts["hostname"]
    if not address:
        return verdict(type_, "False", Reason.AddressPending)
    return verdict(type_, "True", Reason.AddressAssigned, f"The NodeBalancer's address is {address}.")


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
