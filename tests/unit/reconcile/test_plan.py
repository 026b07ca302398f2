"""From what is wanted and what stands to an exact list of writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_sandbox_operator.desired import facts, quantity
from ai_sandbox_operator.observed import canonical, seen
from ai_sandbox_operator.reconcile import plan
from unit.desired import samples
from unit.observed.live import live, observed
from unit.reconcile.things import (
    ALL,
    CONTEXT,
    INSIDE,
    Json,
    Key,
    Stage,
    changed,
    child_of,
    word,
    words,
)


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
        *[word(s) for s in found.steps if isinstance(s, plan.Create) and s.child.kind == "Job"],
        "create PodDisruptionBudget demo-gateway",
        "create Service demo",
    ]


@given(st.permutations(ALL))
@settings(max_examples=40)
def test_the_order_of_writing_does_not_depend_on_the_order_of_rendering(children: list[facts.Child]) -> None:
    found = plan.plan(children, {}, CONTEXT)
    assert found == plan.plan(ALL, {}, CONTEXT)
    assert [step.stage for step in found.steps] == sorted(step.stage for step in found.steps)


@given(st.sets(st.sampled_from([(c.kind, c.name) for c in ALL])))
@settings(max_examples=40)
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
    size = child_of("PersistentVolumeClaim", "demo-model").manifest["spec"]["resources"]["requests"][
        "storage"
    ]
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
            (canonical.metadata_digest(child.manifest), record.metadata_digest)
            if plan.is_identity(child)
            else (canonical.digest(child.manifest), record.digest)
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


@pytest.mark.parametrize(
    ("text", "value"), [("10Gi", 10 * 2**30), ("1500m", 1.5), ("2k", 2000), ("1.5Gi", 1.5 * 2**30), ("7", 7)]
)
def test_quantities(text: str, value: float) -> None:
    assert float(quantity.parse(text)) == value


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.parse("ten")
