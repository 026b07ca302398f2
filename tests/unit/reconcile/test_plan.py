"""From what is wanted and what stands to an exact list of writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import plan
from unit.desired import samples
from unit.observed.live import live, observed

Json = Any
Stage = facts.Stage
Key = tuple[str, str]
Records = dict[Key, seen.Seen]

PUBLIC: dict[str, Json] = {"access": {"exposure": "NodeBalancer"}}
ALL = samples.rendered(PUBLIC, samples.EXPOSED)
#: What is rendered while the firewall is not known, or when the spec asks for no address.
INSIDE = tuple(child for child in ALL if child.stage is not Stage.EXPOSURE)
CONTEXT = plan.Context(uid=samples.UID, expose=True, exposed=True, model_cached=True)


def words(found: plan.Plan) -> list[str]:
    """A plan as sentences, in the order of writing."""
    return [_word(step) for step in (*found.retract, *found.steps, *found.prune)]


def _word(step: plan.Step) -> str:
    if isinstance(step, plan.Delete):
        return f"delete {step.record.kind} {step.record.name}"
    verb = type(step).__name__.lower()
    if isinstance(step, plan.Apply) and not step.whole:
        verb = "apply metadata of"
    return f"{verb} {step.child.kind} {step.child.name}"


def child_of(kind: str, name: str) -> facts.Child:
    return next(child for child in ALL if (child.kind, child.name) == (kind, name))


def changed(kind: str, name: str, change: Callable[[dict[str, Json]], object]) -> Records:
    """Everything as wanted, but for one object that somebody changed."""
    body = live(child_of(kind, name).manifest)
    change(body)
    return {**observed(ALL), (kind, name): seen.observe(kind, body)}


def with_facts(records: Records, key: Key, **values: Json) -> Records:
    record = records[key]
    return {**records, key: dataclasses.replace(record, facts={**record.facts, **values})}


def test_a_settled_sandbox_gets_no_write() -> None:
    found = plan.plan(ALL, observed(ALL), CONTEXT)
    assert words(found) == []
    assert found.empty
    assert found.pending == frozenset()


def test_a_new_sandbox_is_made_closed_first() -> None:
    found = plan.plan(ALL, {}, CONTEXT)
    assert words(found) == [
        "create NetworkPolicy demo-chat",
        "create NetworkPolicy demo-default-deny",
        "create NetworkPolicy demo-engine",
        "create NetworkPolicy demo-fetch",
        "create NetworkPolicy demo-gateway",
        "create Secret demo-api-keys",
        "create Secret demo-chat",
        "create Secret demo-chat-admin",
        "create Secret demo-engine-key",
        "create Secret demo-gateway",
        "create PersistentVolumeClaim demo-chat",
        "create PersistentVolumeClaim demo-model",
        "create Service demo-chat",
        "create Service demo-engine",
        "create Service demo-internal",
        "create Deployment demo-chat",
        "create Deployment demo-engine",
        "create Deployment demo-gateway",
        *[_word(s) for s in found.steps if isinstance(s, plan.Create) and s.child.kind == "Job"],
        "create PodDisruptionBudget demo-gateway",
        "create Service demo",
    ]


@given(st.permutations(ALL))
def test_the_order_of_writing_does_not_depend_on_the_order_of_rendering(children: list[facts.Child]) -> None:
    found = plan.plan(children, {}, CONTEXT)
    assert found == plan.plan(ALL, {}, CONTEXT)
    assert [step.stage for step in found.steps] == sorted(step.stage for step in found.steps)


@given(st.sets(st.sampled_from([(c.kind, c.name) for c in ALL])))
def test_only_what_is_missing_is_made(missing: set[Key]) -> None:
    records = {key: record for key, record in observed(ALL).items() if key not in missing}
    found = plan.plan(ALL, records, CONTEXT)
    assert {(s.child.kind, s.child.name) for s in found.steps if isinstance(s, plan.Create)} == missing
    assert len(found.steps) == len(missing)
    assert found.pending == {child_of(*key).stage for key in missing}


DRIFT: dict[str, tuple[str, str, Callable[[dict[str, Json]], object], list[str]]] = {
    "a policy that was widened": (
        "NetworkPolicy",
        "demo-gateway",
        lambda b: b["spec"]["ingress"].append({}),
        ["apply NetworkPolicy demo-gateway"],
    ),
    "a firewall id that was changed": (
        "Service",
        "demo",
        lambda b: b["metadata"]["annotations"].clear(),
        ["apply Service demo"],
    ),
    "an API key that a person replaced: theirs": (
        "Secret",
        "demo-api-keys",
        lambda b: b["data"].update(default="bXkta2V5"),
        [],
    ),
    "a generated Secret that was emptied: not filled behind anybody's back": (
        "Secret",
        "demo-engine-key",
        lambda b: b.pop("data"),
        [],
    ),
    "a label of a generated Secret": (
        "Secret",
        "demo-api-keys",
        lambda b: b["metadata"]["labels"].update({"app.kubernetes.io/component": "x"}),
        ["apply metadata of Secret demo-api-keys"],
    ),
    "the configuration of the gateway": (
        "Secret",
        "demo-gateway",
        lambda b: b["data"].popitem(),
        ["apply Secret demo-gateway"],
    ),
    "a volume that is to outlive the sandbox, still owned by it": (
        "PersistentVolumeClaim",
        "demo-chat",
        lambda b: b["metadata"].update(
            ownerReferences=[{"kind": "AISandbox", "uid": samples.UID, "controller": True}]
        ),
        ["apply metadata of PersistentVolumeClaim demo-chat"],
    ),
    "a volume that is smaller than wanted": (
        "PersistentVolumeClaim",
        "demo-model",
        lambda b: b["spec"]["resources"]["requests"].update(storage="10Gi"),
        ["merge PersistentVolumeClaim demo-model"],
    ),
    "a volume that is larger than wanted": (
        "PersistentVolumeClaim",
        "demo-model",
        lambda b: b["spec"]["resources"]["requests"].update(storage="1Ti"),
        [],
    ),
    "a Job's content": ("Job", "", lambda b: b["spec"].update(backoffLimit=1), []),
}


@pytest.mark.parametrize("case", DRIFT)
def test_drift_costs_exactly_its_repair(case: str) -> None:
    kind, name, change, expected = DRIFT[case]
    name = name or next(child.name for child in ALL if child.kind == kind)
    assert words(plan.plan(ALL, changed(kind, name, change), CONTEXT)) == expected


def test_a_volume_grows_by_a_patch_of_its_size_alone() -> None:
    records = changed(
        "PersistentVolumeClaim",
        "demo-model",
        lambda b: b["spec"]["resources"]["requests"].update(storage="10Gi"),
    )
    (step,) = plan.plan(ALL, records, CONTEXT).steps
    size = child_of("PersistentVolumeClaim", "demo-model").manifest["spec"]["resources"]["requests"]["storage"]
    assert isinstance(step, plan.Merge)
    assert step.patch == {"spec": {"resources": {"requests": {"storage": size}}}}


def test_metadata_repairs_of_generated_secrets_carry_no_value() -> None:
    records = changed("Secret", "demo-api-keys", lambda b: b["metadata"]["labels"].clear())
    (step,) = plan.plan(ALL, records, CONTEXT).steps
    assert isinstance(step, plan.Apply)
    assert set(step.manifest) == {"apiVersion", "kind", "metadata"}


def test_what_a_repair_could_not_change_is_not_repaired_again() -> None:
    for kind, name in (("Service", "demo-internal"), ("Secret", "demo-api-keys")):
        records = changed(kind, name, lambda b: b["metadata"]["ownerReferences"].append({"uid": "x"}))
        record, child = records[kind, name], child_of(kind, name)
        assert len(plan.plan(ALL, records, CONTEXT).steps) == 1
        digests = (
            (plan.canonical.metadata_digest(child.manifest), record.metadata_digest)
            if plan.is_identity(child)
            else (plan.canonical.digest(child.manifest), record.digest)
        )
        accepted = dataclasses.replace(CONTEXT, accepted={(kind, name): digests})
        assert words(plan.plan(ALL, records, accepted)) == []
        further = dataclasses.replace(record, digest=b"x", metadata_digest=b"x")
        assert len(plan.plan(ALL, {**records, (kind, name): further}, accepted).steps) == 1


# -- exposure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_exposed_before_the_firewall_is_proven(exists: bool) -> None:
    records = observed(ALL if exists else INSIDE)
    found = plan.plan(ALL, records, dataclasses.replace(CONTEXT, expose=False))
    assert words(found) == []


@pytest.mark.parametrize("expose", [True, False])
def test_the_external_service_stays_while_the_spec_wants_it_even_if_nothing_is_known_of_its_firewall(
    expose: bool,
) -> None:
    found = plan.plan(INSIDE, observed(ALL), dataclasses.replace(CONTEXT, expose=expose))
    assert words(found) == []


def test_the_external_service_goes_before_anything_else_when_the_spec_no_longer_wants_it() -> None:
    records = changed("NetworkPolicy", "demo-gateway", lambda b: b["spec"]["ingress"].append({}))
    found = plan.plan(INSIDE, records, dataclasses.replace(CONTEXT, expose=False, exposed=False))
    assert words(found) == ["delete Service demo", "apply NetworkPolicy demo-gateway"]
    assert found.pending == {Stage.EXPOSURE, Stage.POLICY}


def test_a_second_external_service_goes_although_the_first_is_wanted() -> None:
    body = live(child_of("Service", "demo").manifest)
    body["metadata"]["name"] = "copy"
    records = {**observed(ALL), ("Service", "copy"): seen.observe("Service", body)}
    assert words(plan.plan(ALL, records, CONTEXT)) == ["delete Service copy"]


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
    return [_word(s) + _patch(s) for s in found.steps if not isinstance(s, plan.Delete) and _is_engine(s)]


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
    "another model, nothing runs": ({"replicas": 0}, NOT_CACHED, OTHER_MODEL, ["apply Deployment demo-engine"]),
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
    assert [_word(step) for step in found.prune] == [
        "delete Deployment demo-chat",
        "delete Service demo-chat",
        "delete NetworkPolicy demo-chat",
    ]


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


@pytest.mark.parametrize(
    ("text", "value"), [("10Gi", 10 * 2**30), ("1500m", 1.5), ("2k", 2000), ("1.5Gi", 1.5 * 2**30), ("7", 7)]
)
def test_quantities(text: str, value: float) -> None:
    assert float(plan.quantity(text)) == value


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        plan.quantity("ten")
