"""The CRD on a real API server: what it refuses, what it accepts, what it fills in and what it shows.

Only etcd and the API server run: admission needs nothing else.
"""

from __future__ import annotations

import json
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import crd, generate, names, schema
from controlplane import admission_tables as tables
from lab.cluster.controlplane import ControlPlane

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
_COLLECTION = f"/apis/{names.API_VERSION}/namespaces/default/{names.PLURAL}"


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlane]:
    """An API server that has the CRD."""
    with ControlPlane(controllers=False, scheduler=False) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / generate.CRD_PATH))
        plane.kubectl("wait", "--for=condition=Established", f"crd/{names.PLURAL}.{names.GROUP}")
        yield plane


def _request(
    server: ControlPlane, method: str, path: str, body: Any = None, kind: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        server.server + path, data=data, method=method, headers={"Content-Type": kind}
    )
    try:
        with urllib.request.urlopen(request, context=server.tls_context()) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _dry_run(server: ControlPlane, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return _request(server, "POST", f"{_COLLECTION}?dryRun=All&fieldValidation=Strict", manifest)


def _causes(answer: dict[str, Any]) -> dict[str, list[str]]:
    """Messages of a refusal by field."""
    result: dict[str, list[str]] = {}
    for cause in answer.get("details", {}).get("causes", ()):
        result.setdefault(cause.get("field", ""), []).append(cause["message"])
    return result


@pytest.mark.parametrize("bad", tables.BAD, ids=lambda bad: bad.id)
def test_bad_manifest_is_refused_with_field_and_remedy(server: ControlPlane, bad: tables.Bad) -> None:
    code, answer = _dry_run(server, tables.manifest(bad.spec, bad.name))

    assert code == 422, answer
    messages = _causes(answer).get(bad.field, [])
    assert any(bad.message in message for message in messages), json.dumps(_causes(answer), indent=1)


@pytest.mark.parametrize("spec", tables.GOOD.values(), ids=tables.GOOD)
def test_good_manifest_is_accepted(server: ControlPlane, spec: tables.Spec) -> None:
    code, answer = _dry_run(server, tables.manifest(spec))

    assert code == 201, answer.get("message")


def test_longest_name_is_accepted(server: ControlPlane) -> None:
    code, answer = _dry_run(server, tables.manifest({}, name="a" * names.MAX_NAME_LENGTH))

    assert code == 201, answer.get("message")


def test_tables_are_large_and_readable() -> None:
    assert len(tables.BAD) >= 60
    assert len(tables.GOOD) >= 20
    ids = [bad.id for bad in tables.BAD]
    assert len(set(ids)) == len(ids)


def test_every_default_is_visible_in_the_stored_object(server: ControlPlane) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "defaults"}}
    _request(server, "POST", _COLLECTION, body)
    _, stored = _request(server, "GET", f"{_COLLECTION}/defaults")

    assert stored["spec"] == {
        "model": {"id": "mistralai/Mistral-7B-Instruct-v0.3", "revision": "main", "servedName": ""},
        "engine": {
            "image": "",
            "gpuMemoryUtilizationPercent": 92,
            "extraArgs": [],
            "resources": {"requests": {}, "limits": {}},
        },
        "gpu": {"count": 1, "plan": "", "nodeSelector": {}, "tolerations": []},
        "access": {
            "exposure": "ClusterIP",
            "allowlist": [],
            "inCluster": [],
            "tls": {"mode": "SelfSigned", "secretName": ""},
            "hostnames": [],
            "apiKeys": [{"name": "default"}],
        },
        "chat": {
            "enabled": True,
            "image": "",
            "admin": {"email": "admin@sandbox.local", "secretName": ""},
            "oidc": {"providerURL": "", "clientID": "", "allowedDomains": []},
            "storage": {"size": "10Gi"},
        },
        "storage": {
            "className": "",
            "modelCacheSize": "",
            "retain": {"modelCache": False, "chat": True},
        },
        "lifecycle": {"state": "Running"},
    }
    assert stored["status"] == {"observedGeneration": -1, "conditions": []}
    assert stored["spec"] == schema.filled(crd.root()["properties"]["spec"])


def test_entries_of_lists_are_stored_as_they_were_written(server: ControlPlane) -> None:
    spec: tables.Spec = {
        "access": {"allowlist": [{"cidr": "203.0.113.4/32"}], "inCluster": [{}]},
        "chat": {
            "oidc": {
                "providerURL": "https://id.example.com/.well-known/openid-configuration",
                "clientID": "chat",
            }
        },
        "gpu": {"tolerations": [{"key": "dedicated"}]},
    }
    spec["chat"]["oidc"]["clientSecretRef"] = tables.SECRET_REF
    spec["chat"]["oidc"]["roles"] = {"allowed": ["staff"], "admin": ["ops"]}
    code, stored = _dry_run(server, tables.manifest(spec))

    assert code == 201, stored
    access = stored["spec"]["access"]
    assert access["allowlist"] == [{"cidr": "203.0.113.4/32"}]
    assert access["inCluster"] == [{}]
    assert stored["spec"]["chat"]["oidc"]["roles"] == {
        "claim": "roles",
        "allowed": ["staff"],
        "admin": ["ops"],
    }
    assert stored["spec"]["gpu"]["tolerations"] == [{"key": "dedicated"}]


