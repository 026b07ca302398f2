"""How Argo CD and Flux judge a sandbox: their languages run in an environment of their own.

It is made once in the lab's cache from `requirements-judges.lock`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from chart import helm
from lab import environment
from manifests import documents

HERE = pathlib.Path(__file__).resolve().parent
LOCK = HERE / "requirements-judges.lock"
SCRIPT = documents.MANIFESTS / "argocd/resource_customizations/sandbox.linode.com/AISandbox/health.lua"


class NotJudged(Exception):
    """A script failed; the message is its own."""


@dataclasses.dataclass(frozen=True)
class Health:
    """Argo CD's status and message, and Flux' word: current, inProgress or failed."""

    argocd: str
    message: str
    flux: str


def judge(bodies: Sequence[Mapping[str, Any]], *, script: str = "") -> list[Health]:
    """Health of each object, by the project's script or another one.

    An object that is being deleted is Progressing before any script is asked (argo-cd,
    gitops-engine/pkg/health/health.go).

    Raises:
        NotJudged: a script failed.
    """
    asked = {"lua": script or SCRIPT.read_text(), "cel": expressions(), "objects": list(bodies)}
    python = environment.interpreter("judges", LOCK)
    done = subprocess.run(
        [python, HERE / "judge_driver.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotJudged(done.stderr[-2000:])
    found = []
    for body, answer in zip(bodies, json.loads(done.stdout), strict=True):
        if "error" in answer:
            raise NotJudged(answer["error"])
        told = answer["argocd"]
        if body["metadata"].get("deletionTimestamp"):
            told = {"status": "Progressing", "message": "Pending deletion"}
        found.append(Health(told["status"], told.get("message", ""), answer["flux"]))
    return found


def expressions() -> dict[str, str]:
    """Flux' expressions for a sandbox."""
    items = documents.load(pathlib.Path("flux/sandboxes.yaml"))
    (entry,) = helm.find(items, "Kustomization", "ai-sandboxes")["spec"]["healthCheckExprs"]
    return {name: entry[name] for name in ("inProgress", "failed", "current")}
