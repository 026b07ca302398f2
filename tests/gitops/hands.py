"""What GitOps tools do to an object, done by kubectl with their field managers, and what they would see.

Sources: argoproj/argo-cd gitops-engine/pkg/diff (a server-side dry run against the live object) and
fluxcd/kustomize-controller internal/controller/kustomization_controller.go (server-side apply that forces).
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ai_sandbox_operator.api import kinds, names
from lab.samples import SAMPLES
from lab.world import World

Object = dict[str, Any]

ARGO_CD, FLUX = "argocd-controller", "kustomize-controller"
TRACKING_LABEL, TRACKING_ID = "app.kubernetes.io/instance", "argocd.argoproj.io/tracking-id"
#: What every Secret holds that a sample names; the hub knows it.
TOKEN = "hf_" + "a" * 34
#: Marks by which tools know their objects; on a child they would make a tool prune or adopt it.
MARKS = (
    TRACKING_LABEL,
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "kubectl.kubernetes.io/last-applied-configuration",
)


def samples() -> dict[str, Object]:
    """The manifests that people start from, by name."""
    found = [yaml.safe_load(path.read_text()) for path in sorted(SAMPLES.glob("*.yaml"))]
    return {manifest["metadata"]["name"]: manifest for manifest in found}


def sandbox(name: str, spec: Mapping[str, Any], **metadata: Any) -> Object:
    """A manifest as it stands in a repository."""
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    return {**head, "metadata": {"name": name, **metadata}, "spec": copy.deepcopy(dict(spec))}


def tracked(manifest: Object) -> Object:
    """The manifest as Argo CD applies it: with the label of old installations and the annotation of new ones."""
    result = copy.deepcopy(manifest)
    metadata = result["metadata"]
    metadata["labels"] = {TRACKING_LABEL: "sandboxes", **metadata.get("labels", {})}
    tracking = f"sandboxes:{names.GROUP}/{names.KIND}:team/{metadata['name']}"
    metadata["annotations"] = {TRACKING_ID: tracking, **metadata.get("annotations", {})}
    return result


async def kubectl(world: World, *arguments: str, manifest: Object | None = None) -> str:
    """kubectl in the world's namespace; what it printed.

    Raises:
        RuntimeError: it failed; with its words.
    """
    full = (*arguments, "--namespace", world.namespace, *(("--filename", "-") if manifest else ()))
    text = json.dumps(manifest) if manifest else None
    return await asyncio.to_thread(world.lab.plane.kubectl, *full, stdin=text)


async def apply(world: World, manifest: Object, manager: str, *flags: str) -> Object:
    """Server-side apply by a tool; the answer."""
    tool = ("--server-side", f"--field-manager={manager}", "--output=json")
    found: Object = json.loads(await kubectl(world, "apply", *tool, *flags, manifest=manifest))
    return found


async def differences(world: World, manifest: Object, manager: str) -> list[str]:
    """Fields in which a dry run of the manifest and the live object differ: what makes a tool say OutOfSync."""
    dry = await apply(world, manifest, manager, "--dry-run=server", "--force-conflicts")
    live = await world.sandbox(manifest["metadata"]["name"])
    return sorted(_unequal(_compared(dry), _compared(live), ""))


def legacy_differences(manifest: Object, live: Object) -> list[str]:
    """What Argo CD's client-side comparison finds: it lays the manifest over the live object, lists as a whole.

    Source: gitops-engine/pkg/diff, TwoWayDiff for kinds that are not built in.
    """
    head = {key: manifest[key] for key in ("apiVersion", "kind", "spec")}
    return sorted(_unequal(_laid_over(live, head), live, ""))


def _laid_over(live: Any, manifest: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(manifest, dict):
        return manifest
    return {**live, **{key: _laid_over(live.get(key), value) for key, value in manifest.items()}}


def _compared(body: Object) -> Object:
    """Without what both tools leave out of a comparison."""
    result = copy.deepcopy(body)
    for field in ("managedFields", "resourceVersion"):
        result["metadata"].pop(field, None)
    return result


def _unequal(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _unequal(one.get(key), other.get(key), f"{path}.{key}")
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


def owned(body: Object, manager: str) -> set[str]:
    """Paths of the fields that a manager owns; status apart from the rest."""
    found: set[str] = set()
    for entry in body["metadata"].get("managedFields", ()):
        if entry["manager"] == manager:
            found |= set(_leaves(entry["fieldsV1"], ""))
    return found


def _leaves(node: Object, path: str) -> Iterator[str]:
    children = {key: value for key, value in node.items() if key != "."}
    if not children:
        yield path
    for key, value in children.items():
        yield from _leaves(value, f"{path}/{key}")


async def versions(world: World) -> dict[str, str]:
    """resourceVersion of every sandbox and of every object that the operator made for one."""
    found = {}
    for kind in (kinds.SANDBOX, *kinds.CHILDREN):
        selector = "" if kind == kinds.SANDBOX else names.MANAGED_BY_SELECTOR
        for item in await world.api.list_all(kind, world.namespace, label_selector=selector):
            found[f"{kind.kind} {item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


def marks(body: Object) -> list[str]:
    """Labels and annotations of tools on an object or on its pod template."""
    template = (body.get("spec") or {}).get("template") or {}
    keys = [
        key
        for metadata in (body["metadata"], template.get("metadata") or {})
        for field in ("labels", "annotations")
        for key in metadata.get(field) or ()
    ]
    return [key for key in keys if key.startswith(MARKS)]


async def secrets_for(world: World, manifest: Object) -> None:
    """Make every Secret that a manifest names, as its header says."""
    for reference in _references(manifest["spec"]):
        value = base64.b64encode(TOKEN.encode()).decode()
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": reference["name"]}}
        data = {"data": {reference["key"]: value}}
        await kubectl(world, "apply", "--server-side", manifest={**body, **data})


def _references(node: Any) -> Iterator[Object]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key.endswith("SecretRef"):
                yield value
            else:
                yield from _references(value)
