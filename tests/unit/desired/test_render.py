"""What holds for every rendering, whatever the spec (I1, I5, I6, names, labels, ownership)."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.desired import allowlist, common, engine, envoy_routes, facts, render
from unit.desired import samples

Spec = dict[str, Any]
SECRETS = (
    samples.MATERIAL.engine_key,
    samples.MATERIAL.chat_session_key,
    samples.MATERIAL.chat_admin_password,
    *samples.MATERIAL.api_keys.values(),
)


@hypothesis.given(samples.specs, samples.known)
def test_the_same_inputs_give_the_same_objects_in_the_order_of_writing(
    spec: Spec, known: facts.Facts
) -> None:
    first, again = samples.rendered(spec, known), samples.rendered(spec, known)
    assert json.dumps([c.manifest for c in first]) == json.dumps([c.manifest for c in again])
    assert [c.stage for c in first] == sorted(c.stage for c in first)
    assert len({(c.kind, c.name) for c in first}) == len(first)


@hypothesis.given(samples.specs, samples.known)
def test_every_child_is_ours_by_label_owner_and_name(spec: Spec, known: facts.Facts) -> None:
    sandbox = samples.sandbox(spec, name="a" * 40)
    for child in render.render(sandbox, known):
        meta = child.manifest["metadata"]
        assert child.kind in {kind.kind for kind in kinds.CHILDREN}
        assert child.manifest["apiVersion"] == kinds.BY_NAME[child.kind].api_version
        assert meta["namespace"] == "team-a"
        assert len(child.name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", child.name)
        assert meta["labels"]["app.kubernetes.io/name"] == "ai-sandbox"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "ai-sandbox-operator"
        assert meta["labels"]["sandbox.linode.com/name"] == "a" * 40
        assert "app.kubernetes.io/component" in meta["labels"]
        assert "app.kubernetes.io/instance" not in set(samples.strings(child.manifest))
        if child.kind == "PersistentVolumeClaim" and "ownerReferences" not in meta:
            continue
        assert meta["ownerReferences"] == [
            {
                "apiVersion": "sandbox.linode.com/v1alpha1",
                "kind": "AISandbox",
                "name": "a" * 40,
                "uid": samples.UID,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


@hypothesis.given(samples.specs, samples.known)
def test_nothing_is_written_that_the_server_would_drop(spec: Spec, known: facts.Facts) -> None:
    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            assert value or path.endswith(("podSelector", "namespaceSelector", "emptyDir")), path
            for key, item in value.items():
                check(item, f"{path}.{key}")
        elif isinstance(value, list):
            assert value, path
            for item in value:
                check(item, path)
        else:
            assert value is not None, path
            assert value != "", path

    for child in samples.rendered(spec, known):
        check(child.manifest, child.kind)


@hypothesis.given(samples.specs, samples.known)
def test_i1_no_load_balancer_without_exposure_and_firewall(spec: Spec, known: facts.Facts) -> None:
    children = samples.rendered(spec, known)
    balancers = [c for c in children if c.kind == "Service" and c.manifest["spec"]["type"] != "ClusterIP"]
    wanted = spec.get("access", {}).get("exposure") == "NodeBalancer" and known.firewall_id is not None
    assert len(balancers) == int(wanted)
    for child in balancers:
        assert child.stage is facts.Stage.EXPOSURE
        annotations = child.manifest["metadata"]["annotations"]
        prefix = "service.beta.kubernetes.io/linode-loadbalancer-"
        assert annotations[prefix + "firewall-id"] == str(known.firewall_id)
        assert annotations[prefix + "default-proxy-protocol"] == "v2"
        assert prefix + "firewall-acl" not in annotations
        assert all(isinstance(value, str) for value in annotations.values())


@hypothesis.given(samples.specs, samples.known)
def test_i1_every_pod_is_under_a_policy_of_an_earlier_stage(spec: Spec, known: facts.Facts) -> None:
    children = samples.rendered(spec, known)
    deny = [c for c in children if c.kind == "NetworkPolicy" and c.name == "demo-default-deny"]
    assert len(deny) == 1
    assert set(deny[0].manifest["spec"]) == {"podSelector", "policyTypes"}
    selected = deny[0].manifest["spec"]["podSelector"]["matchLabels"].items()
    for child in children:
        if child.kind in {"Deployment", "Job"}:
            assert selected <= child.manifest["spec"]["template"]["metadata"]["labels"].items()
            assert deny[0].stage < child.stage


def addresses(children: tuple[facts.Child, ...]) -> list[allowlist.Network]:
    """Every network that gateway or policies admit, apart from the cluster's own and the internet."""
    found: set[str] = set()
    for child in children:
        if child.name == "demo-gateway" and child.kind == "Secret":
            for name, text in samples.content(child.manifest).items():
                if name.startswith("rds-"):
                    found |= {
                        f"{item['address_prefix']}/{item['prefix_len']}" for item in _ranges(json.loads(text))
                    }
        if child.name == "demo-gateway" and child.kind == "NetworkPolicy":
            for rule in child.manifest["spec"].get("ingress", []):
                found |= {peer["ipBlock"]["cidr"] for peer in rule["from"] if "ipBlock" in peer}
    return [ipaddress.ip_network(cidr) for cidr in sorted(found)]


