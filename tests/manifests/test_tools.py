"""The objects for Argo CD and Flux: valid for their own CRDs on a real API server, and right about this repository.

The CRDs in crds/ are those of the tools' own repositories, which each file names, without what no manifest needs.
"""

from __future__ import annotations

import fnmatch
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import names
from chart import helm
from lab.cluster.controlplane import ControlPlane
from manifests import documents
from manifests.documents import SYSTEM, Manifest

CRDS = pathlib.Path(__file__).resolve().parent / "crds"
FILES = (
    "argocd/operator.yaml",
    "argocd/sandboxes.yaml",
    "argocd/argocd-cm.yaml",
    "flux/sandboxes.yaml",
    "flux/operator/operator.yaml",
)
#: Objects of the API that no namespace holds.
CLUSTERWIDE = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlane]:
    """An API server that knows the tools' kinds, with the namespaces in which they live."""
    with ControlPlane(controllers=False, scheduler=False) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(CRDS))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        for name in ("argocd", "flux-system", SYSTEM):
            plane.kubectl("create", "namespace", name)
        yield plane


def dry_run(server: ControlPlane, items: list[Manifest]) -> str:
    """What the API server has against them; empty: nothing."""
    flags = ("--server-side", "--dry-run=server", "--validate=strict")
    done = server.kubectl_result("apply", *flags, "-f", "-", stdin=documents.dump(items))
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("file", FILES)
def test_the_tools_own_crds_accept_every_field(server: ControlPlane, file: str) -> None:
    assert dry_run(server, documents.load(pathlib.Path(file))) == ""


def test_no_file_is_left_out() -> None:
    found = {
        str(path.relative_to(documents.MANIFESTS))
        for tool in ("argocd", "flux")
        for path in (documents.MANIFESTS / tool).rglob("*.yaml")
        if "resource_customizations" not in path.parts
    }
    assert found == set(FILES)


MISTAKES: list[tuple[str, str, tuple[str, ...], Any]] = [
    ("argocd/operator.yaml", "Application", ("spec", "syncPolicy", "syncOption"), ["CreateNamespace=true"]),
    ("argocd/operator.yaml", "AppProject", ("spec", "clusterResourceWhiteList"), []),
    ("flux/sandboxes.yaml", "GitRepository", ("spec", "reference"), {"branch": "main"}),
    ("flux/operator/operator.yaml", "OCIRepository", ("spec", "layerSelector", "operation"), "move"),
    ("flux/operator/operator.yaml", "HelmRelease", ("spec", "driftDetection", "mode"), "on"),
]


@pytest.mark.parametrize(("file", "kind", "path", "value"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_wrong_field_or_value_is_refused(
    server: ControlPlane, file: str, kind: str, path: tuple[str, ...], value: Any
) -> None:
    items = documents.load(pathlib.Path(file))
    node = helm.find(items, kind)
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    assert path[-1] in dry_run(server, items)


def version() -> str:
    found: str = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())["version"]
    return found


def registry() -> str:
    """Where the release's workflow pushes the chart of the project's own repository."""
    text = (documents.ROOT / ".github/workflows/release.yml").read_text()
    assert "REPOSITORY: ghcr.io/${{ github.repository_owner }}" in text
    assert 'helm push "dist/ai-sandbox-$VERSION.tgz" "oci://$REPOSITORY/charts"' in text
    return "ghcr.io/linode/charts"


def test_both_take_the_chart_of_this_version_from_where_the_release_puts_it() -> None:
    application = helm.find(documents.load(pathlib.Path("argocd/operator.yaml")), "Application")
    source = application["spec"]["source"]
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())["name"]
    assert (source["repoURL"], source["chart"], source["targetRevision"]) == (registry(), chart, version())
    flux = helm.find(documents.load(pathlib.Path("flux/operator/operator.yaml")), "OCIRepository")["spec"]
    assert flux["url"] == f"oci://{registry()}/{chart}"
    assert flux["ref"] == {"tag": version()}
    (identity,) = flux["verify"]["matchOIDCIdentity"]
    workflow = "https://github.com/linode/ai-sandbox-operator/.github/workflows/release.yml@refs/tags/v0.1.0"
    assert re.search(identity["subject"], workflow)
    assert not re.search(identity["subject"], workflow.replace("linode", "other"))
    assert not re.search(identity["subject"], workflow.replace("tags", "heads"))


def project(file: str) -> Manifest:
    found: Manifest = helm.find(documents.load(pathlib.Path(file)), "AppProject")["spec"]
    return found


def permitted(item: Manifest, spec: Manifest, *, default: str) -> bool:
    """Whether a project lets an object be made.

    Source: argo-cd, pkg/apis/application/v1alpha1/app_project_types.go.
    """
    group = item["apiVersion"].rpartition("/")[0]
    clusterwide = item["kind"] in CLUSTERWIDE
    listed = spec["clusterResourceWhitelist" if clusterwide else "namespaceResourceWhitelist"]
    kind = any(
        (entry["group"], entry["kind"]) == (group, item["kind"])
        and fnmatch.fnmatchcase(item["metadata"]["name"], entry.get("name") or "*")
        for entry in listed
    )
    place = item["metadata"].get("namespace", default)
    return kind and (clusterwide or place in {entry["namespace"] for entry in spec["destinations"]})


MONITORED: Manifest = {part: {"enabled": True} for part in ("serviceMonitor", "rules", "dashboard")}


