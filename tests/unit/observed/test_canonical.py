"""A rendered object equals its live counterpart, and nothing else does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_sandbox_operator.api import names
from ai_sandbox_operator.observed import canonical
from unit.desired import samples
from unit.observed.live import live, patched

Json = Any
Change = Callable[[dict[str, Json]], object]
PREFIX = names.LINODE_ANNOTATION_PREFIX
POLICIES: dict[str, Json] = {"access": {"inCluster": [{"podSelector": {"matchLabels": {"protocol": "TCP"}}}]}}
EVERYTHING = (
    *samples.rendered({"access": {"exposure": "NodeBalancer"}}, samples.EXPOSED),
    *samples.rendered(POLICIES),
)
IDENTITY_ONLY = ("Job", "PersistentVolumeClaim")


def manifest(kind: str, name: str) -> dict[str, Json]:
    found: dict[str, Json] = next(
        c.manifest for c in reversed(EVERYTHING) if (c.kind, c.name) == (kind, name)
    )
    return found


@pytest.mark.parametrize("child", EVERYTHING, ids=lambda c: f"{c.kind}-{c.name}")
def test_what_the_api_server_adds_is_no_difference(child: Any) -> None:
    stored = live(child.manifest)
    assert canonical.canonical(stored) == canonical.canonical(child.manifest)
    assert canonical.digest(stored) == canonical.digest(child.manifest)
    assert canonical.metadata_digest(stored) == canonical.metadata_digest(child.manifest)
    assert canonical.excess(canonical.canonical(child.manifest), canonical.canonical(stored)) == []


def port(body: dict[str, Json]) -> None:
    body["spec"]["ports"].append({"name": "ssh", "port": 22, "targetPort": 22, "protocol": "TCP"})


DRIFT: dict[str, tuple[str, str, Change]] = {
    "a foreign port of the external Service": ("Service", "demo", port),
    "an annotation that would make the cloud controller manager replace the firewall": (
        "Service",
        "demo",
        lambda b: b["metadata"]["annotations"].update({PREFIX + "firewall-acl": "{}"}),
    ),
    "a firewall id that was changed by hand": (
        "Service",
        "demo",
        lambda b: b["metadata"]["annotations"].update({PREFIX + "firewall-id": "1"}),
    ),
    "the internal Service made public": (
        "Service",
        "demo-internal",
        lambda b: b["spec"].update(type="LoadBalancer"),
    ),
    "traffic policy Cluster, which hides the client's address": (
        "Service",
        "demo",
        lambda b: b["spec"].update(externalTrafficPolicy="Cluster"),
    ),
    "a further selector key of a Service": (
        "Service",
        "demo",
        lambda b: b["spec"]["selector"].update(type="ClusterIP"),
    ),
    "a policy that admits one more peer": (
        "NetworkPolicy",
        "demo-gateway",
        lambda b: b["spec"]["ingress"].append({}),
    ),
    "a peer that lost its label, though the label's name is one of a field with a default": (
        "NetworkPolicy",
        "demo-gateway",
        lambda b: b["spec"]["ingress"][0]["from"].__setitem__(0, {"podSelector": {}}),
    ),
    "one policy type less": ("NetworkPolicy", "demo-default-deny", lambda b: b["spec"]["policyTypes"].pop()),
    "a value added to a Secret": ("Secret", "demo-gateway", lambda b: b["data"].update(extra="eA==")),
    "an environment variable added to the chat": (
        "Deployment",
        "demo-chat",
        lambda b: b["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "X", "value": "1"}),
    ),
    "a host network of the gateway": (
        "Deployment",
        "demo-gateway",
        lambda b: b["spec"]["template"]["spec"].update(hostNetwork=True),
    ),
    "a node selector of the gateway": (
        "Deployment",
        "demo-gateway",
        lambda b: b["spec"]["template"]["spec"].update(nodeSelector={"type": "ClusterIP"}),
    ),
    "one replica less of the gateway": ("Deployment", "demo-gateway", lambda b: b["spec"].update(replicas=1)),
}


@pytest.mark.parametrize("case", DRIFT)
def test_drift_is_seen_and_apply_and_excess_repair_it(case: str) -> None:
    kind, name, change = DRIFT[case]
    wanted = manifest(kind, name)
    stored = live(wanted)
    change(stored)
    assert canonical.digest(stored) != canonical.digest(wanted), case
    repaired = _repair(wanted, stored)
    assert canonical.digest(repaired) == canonical.digest(wanted), case


def _repair(wanted: dict[str, Json], stored: dict[str, Json]) -> dict[str, Json]:
    """What server-side apply and the patch make of a live object."""
    applied = _applied(wanted, stored)
    operations = canonical.excess(canonical.canonical(wanted), canonical.canonical(applied))
    repaired: dict[str, Json] = patched(applied, operations)
    return repaired


def _applied(wanted: Json, stored: Json) -> Json:
    """Server-side apply: fields of maps are set, others stay; lists merge by name, else are replaced."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return stored | {k: _applied(v, stored[k]) if k in stored else v for k, v in wanted.items()}
    if isinstance(wanted, list) and all(isinstance(i, dict) and "name" in i for i in [*wanted, *stored]):
        held = {item["name"]: item for item in stored}
        ours = [_applied(item, held.get(item["name"], {})) for item in wanted]
        return ours + [item for name, item in held.items() if name not in {i["name"] for i in wanted}]
    return copy.deepcopy(wanted)