def test_kubectl_refuses_an_unknown_field(server: ControlPlane) -> None:
    body = tables.manifest({"access": {"allowList": []}}, name="unknown")
    result = server.kubectl_result("apply", "-f", "-", stdin=json.dumps(body))

    assert result.returncode != 0
    assert 'unknown field "spec.access.allowList"' in result.stderr


_CHANGES: tuple[tuple[str, tables.Spec, tables.Spec, str, str], ...] = (
    (
        "chat-volume-shrinks",
        {"chat": {"storage": {"size": "20Gi"}}},
        {"chat": {"storage": {"size": "19Gi"}}},
        "spec.chat.storage.size",
        "must not shrink",
    ),
    (
        "chat-volume-shrinks-by-unit",
        {"chat": {"storage": {"size": "20Gi"}}},
        {"chat": {"storage": {"size": "20G"}}},
        "spec.chat.storage.size",
        "must not shrink",
    ),
    (
        "chat-volume-falls-back-to-the-default",
        {"chat": {"storage": {"size": "20Gi"}}},
        {"chat": None},
        "spec.chat.storage.size",
        "must not shrink",
    ),
    (
        "cache-shrinks",
        {"storage": {"modelCacheSize": "1Ti"}},
        {"storage": {"modelCacheSize": "40Gi"}},
        "spec.storage.modelCacheSize",
        "must not shrink or be removed",
    ),
    (
        "cache-size-is-removed",
        {"storage": {"modelCacheSize": "40Gi"}},
        {"storage": {"modelCacheSize": ""}},
        "spec.storage.modelCacheSize",
        "must not shrink or be removed",
    ),
    (
        "class-is-set-later",
        {},
        {"storage": {"className": "fast"}},
        "spec.storage.className",
        "must not change: a volume keeps its class",
    ),
    (
        "class-is-removed",
        {"storage": {"className": "fast"}},
        {"storage": None},
        "spec.storage.className",
        "must not change: a volume keeps its class",
    ),
)


@pytest.mark.parametrize(
    ("name", "before", "after", "field", "message"), _CHANGES, ids=[change[0] for change in _CHANGES]
)
def test_change_that_a_volume_cannot_follow_is_refused(
    server: ControlPlane, name: str, before: tables.Spec, after: tables.Spec, field: str, message: str
) -> None:
    code, answer = _request(server, "POST", _COLLECTION, tables.manifest(before, name))
    assert code == 201, answer

    merge = "application/merge-patch+json"
    code, answer = _request(server, "PATCH", f"{_COLLECTION}/{name}", {"spec": after}, merge)

    assert code == 422, answer
    assert any(message in text for text in _causes(answer).get(field, [])), _causes(answer)


def test_other_changes_are_accepted(server: ControlPlane) -> None:
    before = {"chat": {"storage": {"size": "10Gi"}}, "storage": {"modelCacheSize": "20Gi"}}
    after = {
        "model": {"id": "Qwen/Qwen3-4B", "revision": "v1"},
        "chat": {"storage": {"size": "0.5Ti"}, "enabled": False},
        "storage": {"modelCacheSize": "20480Mi"},
        "gpu": {"count": 2},
        "access": {"exposure": "NodeBalancer", "apiKeys": [{"name": "other"}]},
        "lifecycle": {"state": "Suspended"},
    }
    _request(server, "POST", _COLLECTION, tables.manifest(before, "changes"))
    code, answer = _request(
        server, "PATCH", f"{_COLLECTION}/changes", {"spec": after}, "application/merge-patch+json"
    )

    assert code == 200, answer.get("message")


def test_allowlist_has_one_owner_and_keys_are_shared(server: ControlPlane) -> None:
    """A Git tool takes back an entry that somebody added; two appliers may each bring a key."""

    def apply(manager: str, spec: tables.Spec, *, force: bool = False) -> tuple[int, dict[str, Any]]:
        path = f"{_COLLECTION}/shared?fieldManager={manager}&force={str(force).lower()}"
        return _request(
            server, "PATCH", path, tables.manifest(spec, "shared"), "application/apply-patch+yaml"
        )

    office = {"cidr": "203.0.113.4/32", "description": "office"}
    intruder = {"cidr": "198.51.100.1/32"}
    git: tables.Spec = {"access": {"allowlist": [office], "apiKeys": [{"name": "git"}]}}
    assert apply("git", git)[0] == 201

    code, answer = apply("edit", {"access": {"allowlist": [intruder]}})
    assert code == 409, answer
    assert apply("edit", {"access": {"allowlist": [office, intruder]}}, force=True)[0] == 200
    _, stored = apply("git", git, force=True)
    assert [entry["cidr"] for entry in stored["spec"]["access"]["allowlist"]] == ["203.0.113.4/32"]

    code, stored = apply("ci", {"access": {"apiKeys": [{"name": "ci"}]}})
    assert code == 200, stored
    assert stored["spec"]["access"]["apiKeys"] == [{"name": "git"}, {"name": "ci"}]


