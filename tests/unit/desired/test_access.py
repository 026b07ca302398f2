"""Which children a sandbox has, its volumes and its Secrets, as tables."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ai_sandbox_operator.desired import access, envoy_routes, facts
from unit.desired import samples

Spec = dict[str, Any]


def test_the_children_of_a_default_sandbox() -> None:
    found = samples.objects({})
    job = found.pop("Job")
    assert len(job) == 1
    assert job[0].startswith("demo-fetch-")
    assert found == {
        "NetworkPolicy": ["demo-default-deny", "demo-fetch", "demo-engine", "demo-gateway", "demo-chat"],
        "Secret": ["demo-engine-key", "demo-api-keys", "demo-chat", "demo-chat-admin", "demo-gateway"],
        "PersistentVolumeClaim": ["demo-model", "demo-chat"],
        "Service": ["demo-engine", "demo-chat", "demo-internal"],
        "Deployment": ["demo-engine", "demo-chat", "demo-gateway"],
        "PodDisruptionBudget": ["demo-gateway"],
    }


def test_turning_the_chat_off_keeps_its_secrets() -> None:
    on, off = samples.objects({}), samples.objects({"chat": {"enabled": False}})
    assert on["Secret"] == off["Secret"]
    assert off["PersistentVolumeClaim"] == ["demo-model"]
    assert off["Deployment"] == ["demo-engine", "demo-gateway"]


@pytest.mark.parametrize(
    ("retain", "owned"),
    [
        ({}, {"demo-model": True, "demo-chat": False}),
        ({"modelCache": True, "chat": False}, {"demo-model": False, "demo-chat": True}),
    ],
)
def test_a_retained_volume_has_no_owner(retain: Spec, owned: dict[str, bool]) -> None:
    children = samples.rendered({"storage": {"retain": retain}})
    assert {
        child.name: "ownerReferences" in child.manifest["metadata"]
        for child in children
        if child.kind == "PersistentVolumeClaim"
    } == owned


@pytest.mark.parametrize(("class_name", "expected"), [("", "linode-block-storage"), ("fast", "fast")])
def test_storage_class_is_explicit(class_name: str, expected: str) -> None:
    children = samples.rendered({"storage": {"className": class_name}})
    claims = [child.manifest["spec"] for child in children if child.kind == "PersistentVolumeClaim"]
    assert [claim["storageClassName"] for claim in claims] == [expected, expected]
    assert all(claim["accessModes"] == ["ReadWriteOnce"] for claim in claims)


def test_generated_secrets_are_written_once_and_derived_ones_always() -> None:
    assert {c.name: c.create_only for c in samples.rendered() if c.kind == "Secret"} == {
        "demo-engine-key": True,
        "demo-api-keys": True,
        "demo-chat-admin": True,
        "demo-chat": False,
        "demo-gateway": False,
    }
    assert not any(c.create_only for c in samples.rendered() if c.kind != "Secret")


def test_content_of_secrets() -> None:
    children = samples.rendered()
    material = samples.MATERIAL
    assert samples.content(samples.child(children, "Secret", "demo-engine-key")) == {
        "key": material.engine_key
    }
    assert samples.content(samples.child(children, "Secret", "demo-api-keys")) == material.api_keys
    assert samples.content(samples.child(children, "Secret", "demo-chat")) == {
        "WEBUI_SECRET_KEY": material.chat_session_key,
        "OPENAI_API_KEYS": material.engine_key,
    }
    assert samples.content(samples.child(children, "Secret", "demo-chat-admin")) == {
        "email": "admin@sandbox.local",
        "password": material.chat_admin_password,
    }


def test_an_own_admin_secret_replaces_the_generated_one() -> None:
    spec: Spec = {"chat": {"admin": {"secretName": "mine"}}}
    assert "demo-chat-admin" not in samples.objects(spec)["Secret"]
    entry = {"name": "mine", "key": "password"}
    environment = samples.container(samples.child(samples.rendered(spec), "Deployment", "demo-chat"))["env"]
    assert {"name": "WEBUI_ADMIN_PASSWORD", "valueFrom": {"secretKeyRef": entry}} in environment


@pytest.mark.parametrize(
    ("tls", "secret"),
    [
        ({}, "demo-tls"),
        ({"mode": "CertManager", "issuerRef": {"name": "x"}}, "demo-cert-manager"),
        ({"mode": "Secret", "secretName": "mine"}, "mine"),
        ({"mode": "Disabled"}, None),
    ],
)
def test_certificate_secret(tls: Spec, secret: str | None) -> None:
    spec = {"access": {"tls": tls}}
    children = samples.rendered(spec)
    assert access.tls_name(samples.sandbox(spec)) == secret
    assert all(child.name != secret for child in children)
    pod = samples.child(children, "Deployment", "demo-gateway")["spec"]["template"]["spec"]
    mounted = [volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "tls"]
    assert mounted == ([secret] if secret else [])
    files = samples.content(samples.child(children, "Secret", "demo-gateway"))
    assert ("sds.json" in files) == (secret is not None)
    assert ("transport_socket" in files["lds.json"]) == (secret is not None)


@pytest.mark.parametrize(
    ("value", "usable"),
    [
        ("k" * 16, True),
        ("k" * 15, False),
        ("", False),
        (".*" * 10, False),
        ("a b" * 8, False),
        ("sk-proj_A.b~c+d/e=" * 2, True),
        ("%REQ(x)%" * 4, False),
        ("ä" * 20, False),
    ],
)
def test_keys_that_admit_nobody_are_left_out(value: str, usable: bool) -> None:
    assert envoy_routes.usable_key(value) is usable
    known = dataclasses.replace(
        samples.FACTS, material=dataclasses.replace(samples.MATERIAL, api_keys={"default": value})
    )
    assert route_names({}, known) == ["method", *["key:default"] * 2 * usable, "no-key", "other"]


def route_names(spec: Spec, known: facts.Facts = samples.FACTS) -> list[str]:
    files = samples.content(samples.child(samples.rendered(spec, known), "Secret", "demo-gateway"))
    routes = json.loads(files["rds-internal-api.json"])["resources"][0]["virtual_hosts"][0]["routes"]
    return [route["name"] for route in routes]


def test_only_keys_named_in_the_spec_are_served() -> None:
    assert route_names({"access": {"apiKeys": [{"name": "alice"}, {"name": "unmade"}]}}) == [
        "method",
        "key:alice",
        "key:alice",
        "no-key",
        "other",
    ]
