"""The plan for the engine, whose pods are sacred (I5), and for what belongs to somebody else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import plan
from unit.desired import samples
from unit.observed.live import live, observed
from unit.reconcile.things import (
    ALL,
    CONTEXT,
    PUBLIC,
    Json,
    Records,
    Stage,
    changed,
    child_of,
    with_facts,
    word,
    words,
)

# -- the engine (I5) ---------------------------------------------------------------------------------------

ENGINE = ("Deployment", "demo-engine")


def test_the_template_of_the_engine_survives_a_release_that_renders_another() -> None:
    release = facts.Release(engine_image="vllm/vllm-openai:next")
    known = dataclasses.replace(samples.EXPOSED, release=release)
    newer = samples.rendered(PUBLIC, known)
    records = with_facts(observed(ALL), ENGINE, replicas=1)
    assert words(plan.plan(newer, records, CONTEXT)) == []


def engine(records: Records, context: plan.Context = CONTEXT, spec: Mapping[str, Json] = PUBLIC) -> list[str]:
    known = dataclasses.replace(samples.EXPOSED, model_cached=context.model_cached)
    found = plan.plan(samples.rendered(dict(spec), known), records, context)
    return [word(s) + _patch(s) for s in found.steps if not isinstance(s, plan.Delete) and _is_engine(s)]


def _is_engine(step: plan.Create | plan.Apply | plan.Merge) -> bool:
    return (step.child.kind, step.child.name) == ENGINE


def _patch(step: plan.Step) -> str:
    return f" {dict(step.patch)}" if isinstance(step, plan.Merge) else ""


NOT_CACHED = dataclasses.replace(CONTEXT, model_cached=False)
SUSPENDED = dataclasses.replace(CONTEXT, running=False)
OTHER_MODEL: dict[str, Json] = {**PUBLIC, "model": {"id": "Qwen/Qwen3-8B-AWQ"}}
ENGINE_CASES: dict[str, tuple[dict[str, Json], plan.Context, dict[str, Json], list[str]]] = {
    "nothing changed": ({}, CONTEXT, PUBLIC, []),
    "the model became complete": (
        {"replicas": 0},
        CONTEXT,
        PUBLIC,
        ["merge Deployment demo-engine {'spec': {'replicas': 1}}"],
    ),
    "the engine waits for its model": ({"replicas": 0}, NOT_CACHED, PUBLIC, []),
    "somebody deleted the finished Job: the engine has its model in memory": ({}, NOT_CACHED, PUBLIC, []),
    "another model, not complete yet: the old engine serves": ({}, NOT_CACHED, OTHER_MODEL, []),
    "another model, complete": ({}, CONTEXT, OTHER_MODEL, ["apply Deployment demo-engine"]),
    "another model, nothing runs": (
        {"replicas": 0},
        NOT_CACHED,
        OTHER_MODEL,
        ["apply Deployment demo-engine"],
    ),
    "somebody changed the template": (
        {"foreign_template": "kubectl-edit"},
        CONTEXT,
        PUBLIC,
        ["apply Deployment demo-engine"],
    ),
    "suspended": (
        {},
        SUSPENDED,
        {**PUBLIC, "lifecycle": {"state": "Suspended"}},
        ["merge Deployment demo-engine {'spec': {'replicas': 0}}"],
    ),
    "suspended while another model is downloaded": (
        {},
        dataclasses.replace(SUSPENDED, model_cached=False),
        {**OTHER_MODEL, "lifecycle": {"state": "Suspended"}},
        ["apply Deployment demo-engine"],
    ),
}


@pytest.mark.parametrize("case", ENGINE_CASES)
def test_the_engine(case: str) -> None:
    values, context, spec, expected = ENGINE_CASES[case]
    assert engine(with_facts(observed(ALL), ENGINE, **values), context, spec) == expected


def test_a_lost_label_of_the_engine_is_put_back_without_touching_its_template() -> None:
    records = changed(*ENGINE, lambda b: b["metadata"]["labels"].pop("app.kubernetes.io/name"))
    (step,) = plan.plan(ALL, records, CONTEXT).steps
    assert isinstance(step, plan.Merge)
    assert set(step.patch) == {"metadata"}


# -- whose it is -------------------------------------------------------------------------------------------


def predecessors(*kinds: str) -> Records:
    """Children of an earlier sandbox of the same name, which the garbage collector has yet to take."""
    return {
        key: dataclasses.replace(record, owner_uid="earlier") if key[0] in kinds else record
        for key, record in observed(ALL).items()
    }


def test_no_pod_is_made_while_policies_of_an_earlier_sandbox_are_about_to_go() -> None:
    records = {key: record for key, record in predecessors("NetworkPolicy").items() if key[0] != "Deployment"}
    found = plan.plan(ALL, records, CONTEXT)
    assert words(found) == []
    assert len(found.waiting) == 5
    assert {Stage.POLICY, Stage.WORKLOAD} <= found.pending


def test_nothing_is_exposed_while_anything_of_an_earlier_sandbox_is_in_the_way() -> None:
    records = predecessors("Secret")
    del records["Service", "demo"], records[ENGINE]
    found = plan.plan(ALL, records, CONTEXT)
    assert words(found) == ["create Deployment demo-engine"]
    assert {Stage.SECRET, Stage.EXPOSURE} <= found.pending


@pytest.mark.parametrize("kind", ["Service", "Secret", "Deployment", "Job", "NetworkPolicy"])
def test_what_belongs_to_another_sandbox_is_neither_changed_nor_deleted(kind: str) -> None:
    records = {
        key: dataclasses.replace(record, owner_uid="other", digest=b"x", metadata_digest=b"x")
        for key, record in observed(ALL).items()
        if key[0] == kind
    }
    found = plan.plan((), records, dataclasses.replace(CONTEXT, exposed=False))
    assert words(found) == []
    assert not any("apply" in word or "delete" in word for word in words(plan.plan(ALL, records, CONTEXT)))


def test_what_is_being_deleted_is_waited_for() -> None:
    records = observed(ALL)
    records["Secret", "demo-gateway"] = dataclasses.replace(records["Secret", "demo-gateway"], deleting=True)
    found = plan.plan(ALL, records, CONTEXT)
    assert (words(found), found.waiting) == ([], ("Secret demo-gateway",))


def test_leftovers_go_pods_before_the_policies_that_guard_them_and_volumes_never() -> None:
    records = observed(ALL)
    without_chat = samples.rendered({**PUBLIC, "chat": {"enabled": False}}, samples.EXPOSED)
    found = plan.plan(without_chat, records, CONTEXT)
    assert [word(step) for step in found.prune] == [
        "delete Deployment demo-chat",
        "delete Service demo-chat",
        "delete NetworkPolicy demo-chat",
    ]


def test_turning_the_chat_off_keeps_its_volume_even_if_it_is_to_go_with_the_sandbox() -> None:
    spec: dict[str, Json] = {**PUBLIC, "storage": {"retain": {"chat": False}}}
    records = observed(samples.rendered(spec, samples.EXPOSED))
    assert records["PersistentVolumeClaim", "demo-chat"].owner_uid == samples.UID
    without_chat = samples.rendered({**spec, "chat": {"enabled": False}}, samples.EXPOSED)
    assert "delete PersistentVolumeClaim demo-chat" not in words(plan.plan(without_chat, records, CONTEXT))


def test_certificates_are_not_leftovers() -> None:
    body = live(child_of("Secret", "demo-chat").manifest)
    body["metadata"]["name"] = "demo-ca"
    body["metadata"]["labels"]["app.kubernetes.io/component"] = "certificate"
    records = {**observed(ALL), ("Secret", "demo-ca"): seen.observe("Secret", body)}
    assert words(plan.plan(ALL, records, CONTEXT)) == []


def test_a_failed_job_is_deleted_to_be_made_anew() -> None:
    job = next((c.kind, c.name) for c in ALL if c.kind == "Job")
    found = plan.plan(ALL, observed(ALL), dataclasses.replace(CONTEXT, replace=frozenset({job})))
    assert words(found) == [f"delete Job {job[1]}"]


def test_a_held_component_gets_nothing_but_its_policies() -> None:
    found = plan.plan(ALL, {}, dataclasses.replace(CONTEXT, hold=frozenset({"fetch"})))
    made = words(found)
    assert "create NetworkPolicy demo-fetch" in made
    assert not any("Job" in word or "demo-model" in word for word in made)