def _ranges(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for item in value for found in _ranges(item)]
    if isinstance(value, dict):
        own = [value["remote_ip"]] if "remote_ip" in value else []
        return own + [found for item in value.values() for found in _ranges(item)]
    return []


def covers(networks: list[allowlist.Network], one: allowlist.Network) -> bool:
    """Whether the union of `networks` holds all of `one`."""
    merged = allowlist.collapse(str(network) for network in networks)
    return any(n.version == one.version and one.subnet_of(n) for n in merged)  # type: ignore[arg-type]


@hypothesis.given(samples.specs, samples.known)
def test_i1_an_empty_allowlist_admits_nobody(spec: Spec, known: facts.Facts) -> None:
    access = {**spec.get("access", {}), "allowlist": [], "inCluster": []}
    children = samples.rendered({**spec, "access": access}, known)
    for name, text in samples.content(samples.child(children, "Secret", "demo-gateway")).items():
        assert "policies" not in text
        if name.startswith("rds-"):
            assert "remote_ip" not in text
            assert '"rules":{"action":"ALLOW"}' in text or "virtual_hosts" not in text
    admitted = [
        peer
        for rule in samples.child(children, "NetworkPolicy", "demo-gateway")["spec"].get("ingress", [])
        for peer in rule["from"]
    ]
    # What is left: the NodeBalancers themselves, and the operator at the status port.
    balancers = set(known.nodebalancer_ranges) if access.get("exposure") == "NodeBalancer" else set()
    assert {peer["ipBlock"]["cidr"] for peer in admitted if "ipBlock" in peer} == balancers
    assert sum("ipBlock" not in peer for peer in admitted) == bool(known.operator_namespace)


@hypothesis.given(samples.specs, samples.allowlists, st.data())
def test_i1_removing_an_entry_never_admits_an_address(
    spec: Spec, entries: list[Spec], data: st.DataObject
) -> None:
    hypothesis.assume(entries)
    kept = list(entries)
    kept.pop(data.draw(st.integers(0, len(entries) - 1)))
    access = {**spec.get("access", {}), "inCluster": []}
    known = dataclasses.replace(samples.EXPOSED, nodebalancer_ranges=())
    before = addresses(samples.rendered({**spec, "access": {**access, "allowlist": entries}}, known))
    after = addresses(samples.rendered({**spec, "access": {**access, "allowlist": kept}}, known))
    assert all(covers(before, network) for network in after)


@hypothesis.given(samples.allowlists)
def test_exactly_the_allowlist_is_admitted(entries: list[Spec]) -> None:
    known = dataclasses.replace(samples.EXPOSED, nodebalancer_ranges=())
    found = addresses(samples.rendered({"access": {"allowlist": entries}}, known))
    wanted = [network for entry in entries if (network := allowlist.parse(entry["cidr"]))]
    assert all(covers(wanted, network) for network in found)
    assert all(covers(found, network) for network in wanted)


