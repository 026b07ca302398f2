"""Where a download runs, and which record of a download is believed: by the pods, and by the volume's age."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import common, engine, fetch, render, storage
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import execute, inputs, model_cache, model_volume, plan, views
from unit.desired import samples
from unit.observed.live import live, observed
from unit.reconcile.fake_client import FakeClient
from unit.reconcile.things import Stage, with_facts

Json = Any
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SANDBOX = samples.sandbox({})
NEXT = samples.sandbox({"model": {"id": "acme/next"}})
ASLEEP = samples.sandbox({"model": {"id": "acme/next"}, "lifecycle": {"state": "Suspended"}})
COMMIT = "b" * 40
JOB = ("Job", fetch.job_name(NEXT, COMMIT))
ENGINE = ("Deployment", engine.service_name(NEXT))
CLAIM = ("PersistentVolumeClaim", storage.model_claim_name(SANDBOX))
DONE = ("Job", fetch.job_name(SANDBOX, samples.COMMIT))
OPTIONS = inputs.Options(
    cluster_id="c",
    release=samples.FACTS.release,
    storage_class="s",
    nodebalancer_ranges=(),
    pod_ranges=(),
)
Children = dict[tuple[str, str], seen.Seen]


def pod(
    component: str, *, node: str = "", phase: str = "Pending", job: str = "", ending: bool = False
) -> Json:
    labels = {names.LABEL_COMPONENT: component, **({"batch.kubernetes.io/job-name": job} if job else {})}
    metadata = {"labels": labels, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {})}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def planned(sandbox: Any, found: Children, *pods: Json) -> plan.Plan:
    use = model_volume.use(pods)
    known = inputs.rendering_facts(
        sandbox,
        found,
        options=OPTIONS,
        material=samples.MATERIAL,
        linode=views.LinodeView(),
        model=views.ModelView(commit=COMMIT, size_bytes=10**9),
        volume=use,
    )
    context = inputs.plan_context(
        sandbox,
        found,
        accepted={},
        hold=frozenset(),
        linode=views.LinodeView(),
        commit=COMMIT,
        now=NOW,
        volume=use,
    )
    return plan.plan(render.render(sandbox, known), found, context)


def jobs(found: plan.Plan) -> list[str]:
    """Writes of the Job that fetches the next model: where it is made to run, or that it is deleted."""
    said = []
    for step in found.steps:
        if isinstance(step, plan.Delete):
            said += ["delete"] if step.record.name == JOB[1] else []
        elif step.child.name == JOB[1]:
            (said_affinity,) = step.child.manifest["spec"]["template"]["spec"]["affinity"]
            said.append(said_affinity)
    return said


def running() -> Children:
    """An engine that serves the model before."""
    found = observed(samples.rendered({}, dataclasses.replace(samples.FACTS, model_cached=True)))
    return with_facts(found, ENGINE, replicas=1, ready=1, current=1, updated=1)


def with_job(found: Children, *, beside: bool) -> Children:
    known = dataclasses.replace(samples.FACTS, commit=COMMIT, engine_running=beside)
    manifest = samples.child(samples.rendered({"model": {"id": "acme/next"}}, known), *JOB)
    return {**found, JOB: seen.observe("Job", live(manifest))}


ON = pod(common.ENGINE, node="gpu", phase="Running")
CRASHING = pod(common.ENGINE, node="gpu")


@pytest.mark.parametrize(
    ("case", "pods", "where"),
    [
        ("the engine serves", [ON], "podAffinity"),
        ("the engine is on a node and ends again and again", [CRASHING], "podAffinity"),
        ("the engine waits for a node", [pod(common.ENGINE)], "nodeAffinity"),
        ("the engine is leaving", [pod(common.ENGINE, node="gpu", ending=True)], "nodeAffinity"),
        ("the engine was evicted", [pod(common.ENGINE, node="gpu", phase="Failed")], "nodeAffinity"),
        ("only the chat is on a node", [pod(common.CHAT, node="cpu", phase="Running")], "nodeAffinity"),
    ],
)
def test_a_download_runs_beside_the_engine_only_while_that_is_on_a_node(
    case: str, pods: list[Json], where: str
) -> None:
    assert jobs(planned(NEXT, running(), *pods)) == [where], case


def test_a_model_that_is_changed_before_a_suspension_is_fetched_after_it() -> None:
    waiting = pod(common.FETCH, job=JOB[1])
    found = with_job(running(), beside=True)
    assert jobs(planned(NEXT, found, ON, waiting)) == [], "it waits for room beside the engine"
    asleep = with_facts(found, ENGINE, replicas=0, ready=0, current=0, updated=0)
    for spec in (ASLEEP, NEXT):
        assert jobs(planned(spec, asleep, waiting)) == ["delete"]
        gone = {key: record for key, record in asleep.items() if key != JOB}
        assert jobs(planned(spec, gone)) == ["nodeAffinity"]


@pytest.mark.parametrize(
    ("case", "beside", "pods", "again"),
    [
        ("it waits beside an engine that left", True, [pod(common.FETCH, job=JOB[1])], True),
        ("it has no pod, and the engine left", True, [], True),
        ("its pod ended, and the engine left", True, [pod(common.FETCH, job=JOB[1], phase="Failed")], True),
        ("it goes on where the engine was", True, [pod(common.FETCH, job=JOB[1], node="gpu")], False),
        ("it waits beside the engine", True, [ON, pod(common.FETCH, job=JOB[1])], False),
        ("the engine came and has the volume", False, [ON, pod(common.FETCH, job=JOB[1], node="cpu")], True),
        ("the engine came to its node", False, [ON, pod(common.FETCH, job=JOB[1], node="gpu")], False),
        (
            "the engine came too late and waits for the volume",
            False,
            [CRASHING, pod(common.FETCH, job=JOB[1], node="cpu", phase="Running")],
            False,
        ),
        ("no engine is on a node", False, [pod(common.FETCH, job=JOB[1], node="cpu")], False),
        ("another download runs", True, [pod(common.FETCH, job="x", node="cpu")], True),
    ],
)
def test_a_download_that_would_wait_for_ever_is_made_anew(
    case: str, beside: bool, pods: list[Json], again: bool
) -> None:
    found = with_job(running(), beside=beside)
    assert jobs(planned(NEXT, found, *pods)) == (["delete"] if again else []), case
    # What has ended waits for nothing.
    for end in ({"complete": True}, {"failed": True}):
        use = model_volume.use(pods)
        ended = with_facts(found, JOB, **end)
        assert model_cache.to_replace(NEXT, ended, COMMIT, NOW, use) == frozenset(), case


def test_a_replaced_download_is_not_made_before_its_pods_are_gone() -> None:
    found = with_job(running(), beside=False)
    leaving = {**found, JOB: dataclasses.replace(found[JOB], deleting=True)}
    assert jobs(planned(NEXT, leaving)) == []
    assert f"Job {JOB[1]}" in planned(NEXT, leaving).waiting


async def test_the_pods_of_a_deleted_download_go_before_its_record_and_of_nothing_else() -> None:
    """The next download writes to the same volume."""
    found = with_job(running(), beside=True)
    steps = plan.Plan(
        prune=tuple(plan.Delete(stage=Stage.WORKLOAD, record=found[key]) for key in (JOB, ENGINE))
    )
    client = FakeClient()
    executor = execute.Executor(client, lambda kind, body: seen.observe(kind.kind, body))
    await executor.execute(steps, namespace="team-a", uid=samples.UID)
    assert dict(zip(client.calls, client.sent, strict=True)) == {
        f"delete Job {JOB[1]}": "Foreground",
        f"delete Deployment {ENGINE[1]}": "Background",
    }


def complete(*, claimed_at: str) -> Children:
    found = observed(samples.rendered({}))
    return with_facts(with_facts(found, DONE, complete=True), CLAIM, created=claimed_at)


@pytest.mark.parametrize(
    ("claimed_at", "believed"),
    [
        ("2025-12-31T23:59:59Z", True),
        ("2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:01Z", False),
        ("2026-06-01T00:00:00Z", False),
    ],
)
def test_a_download_that_is_older_than_the_claim_is_made_anew(claimed_at: str, believed: bool) -> None:
    found = complete(claimed_at=claimed_at)
    assert model_cache.cached(SANDBOX, found, samples.COMMIT) is believed
    again = model_cache.to_replace(SANDBOX, found, samples.COMMIT, NOW, model_volume.UNUSED)
    assert again == (frozenset() if believed else {DONE})


def test_the_record_goes_before_a_claim_that_is_being_deleted_and_comes_after_the_next() -> None:
    found = complete(claimed_at="2026-01-01T00:00:00Z")
    leaving = {**found, CLAIM: dataclasses.replace(found[CLAIM], deleting=True)}
    assert not model_cache.cached(SANDBOX, leaving, samples.COMMIT)
    assert model_cache.to_replace(SANDBOX, leaving, samples.COMMIT, NOW, model_volume.UNUSED) == {DONE}
    gone = {key: record for key, record in leaving.items() if key != DONE}
    for held, waits in ((leaving, False), (gone, True), ({**gone, CLAIM: found[CLAIM]}, False)):
        assert model_cache.claim_leaves(SANDBOX, held, samples.COMMIT) is waits


def test_without_a_claim_no_model_is_there_and_no_record_is_thrown_away() -> None:
    found = {key: record for key, record in observed(samples.rendered({})).items() if key != CLAIM}
    found = with_facts(found, DONE, complete=True)
    assert not model_cache.cached(SANDBOX, found, samples.COMMIT)
    assert not model_cache.to_replace(SANDBOX, found, samples.COMMIT, NOW, model_volume.UNUSED)


def test_a_record_that_is_going_is_none() -> None:
    found = complete(claimed_at="2026-01-01T00:00:00Z")
    leaving = {**found, DONE: dataclasses.replace(found[DONE], deleting=True)}
    assert model_cache.cached(SANDBOX, found, samples.COMMIT)
    assert not model_cache.cached(SANDBOX, leaving, samples.COMMIT)
