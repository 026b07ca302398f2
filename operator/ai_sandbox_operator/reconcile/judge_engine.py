"""The verdicts on the engine. Pure."""

from __future__ import annotations

from ai_sandbox_operator.api.conditions import ConditionType, Reason, Verdict
from ai_sandbox_operator.observed import seen

from . import engine_state, engine_update
from .verdicts import pods, told_before, verdict
from .views import Situation


def ready(situation: Situation) -> Verdict:
    """EngineReady."""
    type_ = ConditionType.ENGINE_READY
    if situation.suspended:
        return verdict(type_, "False", Reason.Suspended)
    engine = situation.children.get(("Deployment", f"{situation.name}-engine"))
    current = engine is not None and engine.facts["engine_inputs"] == situation.engine_inputs
    proof, held = situation.engine, told_before(situation, type_)
    if engine is not None and current and seen.rolled_out(engine):
        if proof.unseen and held is not None:
            return held
        if not proof.proven:
            return verdict(type_, "False", proof.reason, proof.message)
        return verdict(type_, "True", Reason.EngineServing)
    if engine is None or not engine.facts["replicas"]:
        return verdict(type_, "False", Reason.WaitingForModel)
    if current and seen.complete(engine) and held is not None and held.status == "True":
        return held
    return _changing(situation, engine)


def serves(situation: Situation) -> bool:
    """Whether EngineReady is True."""
    return ready(situation).status == "True"


def _changing(situation: Situation, engine: seen.Seen) -> Verdict:
    """What is said of an engine that does not serve what the spec asks for."""
    type_, live, finding = (
        ConditionType.ENGINE_READY,
        engine_state.live(engine),
        situation.findings.get("engine"),
    )
    if (failed := engine_update.rolled_back(live, situation.engine_inputs)) is not None:
        if seen.rolled_out(engine):
            text = "the engine serves the last good configuration"
        else:
            text = "the last good configuration is being brought back"
            text += f" ({finding.message})" if finding else ""
        return verdict(type_, "False", Reason.RolledBack, f"{text}; the change failed: {failed.cause}")
    if seen.rolled_out(engine) and live.inputs != situation.engine_inputs:
        job = situation.children.get(("Job", situation.fetch_job))
        if job is not None and job.facts["complete"]:
            return verdict(type_, "False", Reason.Starting, "the engine is about to be changed")
        text = "the engine before the change serves until the new model is cached"
        return verdict(type_, "False", Reason.WaitingForModel, text)
    if live.refused and finding is None:
        return verdict(type_, "False", Reason.WriteRefused, live.refused)
    if live.on_trial and (finding is None or finding.reason in (Reason.Starting, Reason.NotReady)):
        reason = finding.reason if finding else Reason.Starting
        text = engine_update.STRATEGY + (f"; {finding.message}" if finding else "")
        return verdict(type_, "False", reason, text)
    return pods(type_, finding)


def waits_for_person(situation: Situation, part: Verdict) -> bool:
    """Whether it is at an end.

    A download that failed for good, or an engine whose change was taken back, or that fails for good while
    nothing good is known to go back to.
    """
    download = situation.findings.get("fetch")
    hopeless = download is not None and download.permanent
    if part.type is ConditionType.MODEL_CACHED or part.reason is Reason.WaitingForModel:
        return hopeless
    engine = situation.children.get(("Deployment", f"{situation.name}-engine"))
    if part.type is not ConditionType.ENGINE_READY or engine is None:
        return False
    if part.reason is Reason.RolledBack:
        return seen.rolled_out(engine)
    finding = situation.findings.get("engine")
    return finding is not None and finding.permanent and not engine_state.live(engine).on_trial


def update_available(situation: Situation) -> tuple[Verdict, ...]:
    """Informs, and is absent where there is nothing to tell; it has no say in Ready."""
    type_, want = ConditionType.UPDATE_AVAILABLE, situation.engine_wanted
    engine = situation.children.get(("Deployment", f"{situation.name}-engine"))
    if engine is None or want is None:
        return ()
    live = engine_state.live(engine)
    difference = engine_update.newer(live, want)
    if not difference:
        return ()
    if live.failed is not None and live.failed.rendered == want.rendered:
        text = f"{difference}; it was tried and failed: {live.failed.cause}"
        return (verdict(type_, "True", Reason.EngineUpdateFailed, text),)
    return (verdict(type_, "True", Reason.EngineUpdateAvailable, difference),)
