"""Health of a sandbox as Argo CD, Flux and kstatus judge it, on states that were recorded from a running operator.

`AI_SANDBOX_RECORD=1` writes the states and the expectations anew:
manifests/argocd/resource_customizations, in the form of Argo CD's own repository.
"""

from __future__ import annotations

import copy
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from lab.cluster.lab import Lab
from lab.world import World
from manifests import documents, judges, kstatus, states
from manifests.documents import Manifest
from manifests.judges import Health

FOLDER = judges.SCRIPT.parent
RECORDED = FOLDER / "testdata"
#: Argo CD's status of each state; what follows from it for the others is `AS_KSTATUS` and `AS_FLUX`.
EXPECTED = {
    "new": "Progressing",
    "downloading": "Progressing",
    "ready": "Healthy",
    "ready-public": "Healthy",
    "engine-crashes": "Progressing",
    "engine-update-fails": "Progressing",
    "rolled-back": "Degraded",
    "edited-while-ready": "Progressing",
    "suspended": "Suspended",
    "suspended-public": "Suspended",
    "resuming": "Progressing",
    "secret-missing": "Progressing",
    "model-too-large": "Degraded",
    "linode-unavailable": "Progressing",
    "deleting": "Progressing",
    "deletion-blocked": "Progressing",
}
#: kstatus knows no sleep: for it a suspended sandbox is never done.
AS_KSTATUS = {
    "Healthy": kstatus.Status.CURRENT,
    "Progressing": kstatus.Status.IN_PROGRESS,
    "Degraded": kstatus.Status.FAILED,
    "Suspended": kstatus.Status.IN_PROGRESS,
}
AS_FLUX = {"Healthy": "current", "Progressing": "inProgress", "Degraded": "failed", "Suspended": "current"}


def recorded() -> dict[str, Manifest]:
    """The states in the repository."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(RECORDED.glob("*.yaml"))}


def judged(bodies: Mapping[str, Manifest]) -> dict[str, Health]:
    return dict(zip(bodies, judges.judge(list(bodies.values())), strict=True))


def reason(body: Manifest) -> str:
    """The reason of Ready; empty where there is none."""
    conditions = body.get("status", {}).get("conditions", ())
    return next((str(c["reason"]) for c in conditions if c["type"] == "Ready"), "")


def assert_judged_alike(bodies: Mapping[str, Manifest]) -> None:
    """Each as expected, and by all three alike."""
    found = judged(bodies)
    assert {state: health.argocd for state, health in found.items()} == EXPECTED
    for state, health in found.items():
        body = bodies[state]
        if body["metadata"].get("deletionTimestamp"):
            assert kstatus.compute(body) is kstatus.Status.TERMINATING, state
            continue
        assert kstatus.compute(body) is AS_KSTATUS[health.argocd], state
        assert health.flux == AS_FLUX[health.argocd], state


def test_recorded_states_are_judged_alike_by_argo_cd_flux_and_kstatus() -> None:
    assert_judged_alike(recorded())


def test_the_file_of_argo_cds_repository_expects_what_the_script_says() -> None:
    listed = yaml.safe_load((FOLDER / "health_test.yaml").read_text())["tests"]
    bodies = recorded()
    found = judged(bodies)
    assert {one["inputPath"] for one in listed} == {
        f"testdata/{state}.yaml"
        for state, body in bodies.items()
        if "deletionTimestamp" not in body["metadata"]
    }
    for one in listed:
        health = found[pathlib.PurePath(one["inputPath"]).stem]
        assert one["healthStatus"] == {"status": health.argocd, "message": health.message}


def test_the_fragment_of_argocd_cm_holds_the_same_script() -> None:
    (fragment,) = documents.load(pathlib.Path("argocd/argocd-cm.yaml"))
    assert fragment["metadata"] == {"name": "argocd-cm", "namespace": "argocd"}
    assert fragment["data"] == {
        "resource.customizations.health.sandbox.linode.com_AISandbox": judges.SCRIPT.read_text()
    }


def test_a_message_says_why_and_what_to_do() -> None:
    found = judged(recorded())
    assert "Secret absent does not exist" in found["secret-missing"].message
    assert "spec.gpu" in found["model-too-large"].message
    assert "Linode" in found["linode-unavailable"].message
    assert "the engine serves the last good configuration" in found["rolled-back"].message
    assert all(health.message for health in found.values())


def without(body: Manifest, *types: str) -> Manifest:
    result = copy.deepcopy(body)
    kept = [c for c in result["status"]["conditions"] if c["type"] not in types]
    result["status"]["conditions"] = kept
    return result


def test_a_status_in_parts_is_never_healthy() -> None:
    ready = recorded()["ready"]
    no_status = {key: value for key, value in ready.items() if key != "status"}
    no_generation = copy.deepcopy(ready)
    del no_generation["status"]["observedGeneration"]
    parts = {
        "no status": no_status,
        "an empty status": {**ready, "status": {}},
        "no generation": no_generation,
        "no Ready": without(ready, "Ready"),
        "no conditions": without(ready, *(c["type"] for c in ready["status"]["conditions"])),
    }
    found = judged({**parts, "only Ready": without(ready, "Reconciling", "Stalled")})
    assert found.pop("only Ready").argocd == "Healthy"
    assert {what: health.argocd for what, health in found.items()} == dict.fromkeys(parts, "Progressing")
    assert {what: health.flux for what, health in found.items()} == dict.fromkeys(parts, "inProgress")


def test_a_script_that_needs_a_library_which_argo_cd_withholds_fails() -> None:
    with pytest.raises(judges.NotJudged, match="string"):
        judges.judge([recorded()["ready"]], script="return { status = string.upper('healthy') }")


async def test_states_of_a_running_operator_are_judged_as_the_recorded_ones(
    lab: Lab, tmp_path: pathlib.Path
) -> None:
    lab.nodes.forget()
    async with World(lab, tmp_path, operator={"flags": states.FLAGS}) as world:
        fresh = await states.Recorder(world).record()
        assert world.linode.violations == []
        assert world.proxy.errors == []
    if os.environ.get("AI_SANDBOX_RECORD"):
        write(fresh)
    assert_judged_alike(fresh)
    assert {s: reason(b) for s, b in fresh.items()} == {s: reason(b) for s, b in recorded().items()}


def write(fresh: Mapping[str, Manifest]) -> None:
    """The states, and what is expected of the script, in the form of Argo CD's repository."""
    RECORDED.mkdir(exist_ok=True)
    for path in RECORDED.glob("*.yaml"):
        path.unlink()
    for state, body in fresh.items():
        (RECORDED / f"{state}.yaml").write_text(yaml.safe_dump(body, width=118))
    tests: list[dict[str, Any]] = [
        {
            "healthStatus": {"status": health.argocd, "message": health.message},
            "inputPath": f"testdata/{state}.yaml",
        }
        for state, health in judged(fresh).items()
        if "deletionTimestamp" not in fresh[state]["metadata"]
    ]
    (FOLDER / "health_test.yaml").write_text(yaml.safe_dump({"tests": tests}, width=118, sort_keys=False))