TOLERATED: dict[str, tuple[str, str, Change]] = {
    "labels and annotations of others": (
        "Service",
        "demo",
        lambda b: (
            b["metadata"]["labels"].update(team="x"),
            b["metadata"]["annotations"].update({"argocd.argoproj.io/tracking-id": "x"}),
        ),
    ),
    "a restart that somebody asked for": (
        "Deployment",
        "demo-gateway",
        lambda b: b["spec"]["template"]["metadata"]["annotations"].update(
            {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
        ),
    ),
    "a status": ("Service", "demo", lambda b: b.update(status={"loadBalancer": {"ingress": [{"ip": "x"}]}})),
    "an unset list": ("Service", "demo", lambda b: b["spec"].update(externalIPs=None)),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_what_is_not_ours_is_left_alone(case: str) -> None:
    kind, name, change = TOLERATED[case]
    wanted = manifest(kind, name)
    stored = live(wanted)
    change(stored)
    assert canonical.digest(stored) == canonical.digest(wanted)


@pytest.mark.parametrize("kind", IDENTITY_ONLY)
def test_content_of_jobs_and_claims_is_not_compared(kind: str) -> None:
    wanted = next(c.manifest for c in EVERYTHING if c.kind == kind)
    stored = live(wanted)
    stored["spec"]["anything"] = "else"
    assert canonical.digest(stored) == canonical.digest(wanted)


def test_an_own_annotation_is_removed_alone_and_without_its_neighbours() -> None:
    wanted = manifest("Service", "demo-internal")
    assert "annotations" not in wanted["metadata"]
    stored = live(wanted)
    stored["metadata"]["annotations"] = {"other.io/x": "keep", PREFIX + "throttle": "0", "a~b/c": "keep"}
    repaired = _repair(wanted, stored)
    assert repaired["metadata"]["annotations"] == {"other.io/x": "keep", "a~b/c": "keep"}


def test_owners_are_compared_and_never_patched_away() -> None:
    wanted = manifest("Service", "demo")
    stored = live(wanted)
    stored["metadata"]["ownerReferences"].append({"uid": "other", "kind": "X"})
    assert canonical.metadata_digest(stored) != canonical.metadata_digest(wanted)
    assert canonical.excess(canonical.canonical(wanted), canonical.canonical(stored)) == []


@pytest.mark.parametrize("field", ["podSelector", "namespaceSelector", "emptyDir"])
def test_an_empty_map_that_means_everything_stays(field: str) -> None:
    assert canonical.prune({"a": {field: {}}}) == {"a": {field: {}}}
    assert canonical.prune({"a": {"resources": {}}}) == {}


def test_an_empty_list_stays_because_absence_may_mean_everything() -> None:
    assert canonical.prune({"ingress": []}) == {"ingress": []}
    assert canonical.prune({"ingress": [{}]}) == {"ingress": [{}]}


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["TCP", "x", "ClusterIP"]))
KEYS = st.sampled_from(["a", "b/c", "d~e", "protocol", "ports", "nodePort", "labels", "emptyDir", "readOnly"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
SPECS = st.dictionaries(KEYS, TREES, max_size=4)


@given(SPECS)
def test_pruning_twice_is_pruning_once(spec: dict[str, Json]) -> None:
    once = canonical.prune(spec)
    assert canonical.prune(once) == once


@given(SPECS, SPECS)
@settings(max_examples=150)
def test_excess_removes_exactly_what_is_too_much(wanted: dict[str, Json], more: dict[str, Json]) -> None:
    """Where the live object has all that is wanted, the patch leads to equality."""
    wanted, more = canonical.prune(wanted), canonical.prune(more)
    stored = _under(wanted, more)
    assert patched(stored, canonical.excess(wanted, stored)) == wanted


def _under(wanted: Json, more: Json) -> Json:
    """`more`, with everything of `wanted` in place."""
    if isinstance(wanted, dict) and isinstance(more, dict):
        return {**more, **{k: _under(v, more.get(k)) for k, v in wanted.items()}}
    return wanted


@given(SPECS)
def test_an_object_is_never_in_excess_of_itself(spec: dict[str, Json]) -> None:
    form = canonical.prune(spec)
    assert canonical.excess(form, form) == []
