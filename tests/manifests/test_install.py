"""manifests/install and manifests/kustomize: made from the chart, and taken by a real API server twice."""

from __future__ import annotations

import copy
import importlib.util
import json
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest

from ai_sandbox_operator.api import names
from chart import helm
from lab.cluster.lab import Lab
from manifests import documents
from manifests.documents import SYSTEM, Manifest

CRD = f"{names.PLURAL}.{names.GROUP}"
INSTALL = documents.MANIFESTS / "install"


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    """scripts/install_manifest.py."""
    spec = importlib.util.spec_from_file_location(
        "install_manifest", documents.ROOT / "scripts/install_manifest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed() -> list[Manifest]:
    return documents.load(pathlib.Path("install/install.yaml"))


def test_the_file_is_what_the_script_makes_of_the_chart(script: types.ModuleType) -> None:
    assert script.main(["--check", "--helm", str(documents.newest_helm().program)]) == 0


def test_check_notices_a_file_that_is_out_of_date_and_leaves_it(
    script: types.ModuleType, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "install.yaml"
    stale.write_text((INSTALL / "install.yaml").read_text().replace("replicas: 2", "replicas: 3"))
    before = stale.read_text()
    options = ["--helm", str(documents.newest_helm().program), "--out", str(stale)]
    assert script.main(["--check", *options]) == 1
    assert "out of date" in capsys.readouterr().err
    assert stale.read_text() == before
    assert script.main(options) == 0
    assert script.main(["--check", *options]) == 0


@pytest.mark.parametrize("version", helm.VERSIONS, ids=lambda version: version.number)
def test_the_script_needs_nothing_but_python_and_either_helm(
    tmp_path: pathlib.Path, version: helm.Version
) -> None:
    out = tmp_path / "install.yaml"
    program = str(documents.ROOT / "scripts/install_manifest.py")
    options = ["--helm", str(helm.ensure(version)), "--out", str(out)]
    subprocess.run(
        [sys.executable, "-I", "-S", program, *options], check=True, capture_output=True, cwd=tmp_path
    )
    assert out.read_text() == (INSTALL / "install.yaml").read_text()


def test_it_differs_from_what_helm_renders_in_helms_own_marks_alone() -> None:
    def stripped(item: Manifest) -> Manifest:
        result = copy.deepcopy(item)
        metadata = [result["metadata"]]
        if "template" in result.get("spec", {}):
            metadata.append(result["spec"]["template"]["metadata"])
        for part in metadata:
            for key in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
                part.get("labels", {}).pop(key, None)
            part.get("annotations", {}).pop("helm.sh/resource-policy", None)
            if not part.get("annotations", {"-": ""}):
                del part["annotations"]
        return result

    def by_name(items: list[Manifest]) -> dict[tuple[str, str], Manifest]:
        return {(item["kind"], item["metadata"]["name"]): item for item in items}

    rendered = documents.chart("ai-sandbox", {"linode": {"tokenSecretRef": {"name": "linode-token"}}})
    mine = by_name(installed())
    assert (
        mine.pop(("Namespace", SYSTEM))["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    assert mine == by_name([stripped(item) for item in rendered])
    assert json.dumps(rendered).count("helm.sh") > len(rendered), "the render has no marks to take out"


def test_namespace_and_crd_come_first_and_nothing_claims_a_helm_release() -> None:
    items = installed()
    assert [item["kind"] for item in items[:2]] == ["Namespace", "CustomResourceDefinition"]
    text = json.dumps(items)
    assert "helm.sh" not in text
    assert "managed-by" not in json.dumps([item["metadata"] for item in items])


def test_helm_can_take_over_what_kubectl_installed(bare: Lab, tmp_path: pathlib.Path) -> None:
    apply(bare, "--filename", str(INSTALL))
    try:
        newest = helm.Helm(helm.HELM_4, documents.newest_helm().program, tmp_path, bare.plane.kubeconfig)
        flags = ("--namespace", SYSTEM, "--take-ownership", "--force-conflicts")
        newest.run("install", "ai-sandbox", str(helm.CHART), *flags)
        live = json.loads(bare.plane.kubectl("get", "deployments", "-n", SYSTEM, "-o", "json"))["items"]
        assert [item["metadata"]["name"] for item in live] == ["ai-sandbox"]
        newest.run("uninstall", "ai-sandbox", "--namespace", SYSTEM)
    finally:
        remove(bare)


def test_applied_twice_it_changes_nothing_and_its_pods_run_in_the_restricted_namespace(bare: Lab) -> None:
    try:
        apply(bare, "--filename", str(INSTALL))
        bare.plane.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=20s")
        rolled = ("rollout", "status", "deployment/ai-sandbox", "-n", SYSTEM, "--timeout=60s")
        bare.plane.kubectl(*rolled)
        before = versions(bare)
        said = apply(bare, "--filename", str(INSTALL))
        assert len(said.splitlines()) == len(installed())
        assert versions(bare) == before
        assert bare.plane.kubectl_result("diff", "--server-side", "--filename", str(INSTALL)).stdout == ""
        refuses_lesser_pods(bare)
    finally:
        remove(bare)


def refuses_lesser_pods(lab: Lab) -> None:
    """The namespace takes a pod of the Deployment, and none that may gain privileges."""
    template = helm.find(installed(), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    pod["metadata"] = {**pod["metadata"], "name": "operator", "namespace": SYSTEM}
    wanted = ("create", "--dry-run=server", "--filename", "-")
    assert lab.plane.kubectl_result(*wanted, stdin=json.dumps(pod)).returncode == 0
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in lab.plane.kubectl_result(*wanted, stdin=json.dumps(pod)).stderr


def test_a_folder_that_is_also_a_kustomization_is_still_one_for_apply_by_file() -> None:
    assert sorted(path.name for path in INSTALL.iterdir()) == ["Kustomization", "install.yaml"]
    assert by_kind(documents.kustomize("install")) == by_kind(installed())


def by_kind(items: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def test_the_overlay_changes_the_image_everywhere_and_nothing_else() -> None:
    before, after = by_kind(installed()), by_kind(documents.kustomize("kustomize/operator"))
    key = ("Deployment", "ai-sandbox")
    changed, plain = after.pop(key), before.pop(key)
    assert after == before
    container = changed["spec"]["template"]["spec"]["containers"][0]
    image: str = container["image"]
    assert image.startswith("registry.example.com/ai-sandbox-operator@sha256:")
    assert f"--operator-image={image}" in container["args"]
    assert json.loads(json.dumps(changed).replace(image, operator_image(plain))) == plain


def operator_image(deployment: Manifest) -> str:
    found: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def test_the_overlays_are_taken_by_the_api_server_one_after_the_other(bare: Lab) -> None:
    try:
        for folder in ("kustomize/operator", "kustomize/sandboxes"):
            apply(bare, "--kustomize", str(documents.MANIFESTS / folder))
            bare.plane.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=20s")
        live = json.loads(bare.plane.kubectl("get", "aisb", "-A", "-o", "json"))["items"]
        assert [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in live] == [
            ("team-a", "assistant")
        ]
    finally:
        remove(bare)


def apply(lab: Lab, *what: str) -> str:
    """As the files' headers say, but with fields that nobody knows refused."""
    return lab.plane.kubectl("apply", "--server-side", "--validate=strict", *what)


def remove(lab: Lab) -> None:
    """Sandboxes, then everything; wait for the namespaces, whose names the next test takes."""
    if lab.plane.kubectl_result("get", f"crd/{CRD}").returncode == 0:
        lab.plane.kubectl("delete", "aisb", "--all", "--all-namespaces", "--wait", "--timeout=60s")
    kinds = "clusterroles,clusterrolebindings"
    lab.plane.kubectl("delete", kinds, "--selector", "app.kubernetes.io/name=ai-sandbox-operator")
    spaces = (SYSTEM, "team-a", "team-b")
    lab.plane.kubectl("delete", "namespace", *spaces, "--ignore-not-found", "--wait", "--timeout=120s")


def versions(lab: Lab) -> dict[tuple[str, str], Any]:
    """What changes with every write, of every object of the file; a status that moves is not a write of ours."""
    found = {}
    for item in installed():
        kind, metadata = item["kind"], item["metadata"]
        scope = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
        body = json.loads(
            lab.plane.kubectl("get", kind, metadata["name"], *scope, "-o", "json", "--show-managed-fields")
        )
        fields = [e for e in body["metadata"]["managedFields"] if e["manager"] == "kubectl"]
        found[kind, metadata["name"]] = (body["metadata"].get("generation"), fields)
    return found
