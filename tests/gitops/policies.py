"""The admission policies of manifests/admission on a control plane, and people who ask it for something."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ai_sandbox_operator.api import names
from gitops.hands import Object
from lab.cluster.controlplane import ControlPlane

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "manifests" / "admission"
EXAMPLES = FOLDER / "examples"
#: The namespace that the examples speak of, and the operator's.
TEAM, SYSTEM = "team-a", "ai-sandbox-system"
#: The chart's addition to the cluster's roles edit and admin (charts/ai-sandbox/templates/aggregate.yaml).
EDIT: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {
        "name": "ai-sandbox-edit",
        "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"},
    },
    "rules": [
        {
            "apiGroups": [names.GROUP],
            "resources": [names.PLURAL],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
        }
    ],
}
PERSON = {
    "member": ("mia", (TEAM,)),
    "lead": ("lea", (TEAM, f"{TEAM}-leads")),
    "administrator": ("root", ("system:masters",)),
}


def documents() -> list[Object]:
    """Every policy, binding and role."""
    return [d for path in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text())]


def expressions() -> list[str]:
    """All CEL in the policies."""
    text = json.dumps([d for d in documents() if d["kind"] == "ValidatingAdmissionPolicy"])
    return [
        json.loads(f'"{found}"')
        for found in re.findall(r'"(?:messageE|e)xpression": "((?:[^"\\]|\\.)*)"', text)
    ]


@contextlib.contextmanager
def installed(plane: ControlPlane) -> Iterator[None]:
    """Apply policies and examples, and wait until they judge; take them away afterwards."""
    for namespace in (TEAM, SYSTEM, "team-b"):
        plane.kubectl("create", "namespace", namespace)
    plane.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(EDIT))
    for folder in (FOLDER, EXAMPLES):
        plane.kubectl("apply", "--server-side", "--validate=strict", "--filename", str(folder))
    try:
        _wait(plane)
        yield
    finally:
        for folder in (EXAMPLES, FOLDER):
            plane.kubectl("delete", "--filename", str(folder), "--ignore-not-found")
        plane.kubectl("delete", "namespace", TEAM, SYSTEM, "team-b", "--wait=false")


def _wait(plane: ControlPlane) -> None:
    """Until both policies refuse, and the roles allow what they should."""
    deadline = time.monotonic() + 120
    probes = (
        ("member", {**PUBLIC, **SMALL}, "ai-sandbox-expose"),
        ("member", {"gpu": {**SMALL["gpu"], "count": 8}}, "ai-sandbox-bounds"),
    )
    for person, spec, policy in probes:
        while policy not in ask(plane, person, "probe", spec, "--dry-run=server"):
            assert time.monotonic() < deadline, ask(plane, person, "probe", spec, "--dry-run=server")
            time.sleep(0.1)
    while ask(plane, "lead", "probe", {**PUBLIC, **SMALL}, "--dry-run=server"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


SMALL: dict[str, Any] = {"gpu": {"plan": "g2-gpu-rtx4000a1-m"}}
PUBLIC: dict[str, Any] = {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": "203.0.113.0/24"}]}}


def access(*networks: str | Mapping[str, Any], exposure: str = "NodeBalancer", **rest: Any) -> dict[str, Any]:
    """A spec with an allowlist; a text is a network that may use everything."""
    entries = [{"cidr": one, "description": "x"} if isinstance(one, str) else dict(one) for one in networks]
    return {**SMALL, "access": {"exposure": exposure, "allowlist": entries, **rest}}


def ask(
    plane: ControlPlane, person: str, name: str, spec: Mapping[str, Any], *flags: str, namespace: str = TEAM
) -> str:
    """Apply a sandbox as somebody; what the API server refused it with, or nothing."""
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    return command(
        plane,
        person,
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        "-",
        *flags,
        stdin=json.dumps(manifest),
    )


def command(plane: ControlPlane, person: str, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as somebody; what it was refused with, or nothing."""
    result = plane.kubectl_result(*arguments, *identity(person), stdin=stdin)
    return result.stderr.strip() if result.returncode else ""


def identity(person: str) -> Sequence[str]:
    """kubectl's flags for somebody."""
    user, groups = PERSON[person]
    return ("--as", user, *(part for group in groups for part in ("--as-group", group)))
