"""What is kept of a watched object, and that nothing an API server sends can break the keeping."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.observed import seen
from unit.desired import samples
from unit.observed.live import live

Json = Any


def body(kind: str, name: str, **fields: Json) -> dict[str, Json]:
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "uid": "u1", "resourceVersion": "7"},
        **fields,
    }


def test_a_child_is_known_by_labels_and_by_the_uid_of_its_controller() -> None:
    manifest = samples.child(samples.rendered(), "Service", "demo-internal")
    record = seen.observe("Service", live(manifest, uid="u9", version=42))
    assert (record.kind, record.namespace, record.name) == ("Service", "team-a", "demo-internal")
    assert (record.uid, record.resource_version, record.sandbox) == ("u9", "42", "demo")
    assert (record.component, record.managed, record.owner_uid) == ("gateway", True, samples.UID)
    assert not record.deleting
    assert seen.observe("Service", live(manifest, deleting=True)).deleting


@pytest.mark.parametrize(
    ("owner", "uid"),
    [
        ({"kind": "AISandbox", "uid": "u", "controller": True}, "u"),
        ({"kind": "AISandbox", "uid": "u"}, ""),
        ({"kind": "ReplicaSet", "uid": "u", "controller": True}, ""),
    ],
    ids=["controlled by a sandbox", "merely owned", "controlled by something else"],
)
def test_only_the_controlling_sandbox_is_the_owner(owner: dict[str, Json], uid: str) -> None:
    assert seen.owner_uid({"ownerReferences": [owner]}) == uid


def test_a_record_holds_no_whole_object() -> None:
    for child in samples.rendered({"access": {"exposure": "NodeBalancer"}}, samples.EXPOSED):
        record = seen.observe(child.kind, live(child.manifest))
        assert not {"spec", "template", "metadata"} & set(record.facts), child.name


@pytest.mark.parametrize(
    ("conditions", "complete", "failed"),
    [
        (None, False, False),
        ([{"type": "Complete", "status": "True"}], True, False),
        ([{"type": "Complete", "status": "False"}], False, False),
        ([{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}], False, True),
    ],
)
def test_the_end_of_a_job(conditions: Json, complete: bool, failed: bool) -> None:
    facts = seen.observe("Job", body("Job", "j", status={"conditions": conditions})).facts
    assert (facts["complete"], facts["failed"]) == (complete, failed)
    assert bool(facts["failed_at"]) == failed


def test_facts_of_a_service() -> None:
    service = body("Service", "s", spec={"type": "LoadBalancer"})
    service["metadata"]["annotations"] = {
        names.ANNOTATION_FIREWALL_ID: "7",
        names.ANNOTATION_FIREWALL_ACL: "",
    }
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "h"}, {"ip": "192.0.2.1"}]}}
    facts = seen.observe("Service", service).facts
    assert (facts["type"], facts["address"], facts["hostname"]) == ("LoadBalancer", "192.0.2.1", "h")
    assert (facts["firewall_id"], facts["firewall_acl"]) == ("7", True)


@pytest.mark.parametrize("component", ["access", "chat", "certificate", "", "changed-by-hand"])
def test_secrets_are_read_whatever_became_of_their_label(component: str) -> None:
    """Otherwise a changed label would make the key look absent, and it would be made anew."""
    secret = body("Secret", "s", data={"key": base64.b64encode(b"value").decode()})
    secret["metadata"]["labels"] = {names.LABEL_COMPONENT: component}
    assert seen.observe("Secret", secret).facts["data"] == {"key": "value"}


def test_the_configuration_of_the_gateway_is_not_kept() -> None:
    manifest = samples.child(samples.rendered(), "Secret", "demo-gateway")
    assert seen.observe("Secret", live(manifest)).facts == {}


@pytest.mark.parametrize("value", [None, "", "%%%", "gICA", "ä", 7])
def test_a_value_that_is_no_text_is_empty(value: Json) -> None:
    assert seen.decode(value) == ""


def entry(manager: str, template: Json, subresource: str = "") -> dict[str, Json]:
    fields = {"f:spec": {"f:template": template}}
    return {"manager": manager, "fieldsV1": fields, **({"subresource": subresource} if subresource else {})}


IMAGE: Json = {"f:spec": {"f:containers": {'k:{"name":"engine"}': {"f:image": {}}}}}
ENV: Json = {"f:spec": {"f:containers": {'k:{"name":"engine"}': {".": {}, "f:env": {'k:{"name":"X"}': {}}}}}}
OURS = entry(names.FIELD_MANAGER, IMAGE)


@pytest.mark.parametrize(
    ("fields", "owner"),
    [
        ([OURS], ""),
        ([OURS, entry("kubectl-edit", ENV)], "kubectl-edit"),
        ([entry("kubectl-set", IMAGE)], "kubectl-set"),
        ([OURS, entry("kubectl-set", IMAGE)], ""),
        ([OURS, entry("kubectl-rollout", {"f:metadata": {"f:annotations": {}}})], ""),
        ([OURS, entry("kube-controller-manager", ENV, "status")], ""),
        ([], ""),
    ],
    ids=[
        "ours alone",
        "somebody added a variable",
        "somebody took the image over",
        "somebody set the image to what the operator has set since",
        "a restart that somebody asked for",
        "a controller's status",
        "no managed fields",
    ],
)
def test_who_else_owns_something_of_the_template(fields: list[Json], owner: str) -> None:
    assert seen.foreign_template_owner({"managedFields": fields}) == owner


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
SPECS = st.dictionaries(
    st.sampled_from(["type", "replicas", "ports", "resources", "template", "podSelector"]), SCALARS
)


@given(
    st.sampled_from([kind.kind for kind in kinds.CHILDREN]),
    SPECS,
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.text(max_size=8)), max_size=3),
    st.one_of(st.none(), st.just({}), st.just({"conditions": None, "loadBalancer": None})),
    st.one_of(st.none(), st.just({})),
)
def test_observing_is_total(kind: str, spec: Json, data: Json, status: Json, maps: Json) -> None:
    """The watch swallows exceptions of its handlers: an object that breaks one would stay unknown."""
    spec.pop("resources", None)
    thing = body(kind, "x", spec=spec, data=data, status=status)
    thing["metadata"].update(labels=maps, annotations=maps, ownerReferences=None, managedFields=None)
    assert seen.observe(kind, thing).name == "x"