@hypothesis.given(samples.models, samples.engines, samples.gpus, samples.specs, samples.specs, st.data())
def test_i5_the_engine_template_depends_on_engine_inputs_and_release_alone(
    model: Spec, engine_spec: Spec, gpu: Spec, one: Spec, other: Spec, data: st.DataObject
) -> None:
    own = {"model": model, "engine": engine_spec, "gpu": gpu}
    other_model = {**model, "tokenSecretRef": {"name": "another", "key": "token"}}
    other_keys = facts.Material(engine_key="x" * 32, chat_session_key="y" * 32, api_keys={"z": "z" * 32})
    one_known = data.draw(samples.known)
    other_known = dataclasses.replace(data.draw(samples.known), material=other_keys)
    first = engine.pod_template(samples.sandbox({**one, **own}), one_known)
    second = engine.pod_template(samples.sandbox({**other, **own, "model": other_model}), other_known)
    assert first == second


@hypothesis.given(samples.specs, samples.specs)
def test_i5_equal_engine_inputs_mean_equal_templates(one: Spec, other: Spec) -> None:
    first, second = samples.sandbox(one), samples.sandbox(other)
    same = engine.engine_inputs(first, samples.COMMIT) == engine.engine_inputs(second, samples.COMMIT)
    templates = engine.pod_template(first, samples.FACTS), engine.pod_template(second, samples.FACTS)
    assert not same or templates[0] == templates[1]


def test_engine_inputs_ignore_the_release_and_spelt_out_defaults() -> None:
    plain = samples.sandbox()
    spelt = samples.sandbox(
        v1alpha1.AISandboxSpec().model_dump(mode="json", by_alias=True, exclude_none=True)
    )
    assert engine.engine_inputs(plain, samples.COMMIT) == engine.engine_inputs(spelt, samples.COMMIT)
    # No default is part of it: a field that a later release adds must not look like a change.
    assert engine.engine_inputs(plain, samples.COMMIT) == common.fingerprint(
        {"model": {}, "commit": samples.COMMIT, "engine": {}, "gpu": {}}
    )
    newer = dataclasses.replace(samples.FACTS, release=facts.Release(engine_image="vllm/vllm-openai:v0.34.0"))
    for known in (samples.FACTS, newer):
        deployment = samples.child(samples.rendered({}, known), "Deployment", "demo-engine")
        annotation = deployment["metadata"]["annotations"]["sandbox.linode.com/engine-inputs"]
        assert annotation == engine.engine_inputs(plain, samples.COMMIT)
        assert "annotations" not in deployment["spec"]["template"]["metadata"]


@hypothesis.given(samples.specs, samples.known)
def test_i6_secret_values_stand_in_secrets_only(spec: Spec, known: facts.Facts) -> None:
    for child in samples.rendered(spec, known):
        visible = {k: v for k, v in child.manifest.items() if not (child.kind == "Secret" and k == "data")}
        text = "\n".join(samples.strings(visible))
        assert not any(secret in text for secret in SECRETS)


def test_i6_facts_have_no_secret_in_their_representation() -> None:
    assert not any(secret in repr(samples.FACTS) for secret in SECRETS)


@hypothesis.given(samples.specs)
def test_api_keys_and_allowlist_restart_no_pod(spec: Spec) -> None:
    access = spec.get("access", {})
    changed = {
        **access,
        "allowlist": [{"cidr": "198.51.100.7/32"}],
        "apiKeys": [{"name": "carol"}],
        "inCluster": [{}],
    }
    keys = dataclasses.replace(samples.MATERIAL, api_keys={"carol": "c" * 40})
    before = samples.rendered(spec, samples.EXPOSED)
    after = samples.rendered({**spec, "access": changed}, dataclasses.replace(samples.EXPOSED, material=keys))
    for child in before:
        if child.kind in {"Deployment", "Job"}:
            assert child.manifest == samples.child(after, child.kind, child.name)