def test_status_is_a_subresource_and_conditions_are_kept_by_type(server: ControlPlane) -> None:
    _request(server, "POST", _COLLECTION, tables.manifest({}, "status"))

    def tell(manager: str, kind: str) -> int:
        condition = {
            "type": kind,
            "status": "True",
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
        body = tables.manifest({}, "status")
        del body["spec"]
        body["status"] = {"observedGeneration": 1, "conditions": [condition]}
        path = f"{_COLLECTION}/status/status?fieldManager={manager}&force=true"
        return _request(server, "PATCH", path, body, "application/apply-patch+yaml")[0]

    assert [tell("one", "Ready"), tell("two", "Exposed")] == [200, 200]
    _, stored = _request(server, "GET", f"{_COLLECTION}/status")
    assert [condition["type"] for condition in stored["status"]["conditions"]] == ["Ready", "Exposed"]
    assert stored["metadata"]["generation"] == 1


def test_columns(server: ControlPlane) -> None:
    _request(server, "POST", _COLLECTION, tables.manifest({"gpu": {"plan": "g2-gpu-rtx4000a1-m"}}, "columns"))
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Progressing",
        "message": "waits for a node",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }

    def get(*flags: str, **endpoints: str) -> dict[str, str]:
        status = {"conditions": [condition], "endpoints": endpoints}
        kind = "application/merge-patch+json"
        code, answer = _request(server, "PATCH", f"{_COLLECTION}/columns/status", {"status": status}, kind)
        assert code == 200, answer
        header, row = server.kubectl("get", "aisb", "columns", *flags).splitlines()
        starts = [found.start() for found in re.finditer(r"\S+", header)]
        cells = [row[i:j].strip() for i, j in zip(starts, [*starts[1:], None], strict=True)]
        return dict(zip(header.split(), cells, strict=True))

    columns = get(api="https://192.0.2.1:8000/v1")
    assert list(columns) == ["NAME", "READY", "REASON", "MODEL", "GPU", "ENDPOINT", "AGE"]
    assert columns["READY"] == "False"
    assert columns["REASON"] == "Progressing"
    assert columns["GPU"] == "1"
    assert columns["ENDPOINT"] == "https://192.0.2.1:8000/v1"
    assert get(api="https://192.0.2.1:8000/v1", chat="https://192.0.2.1:3000")["ENDPOINT"].endswith(":3000")
    wide = get("-o", "wide")
    assert wide["PLAN"] == "g2-gpu-rtx4000a1-m"
    assert wide["EXPOSURE"] == "ClusterIP"
    assert wide["MESSAGE"] == "waits for a node"


def test_category_and_field_selectors(server: ControlPlane) -> None:
    spec = {"access": {"exposure": "NodeBalancer"}, "lifecycle": {"state": "Suspended"}}
    _request(server, "POST", _COLLECTION, tables.manifest(spec, "selected"))
    selector = "spec.access.exposure=NodeBalancer,spec.lifecycle.state=Suspended"

    found = server.kubectl("get", "ai", "-A", "-o", "name", f"--field-selector={selector}").split()

    assert f"{names.KIND.lower()}.{names.GROUP}/selected" in found
    assert not [name for name in found if name.endswith(("/columns", "/defaults"))]


def test_explain_prints_descriptions(server: ControlPlane) -> None:
    text = server.kubectl("explain", "aisandbox.spec.access")

    fields = crd.root()["properties"]["spec"]["properties"]["access"]["properties"]
    flat = " ".join(text.split())
    for name, field in fields.items():
        assert name in text
        assert " ".join(field["description"].split()) in flat
    assert "<empty>" not in server.kubectl("explain", "aisandbox", "--recursive")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_is_accepted(server: ControlPlane, sample: pathlib.Path) -> None:
    server.kubectl("apply", "--dry-run=server", "-f", str(sample))


def test_there_are_samples() -> None:
    assert {path.stem for path in SAMPLES} >= {"mistral", "smallest", "private", "team", "suspended"}
    for sample in SAMPLES:
        text = sample.read_text()
        header = text[: text.index("apiVersion:")]
        assert "# Costs: " in header
        assert "# Needs: " in header
        assert yaml.safe_load(text)["metadata"]["name"] == sample.stem


def test_new_rules_fit_the_server_s_cost_limits(server: ControlPlane) -> None:
    """A second CRD is admitted as new: no rule rides on one that was stored before."""
    definition = crd.definition()
    definition["spec"]["group"] = "copy.example.com"
    definition["metadata"]["name"] = f"{names.PLURAL}.copy.example.com"

    server.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(definition))
