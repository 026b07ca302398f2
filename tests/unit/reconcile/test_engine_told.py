"""What is kept of the engine's Deployment, and what is told of its changes: never more than was seen (I8)."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
from typing import Any

import pytest

from ai_sandbox_operator.api import names
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Verdict
from ai_sandbox_operator.desired import engine, fetch
from ai_sandbox_operator.observed import canonical, diagnosis, seen
from ai_sandbox_operator.reconcile import engine_state, engine_update, judge, plan, views
from unit.desired import samples
from unit.observed.live import live
from unit.reconcile.things import CONTEXT, child_of

Json = Any
CHILD = child_of("Deployment", "demo-engine")
WANT = engine_update.wanted(CHILD.manifest)
INPUTS = WANT.inputs


def body(inputs: str = INPUTS, *, ready: int = 1, **annotations: str) -> dict[str, Json]:
    """The live engine, rendered for `inputs`."""
    made = live(copy.deepcopy(dict(CHILD.manifest)))
    made["spec"]["template"] = copy.deepcopy(dict(WANT.template))
    made["metadata"]["annotations"] |= {
        seen.ANNOTATION_ENGINE_INPUTS: inputs,
        seen.ANNOTATION_ENGINE_TEMPLATE: WANT.rendered,
        **{f"sandbox.linode.com/{name.replace('_', '-')}": value for name, value in annotations.items()},
    }
    made["spec"]["replicas"] = 1
    made["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready}
    return made


def record(made: dict[str, Json]) -> seen.Seen:
    return seen.observe("Deployment", made)


# -- kept --------------------------------------------------------------------------------------------------


def test_what_serves_is_kept_in_one_metadata_write_and_then_no_more() -> None:
    made = body()
    context = dataclasses.replace(CONTEXT, ask=engine_update.Ask(serving=True))
    (step,) = plan.plan([CHILD], {("Deployment", "demo-engine"): record(made)}, context).steps
    assert isinstance(step, plan.Merge)
    assert set(step.patch) == {"metadata"}, "a change of anything else might restart the pod"
    made["metadata"]["annotations"] |= step.patch["metadata"]["annotations"]
    kept = engine_state.live(record(made)).good
    assert kept is not None
    assert canonical.prune(kept.template) == canonical.prune(made["spec"]["template"])
    assert record(made).facts["engine_candidate"] == "", "it is held once"
    assert plan.plan([CHILD], {("Deployment", "demo-engine"): record(made)}, context).empty


def test_a_restart_that_somebody_asked_for_is_not_part_of_what_is_kept() -> None:
    plain, restarted = body(), body()
    restarted["spec"]["template"]["metadata"]["annotations"] |= {canonical.RESTARTED: "2026-05-01T00:00:00Z"}
    assert record(plain).facts["engine_candidate"] == record(restarted).facts["engine_candidate"] != ""


def test_of_other_deployments_nothing_is_kept() -> None:
    facts = seen.observe("Deployment", live(child_of("Deployment", "demo-gateway").manifest)).facts
    assert (facts["engine_state"], facts["engine_candidate"], facts["engine_template"]) == ({}, "", "")


def test_who_takes_the_annotations_off_restarts_nothing() -> None:
    made = body()
    made["metadata"]["annotations"][seen.ANNOTATION_ENGINE_GOOD] = record(made).facts["engine_candidate"]
    for name in (seen.ANNOTATION_ENGINE_INPUTS, seen.ANNOTATION_ENGINE_TEMPLATE):
        del made["metadata"]["annotations"][name]
    (step,) = plan.plan([CHILD], {("Deployment", "demo-engine"): record(made)}, CONTEXT).steps
    assert isinstance(step, plan.Merge)
    assert step.patch["metadata"]["annotations"][seen.ANNOTATION_ENGINE_INPUTS] == INPUTS


@pytest.mark.parametrize(
    "held", [{"model_cached": False}, {"hold": frozenset({"engine"})}], ids=["loading", "does not fit"]
)
def test_a_failed_change_goes_back_and_runs_although_the_next_model_cannot_start_yet(held: Json) -> None:
    good = record(body("before")).facts["engine_candidate"].replace(WANT.rendered, "re-before")
    made = body("tried", ready=0, last_good_template=good)
    made["status"]["conditions"] = [
        {
            "type": "ReplicaFailure",
            "status": "True",
            "message": "exceeded quota",
            "lastTransitionTime": "2026-05-01T00:00:00Z",
        }
    ]
    made["metadata"]["annotations"][names.ANNOTATION_MODEL] = "tried@main 0123"
    late = engine_update.Ask(now=datetime.datetime(2026, 5, 1, 1, tzinfo=datetime.UTC))
    context = dataclasses.replace(CONTEXT, ask=late, **held)
    spec = {**CHILD.manifest["spec"], "replicas": 0}
    idle = dataclasses.replace(CHILD, manifest={**CHILD.manifest, "spec": spec})
    (step,) = plan.plan([idle], {("Deployment", "demo-engine"): record(made)}, context).steps
    assert isinstance(step, plan.Apply)
    assert step.manifest["spec"]["replicas"] == 1
    assert step.manifest["metadata"]["annotations"][seen.ANNOTATION_ENGINE_INPUTS] == "before"
    assert step.manifest["metadata"]["annotations"][names.ANNOTATION_MODEL] == "tried@main 0123"


def test_an_engine_that_is_held_takes_over_nothing() -> None:
    held = dataclasses.replace(CONTEXT, hold=frozenset({"engine"}))
    assert plan.plan([CHILD], {("Deployment", "demo-engine"): record(body("before"))}, held).empty
    foreign = dataclasses.replace(record(body("before")), owner_uid="earlier")
    assert plan.plan([CHILD], {("Deployment", "demo-engine"): foreign}, held).empty


def test_what_is_no_longer_true_is_taken_off_by_name() -> None:
    failed = json.dumps({"inputs": "other", "rendered": "x", "cause": "c", "retry": ""})
    (step,) = plan.plan(
        [CHILD], {("Deployment", "demo-engine"): record(body(failed_engine_update=failed))}, CONTEXT
    ).steps
    assert isinstance(step, plan.Merge)
    assert step.patch["metadata"]["annotations"][seen.ANNOTATION_ENGINE_FAILED] is None


# -- told --------------------------------------------------------------------------------------------------

GOOD_BEFORE = json.dumps(
    {"inputs": "before", "rendered": "re-before", "template": json.loads(json.dumps(dict(WANT.template)))}
)
FAILED = json.dumps({"inputs": INPUTS, "rendered": WANT.rendered, "cause": "no such image", "retry": ""})
BROKEN = diagnosis.Finding(Reason.CrashLoop, "it refuses its arguments", permanent=True)
PASSING = diagnosis.Finding(Reason.Starting, "loading weights 3/4")


def back(*, ready: int = 1) -> dict[str, Json]:
    """After a rollback: what served before, and the memory of what the spec asks for."""
    made = body("before", ready=ready, last_good_template=GOOD_BEFORE, failed_engine_update=FAILED)
    made["metadata"]["annotations"][seen.ANNOTATION_ENGINE_TEMPLATE] = "re-before"
    return made


def told(made: dict[str, Json], **rest: Json) -> dict[ConditionType, Verdict]:
    sandbox = samples.sandbox({})
    job = child_of("Job", fetch.job_name(sandbox, samples.COMMIT))
    done = live(job.manifest)
    done["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    children = {
        ("Deployment", "demo-engine"): record(made),
        ("Job", job.name): seen.observe("Job", done),
    }
    for suffix in ("gateway", "chat"):
        other = live(child_of("Deployment", f"demo-{suffix}").manifest)
        count = other["spec"]["replicas"]
        other["status"] = {"observedGeneration": 1} | dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas"), count
        )
        children["Deployment", f"demo-{suffix}"] = seen.observe("Deployment", other)
    situation = views.Situation(
        sandbox=sandbox,
        children=children,
        engine_inputs=engine.engine_inputs(sandbox, samples.COMMIT),
        fetch_job=job.name,
        **{
            "gateway": views.GatewayProof(proven=True),
            "engine": views.EngineProof(proven=True),
            "model": views.ModelView(commit=samples.COMMIT),
            "engine_wanted": WANT,
            **rest,
        },
    )
    return {verdict.type: verdict for verdict in judge.judge(situation)}


C = ConditionType


def summary(found: dict[ConditionType, Verdict]) -> tuple[str, str, str]:
    return found[C.READY].status, found[C.RECONCILING].status, found[C.STALLED].status


READY, WORKING, STALLED = ("True", "False", "False"), ("False", "True", "False"), ("False", "False", "True")
TOLD: dict[str, tuple[dict[str, Json], dict[str, Json], Reason, tuple[str, str, str], str]] = {
    "it serves": (body(), {}, Reason.EngineServing, READY, ""),
    "it was rolled back and serves": (
        back(),
        {},
        Reason.RolledBack,
        STALLED,
        "serves the last good configuration; the change failed: no such image",
    ),
    "it was rolled back and is starting": (
        back(ready=0),
        {"engine": PASSING},
        Reason.RolledBack,
        WORKING,
        "is being brought back (loading weights 3/4); the change failed: no such image",
    ),
    "a change starts": (
        body(ready=0, last_good_template=GOOD_BEFORE),
        {"engine": PASSING},
        Reason.Starting,
        WORKING,
        "the old pod ends first (up to 120 s for open streams); loading weights 3/4",
    ),
    "a change whose old pod is ending": (
        body(ready=0, last_good_template=GOOD_BEFORE),
        {},
        Reason.Starting,
        WORKING,
        "one GPU and a ReadWriteOnce volume",
    ),
    "a change fails, and will be rolled back": (
        body(ready=0, last_good_template=GOOD_BEFORE),
        {"engine": BROKEN},
        Reason.CrashLoop,
        WORKING,
        "it refuses its arguments",
    ),
    "the first start fails": (
        body(ready=0),
        {"engine": BROKEN},
        Reason.CrashLoop,
        STALLED,
        "it refuses its arguments",
    ),
    "the first start takes its time": (body(ready=0), {"engine": PASSING}, Reason.Starting, WORKING, "3/4"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_is_told_of_the_engine(case: str) -> None:
    made, findings, reason, expected, text = TOLD[case]
    found = told(made, findings=findings)
    assert found[C.ENGINE_READY].reason is reason
    assert text in found[C.ENGINE_READY].message
    assert summary(found) == expected
    assert found[C.READY].reason in (reason, Reason.AllReady)


def test_a_newer_engine_is_told_beside_ready_and_never_instead_of_it() -> None:
    newer = dataclasses.replace(
        WANT,
        rendered="re-next",
        template=json.loads(json.dumps(dict(WANT.template)).replace("v0.33.0", "v9")),
    )
    assert C.UPDATE_AVAILABLE not in told(body())
    good = record(body()).facts["engine_candidate"]
    found = told(body(last_good_template=good), engine_wanted=newer)
    assert summary(found) == READY
    assert found[C.UPDATE_AVAILABLE].status == "True"
    assert found[C.UPDATE_AVAILABLE].reason is Reason.EngineUpdateAvailable
    assert "v0.33.0 becomes vllm/vllm-openai:v9" in found[C.UPDATE_AVAILABLE].message
    assert "sandbox.linode.com/update-engine" in found[C.UPDATE_AVAILABLE].message
    failed = json.dumps({"inputs": INPUTS, "rendered": "re-next", "cause": "no such image", "retry": ""})
    found = told(body(last_good_template=good, failed_engine_update=failed), engine_wanted=newer)
    assert summary(found) == READY, "what serves is what the spec asks for"
    assert found[C.UPDATE_AVAILABLE].reason is Reason.EngineUpdateFailed
    assert "no such image" in found[C.UPDATE_AVAILABLE].message