@hypothesis.given(samples.specs)
def test_exposure_restarts_no_gateway(spec: Spec) -> None:
    access = {key: value for key, value in spec.get("access", {}).items() if key != "exposure"}
    templates = [
        samples.child(
            samples.rendered({**spec, "access": {**access, "exposure": exposure}}),
            "Deployment",
            "demo-gateway",
        )
        for exposure in ("ClusterIP", "NodeBalancer")
    ]
    assert templates[0] == templates[1]


@hypothesis.given(samples.specs, samples.known)
def test_the_access_revision_is_served_and_follows_who_is_admitted(spec: Spec, known: facts.Facts) -> None:
    sandbox = samples.sandbox(spec)
    revision = allowlist.access_revision(sandbox)
    content = samples.content(samples.child(render.render(sandbox, known), "Secret", "demo-gateway"))
    versions = {json.loads(text)["version_info"] for name, text in content.items() if name.startswith("rds-")}
    assert versions == {envoy_routes.configurations(sandbox, known)[0]}
    assert all(version.startswith(f"{revision}-") for version in versions)
    access = spec.get("access", {})
    more = samples.sandbox({**spec, "access": {**access, "allowlist": [{"cidr": "0.0.0.0/0"}]}})
    same = allowlist.networks(sandbox.spec.access, "API") == allowlist.networks(more.spec.access, "API")
    assert same or allowlist.access_revision(more) != revision


@hypothesis.given(samples.specs, samples.known)
def test_envoy_gets_no_empty_list_of_principals(spec: Spec, known: facts.Facts) -> None:
    """Envoy refuses an empty list, and would go on serving what it served before.

    Without resources it even says that it serves the new revision.
    """
    files = samples.content(samples.child(samples.rendered(spec, known), "Secret", "demo-gateway"))
    for name, text in files.items():
        assert "[]" not in text, name
        assert not name.startswith("rds-external") or "policies" not in text or "direct_remote_ip" in text


@pytest.mark.parametrize(
    "spec",
    [
        {"access": {"exposure": "NodeBalancer"}},
        {"access": {"allowlist": [{"cidr": "203.0.113.4/32"}]}},
        {"access": {"inCluster": [{}]}},
        {"access": {"inCluster": [{"podSelector": {}}]}},
        {"access": {"apiKeys": [{"name": "alice"}]}},
        {"chat": {"enabled": False}},
    ],
)
def test_what_makes_a_new_access_revision(spec: Spec) -> None:
    assert allowlist.access_revision(samples.sandbox(spec)) != allowlist.access_revision(samples.sandbox())


def test_a_description_is_no_new_access_revision() -> None:
    def revision(*entries: Spec) -> str:
        return allowlist.access_revision(samples.sandbox({"access": {"allowlist": list(entries)}}))

    plain = revision({"cidr": "203.0.113.0/25"}, {"cidr": "203.0.113.128/25"})
    assert plain == revision({"cidr": "203.0.113.0/24", "description": "office"})
    assert plain != revision({"cidr": "203.0.113.0/24", "to": ["API"]})


def test_a_rotated_key_is_a_new_served_revision_of_the_same_access_revision() -> None:
    sandbox = samples.sandbox()
    rotated = dataclasses.replace(samples.MATERIAL, api_keys={"default": "r" * 40})
    before = envoy_routes.configurations(sandbox, samples.FACTS)[0]
    after = envoy_routes.configurations(sandbox, dataclasses.replace(samples.FACTS, material=rotated))[0]
    assert before != after
    assert before.partition("-")[0] == after.partition("-")[0]


def test_the_largest_sandbox_fits_a_secret() -> None:
    names = [f"key-{number}" for number in range(64)]
    keys = dataclasses.replace(samples.MATERIAL, api_keys=dict.fromkeys(names, "k" * 64))
    spec = {
        "access": {
            "exposure": "NodeBalancer",
            "allowlist": [{"cidr": f"2001:db8:1234:5678:9abc:def0:{n:x}:1/128"} for n in range(1000)],
            "apiKeys": [{"name": name} for name in names],
        }
    }
    children = samples.rendered(spec, dataclasses.replace(samples.EXPOSED, material=keys))
    content = samples.content(samples.child(children, "Secret", "demo-gateway"))
    assert sum(map(len, content.values())) < 1024 * 1024
