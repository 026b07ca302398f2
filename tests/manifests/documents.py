"""The manifests as they are read, and what each way to install makes of them."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from chart import helm
from lab import samples
from lab.cluster import binaries

Manifest = dict[str, Any]

MANIFESTS = samples.MANIFESTS
ROOT = MANIFESTS.parent
SYSTEM = "ai-sandbox-system"
#: Kinds that Argo CD applies first, in this order; the rest follows by name of the kind.
#: Source: argo-cd, gitops-engine/pkg/sync/sync_tasks.go, kindOrder.
_FIRST = (
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "Pod",
    "Deployment",
)
_WAVE = "argocd.argoproj.io/sync-wave"


def load(path: pathlib.Path) -> list[Manifest]:
    """All documents of a file below manifests/."""
    return parse((MANIFESTS / path).read_text())


def parse(text: str) -> list[Manifest]:
    """All documents that are not empty."""
    return [document for document in yaml.safe_load_all(text) if document]


def dump(items: Iterable[Manifest]) -> str:
    """The documents as one file."""
    return yaml.safe_dump_all(items, sort_keys=False)


@functools.cache
def newest_helm() -> helm.Helm:
    """Helm 4, with a home of its own."""
    return helm.Helm(helm.HELM_4, helm.ensure(helm.HELM_4), pathlib.Path(tempfile.gettempdir()) / "no-home")


def kustomize(folder: str) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder below manifests/.

    Raises:
        AssertionError: it refused.
    """
    program = binaries.ensure() / "kubectl"
    done = subprocess.run(
        [program, "kustomize", str(MANIFESTS / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


def chart(release: str, values: Manifest) -> list[Manifest]:
    """The chart of this checkout, as a tool that renders it sees it: without hooks."""
    flags = ("--namespace", SYSTEM, "--kube-version", "1.37.2", "--no-hooks")
    text = newest_helm().run("template", release, str(helm.CHART), *flags, values=values)
    return parse(text)


def of_argocd(**more: Any) -> list[Manifest]:
    """The operator's objects as its Application has them, in the order in which they are applied.

    `more` are values that a user adds to those of the Application.
    """
    application = helm.find(load(pathlib.Path("argocd/operator.yaml")), "Application")
    source = application["spec"]["source"]["helm"]
    found = chart(source["releaseName"], {**source["valuesObject"], **more})
    labels = application["spec"]["syncPolicy"]["managedNamespaceMetadata"]["labels"]
    return [namespace(SYSTEM, labels), *waves(found)]


def of_flux() -> tuple[list[Manifest], str, Manifest]:
    """The operator's Namespace, then the name and the values of its release."""
    found = load(pathlib.Path("flux/operator/operator.yaml"))
    spec = helm.find(found, "HelmRelease")["spec"]
    return helm.every(found, "Namespace"), spec["releaseName"], spec["values"]


def waves(items: Sequence[Manifest]) -> list[Manifest]:
    """In Argo CD's order: wave, kind, name. Hooks are not among them."""

    def key(item: Manifest) -> tuple[int, int, str, str]:
        kind = item["kind"]
        wave = int((item["metadata"].get("annotations") or {}).get(_WAVE, "0"))
        place = _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
        return wave, place, kind, item["metadata"]["name"]

    return sorted(items, key=key)


def namespace(name: str, labels: Manifest) -> Manifest:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
