"""When an earlier model leaves the cache: only once the next one was seen to serve."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import engine, fetch, storage
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import engine_state, engine_update, inputs, model_cache, plan, views
from ai_sandbox_operator.reconcile.model_volume import UNUSED
from unit.desired import samples

Json = Any
SANDBOX = samples.sandbox({})
EARLIER = fetch.job_name(samples.sandbox({"model": {"id": "acme/earlier"}}), "e" * 40)
CURRENT = fetch.job_name(SANDBOX, samples.COMMIT)
SWEEP = fetch.sweep_name(SANDBOX, samples.COMMIT)
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
RUNS = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), 1)


CREATED = {"creationTimestamp": "2026-01-01T00:00:00Z"}


def job(name: str, *, complete: bool = True) -> seen.Seen:
    manifest = samples.child(samples.rendered({}), "Job", CURRENT)
    metadata = {**manifest["metadata"], **CREATED, "name": name, "uid": name}
    done = [{"type": "Complete", "status": "True"}] if complete else []
    return seen.observe("Job", {**manifest, "metadata": metadata, "status": {"conditions": done}})


def deployment(*, good: bool = True, ready: int = 1, commit: str = samples.COMMIT) -> seen.Seen:
    """The engine; `good` says whether its template was seen to serve."""
    known = dataclasses.replace(samples.FACTS, commit=commit)
    manifest = samples.child(samples.rendered({}, known), "Deployment", engine.service_name(SANDBOX))
    first = engine_update.first(engine_update.wanted(manifest), engine_update.Ask())
    annotations = {**manifest["metadata"]["annotations"], **first.annotations}
    body = {
        **manifest,
        "metadata": {**manifest["metadata"], "uid": "u", "generation": 1, "annotations": annotations},
        "spec": {**manifest["spec"], "template": first.template},
        "status": {**RUNS, "readyReplicas": ready, "observedGeneration": 1},
    }
    record = seen.observe("Deployment", body)
    if not good:
        return record
    serving = engine_update.Ask(serving=True)
    decided = engine_update.decide(engine_state.live(record), engine_update.wanted(manifest), serving)
    body["metadata"]["annotations"] = {**annotations, **decided.annotations}
    return seen.observe("Deployment", body)


def children(*records: seen.Seen) -> dict[tuple[str, str], seen.Seen]:
    """These, and the claim of the volume."""
    claim = samples.child(samples.rendered({}), "PersistentVolumeClaim", storage.model_claim_name(SANDBOX))
    body = {**claim, "metadata": {**claim["metadata"], **CREATED, "uid": "claim"}}
    everything = (*records, seen.observe("PersistentVolumeClaim", body))
    return {(record.kind, record.name): record for record in everything}


def swept(found: dict[tuple[str, str], seen.Seen]) -> tuple[bool, set[str]]:
    """Whether a sweep is wanted, and which Jobs stay although nothing wants them."""
    model = views.ModelView(commit=samples.COMMIT)
    known = inputs.rendering_facts(
        SANDBOX,
        found,
        options=inputs.Options(
            cluster_id="c",
            release=samples.FACTS.release,
            storage_class="s",
            nodebalancer_ranges=(),
            pod_ranges=(),
        ),
        material=samples.MATERIAL,
        linode=views.LinodeView(),
        model=model,
    )
    return known.sweep, {name for _, name in model_cache.earlier(SANDBOX, found, samples.COMMIT)}


@pytest.mark.parametrize(
    ("case", "found", "sweep", "kept"),
    [
        ("nothing earlier", [job(CURRENT), deployment()], False, set()),
        ("earlier, new serves", [job(CURRENT), job(EARLIER), deployment()], True, {EARLIER}),
        ("new not ready", [job(CURRENT), job(EARLIER), deployment(ready=0)], False, {EARLIER}),
        ("new not proven", [job(CURRENT), job(EARLIER), deployment(good=False)], False, {EARLIER}),
        ("old engine serves", [job(CURRENT), job(EARLIER), deployment(commit="e" * 40)], False, {EARLIER}),
        ("being fetched", [job(CURRENT, complete=False), job(EARLIER)], False, {EARLIER}),
        ("never complete", [job(CURRENT), job(EARLIER, complete=False), deployment()], False, set()),
        ("swept", [job(CURRENT), job(EARLIER), job(SWEEP), deployment()], False, set()),
        (
            "sweeping",
            [job(CURRENT), job(EARLIER), job(SWEEP, complete=False), deployment()],
            True,
            set(),
        ),
        (
            "sweeping, engine not ready",
            [job(CURRENT), job(SWEEP, complete=False), deployment(ready=0)],
            True,
            set(),
        ),
    ],
)
def test_what_is_swept_and_what_is_kept(
    case: str, found: list[seen.Seen], sweep: bool, kept: set[str]
) -> None:
    assert swept(children(*found)) == (sweep, kept), case


def test_a_kept_record_is_not_deleted_and_any_other_is() -> None:
    found = children(job(EARLIER))
    for keep, deleted in ((frozenset(found), []), (frozenset(), [EARLIER])):
        steps = plan.plan((), found, plan.Context(uid=samples.UID, keep=keep))
        assert [step.record.name for step in steps.prune] == deleted


def test_a_sweep_is_no_download_that_somebody_waits_for() -> None:
    found = children(job(CURRENT), job(SWEEP, complete=False))
    assert inputs.waiting_components(SANDBOX, found) == ()


OTHER_SWEEP = fetch.sweep_name(samples.sandbox({"model": {"id": "acme/other"}}), "e" * 40)


def test_a_record_whose_files_another_sweep_may_have_removed_is_made_anew() -> None:
    found = children(job(CURRENT), job(OTHER_SWEEP, complete=False))
    assert not model_cache.cached(SANDBOX, found, samples.COMMIT)
    assert model_cache.to_replace(SANDBOX, found, samples.COMMIT, NOW, UNUSED) == {("Job", CURRENT)}
    alone = children(job(CURRENT))
    assert model_cache.cached(SANDBOX, alone, samples.COMMIT)
    assert model_cache.to_replace(SANDBOX, alone, samples.COMMIT, NOW, UNUSED) == frozenset()
    # One that is under way holds the volume's lock, and is left to itself.
    under_way = children(job(CURRENT, complete=False), job(OTHER_SWEEP, complete=False))
    assert model_cache.to_replace(SANDBOX, under_way, samples.COMMIT, NOW, UNUSED) == frozenset()


@pytest.mark.parametrize(
    ("seconds", "again"), [(model_cache.RETRY - 1, False), (model_cache.RETRY + 1, True)]
)
def test_a_sweep_that_failed_is_tried_again_after_a_while(seconds: float, again: bool) -> None:
    failed_at = (NOW - datetime.timedelta(seconds=seconds)).isoformat()
    failed = dataclasses.replace(
        job(SWEEP), facts={**job(SWEEP).facts, "complete": False, "failed": True, "failed_at": failed_at}
    )
    sandbox = SANDBOX.model_copy(
        update={"status": v1alpha1.AISandboxStatus(observed_generation=SANDBOX.metadata.generation)}
    )
    found = model_cache.to_replace(sandbox, children(failed), samples.COMMIT, NOW, UNUSED)
    assert found == ({("Job", SWEEP)} if again else frozenset())