def test_each_project_permits_what_its_application_holds_and_needs_every_entry() -> None:
    cases: tuple[tuple[str, list[Manifest], str, set[str]], ...] = (
        ("argocd/operator.yaml", documents.of_argocd(monitoring=MONITORED), SYSTEM, {"Pod", "ReplicaSet"}),
        ("argocd/sandboxes.yaml", documents.kustomize("kustomize/sandboxes"), "team-a", set()),
    )
    for file, items, default, shown in cases:
        spec = project(file)
        refused = [
            f"{i['kind']} {i['metadata']['name']}" for i in items if not permitted(i, spec, default=default)
        ]
        assert refused == [], file
        for key in ("clusterResourceWhitelist", "namespaceResourceWhitelist"):
            for entry in spec[key]:
                fewer = {**spec, key: [other for other in spec[key] if other != entry]}
                needed = not all(permitted(item, fewer, default=default) for item in items)
                assert needed != (entry["kind"] in shown), f"{file}: {entry}"
        assert "*" not in [*spec["sourceRepos"], *(entry["namespace"] for entry in spec["destinations"])]


def test_neither_tool_takes_a_namespace_with_what_its_sandboxes_left() -> None:
    found = helm.every(documents.kustomize("kustomize/sandboxes"), "Namespace")
    assert {item["metadata"]["name"] for item in found} == {"team-a", "team-b"}
    for item in found:
        annotations = item["metadata"]["annotations"]
        options = annotations["argocd.argoproj.io/sync-options"].split(",")
        assert {"Prune=false", "Delete=false"} <= set(options)
        assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_a_project_for_sandboxes_makes_nothing_else() -> None:
    spec = project("argocd/sandboxes.yaml")
    for kind, group in (
        ("Secret", ""),
        ("Deployment", "apps/"),
        ("ClusterRole", "rbac.authorization.k8s.io/"),
    ):
        item = {"apiVersion": f"{group}v1", "kind": kind, "metadata": {"name": "x"}}
        assert not permitted(item, spec, default="team-a")
    sandbox = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "x"}}
    assert permitted(sandbox, spec, default="team-a")
    assert not permitted(sandbox, spec, default="kube-system")


def test_argo_cd_applies_the_crd_first_and_never_takes_it_away() -> None:
    items = documents.of_argocd()
    (place,) = [n for n, item in enumerate(items) if item["kind"] == "CustomResourceDefinition"]
    assert place == 1, "only the namespace comes before it"
    options = items[place]["metadata"]["annotations"]["argocd.argoproj.io/sync-options"].split(",")
    assert {"Prune=false", "Delete=false"} <= set(options)


def test_sandboxes_come_after_the_operator_and_may_come_before_their_crd() -> None:
    operator, sandboxes = (
        helm.find(documents.load(pathlib.Path(f"argocd/{name}.yaml")), "Application")
        for name in ("operator", "sandboxes")
    )
    waves = [
        int(one["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]) for one in (operator, sandboxes)
    ]
    assert waves[0] < waves[1]
    annotations = sandboxes["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
    assert "SkipDryRunOnMissingResource=true" in sandboxes["spec"]["syncPolicy"]["syncOptions"]
    assert sandboxes["metadata"]["finalizers"] == ["resources-finalizer.argocd.argoproj.io"]
    assert "finalizers" not in operator["metadata"], "its deletion would take the operator from its sandboxes"
    for one in (operator, sandboxes):
        assert "ServerSideApply=true" in one["spec"]["syncPolicy"]["syncOptions"]
        assert "ignoreDifferences" not in one["spec"]


def test_every_path_in_git_that_a_tool_is_told_exists() -> None:
    told = [
        helm.find(documents.load(pathlib.Path("argocd/sandboxes.yaml")), "Application")["spec"]["source"][
            "path"
        ],
        *(
            k["spec"]["path"]
            for k in helm.every(documents.load(pathlib.Path("flux/sandboxes.yaml")), "Kustomization")
        ),
    ]
    assert len(told) == 3
    assert [path for path in told if not (documents.ROOT / path).is_dir()] == []


def test_flux_waits_for_the_operator_before_the_sandboxes_and_for_both_to_be_ready() -> None:
    items = documents.load(pathlib.Path("flux/sandboxes.yaml"))
    operator, sandboxes = (
        helm.find(items, "Kustomization", name)["spec"] for name in ("ai-sandbox-operator", "ai-sandboxes")
    )
    assert operator["wait"] is sandboxes["wait"] is True
    assert sandboxes["dependsOn"] == [{"name": "ai-sandbox-operator"}]
    (health,) = sandboxes["healthCheckExprs"]
    assert (health["apiVersion"], health["kind"]) == (names.API_VERSION, names.KIND)


def test_all_ways_to_install_differ_in_labels_of_the_tool_alone() -> None:
    _, release, values = documents.of_flux()

    def essence(items: list[Manifest]) -> dict[str, Any]:
        return {
            f"{item['kind']}/{item['metadata']['name']}": {
                key: value for key, value in item.items() if key not in ("metadata", "apiVersion")
            }
            for item in json.loads(
                re.sub(
                    r'"(helm\.sh/chart|app\.kubernetes\.io/managed-by)": "[^"]*",? ?', "", json.dumps(items)
                ).replace(", }", "}")
            )
            if item["kind"] != "Namespace"
        }

    reference = essence(documents.load(pathlib.Path("install/install.yaml")))
    assert essence(documents.of_argocd()) == reference
    assert essence(documents.chart(release, values)) == reference
