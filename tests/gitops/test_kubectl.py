"""People with kubectl: client-side apply, edits of a sandbox beside a tool, and edits of its children."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controlplane.drift import essence
from controlplane.steps import placed, public
from gitops import hands
from gitops.hands import FLUX
from lab.cluster.lab import Lab
from lab.world import World
from results import Results

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLAGS = ("--no-leader-elect", "--linode-check-interval", "2")
NAME = "team"
OFFICE, HOME = "203.0.113.0/24", "198.51.100.0/24"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    lab.nodes.forget()
    async with World(lab, tmp_path_factory.mktemp("kubectl"), operator={"flags": FLAGS}) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


async def admitted(world: World, name: str, *networks: str) -> None:
    """Wait until the firewall at Linode admits these networks and no others."""
    at = await placed(world, name, timeout=60)

    async def probe() -> bool:
        now = world.linode.state.snapshot()
        inside = {OFFICE: "203.0.113.9", HOME: "198.51.100.9"}
        return all(
            now.admits(at.balancer, address, 8000) == (network in networks)
            for network, address in inside.items()
        )

    await world.eventually(probe, timeout=30, what=f"the firewall of {name}")


async def test_client_side_apply_works_and_a_second_one_changes_nothing(
    world: World, results: Results
) -> None:
    full = {"cidr": OFFICE, "description": "office", "to": ["Chat", "API"]}
    spec = public()
    for name, entry in (("plain", {"cidr": OFFICE}), ("full", full)):
        spec["access"]["allowlist"] = [entry]
        manifest = hands.sandbox(name, spec)
        assert "created" in await hands.kubectl(world, "apply", manifest=manifest)
        await placed(world, name, timeout=60)
        await world.quiet()
        before = await hands.versions(world)
        assert "unchanged" in await hands.kubectl(world, "apply", manifest=manifest)
        assert await hands.kubectl(world, "diff", manifest=manifest) == ""
        assert await hands.versions(world) == before
        changed = {**entry, "cidr": HOME}
        spec["access"]["allowlist"] = [changed]
        assert "configured" in await hands.kubectl(world, "apply", manifest=hands.sandbox(name, spec))
        await admitted(world, name, HOME)
        for child in (await world.children(name)).values():
            assert hands.marks(child) == [], child["metadata"]["name"]
    results.row(
        "gitops",
        {
            "Check": "client-side `kubectl apply` a second time, and `kubectl diff`",
            "As": "kubectl",
            "Outcome": "says unchanged; no resourceVersion changes; the difference is empty",
        },
    )


async def test_flux_takes_an_edit_by_kubectl_back_and_the_operator_follows_both(
    world: World, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    labels = {
        "kustomize.toolkit.fluxcd.io/name": "sandboxes",
        "kustomize.toolkit.fluxcd.io/namespace": "flux",
    }
    manifest = hands.sandbox("flux", public(OFFICE), labels=labels)
    await hands.apply(world, manifest, FLUX, "--force-conflicts")
    await admitted(world, "flux", OFFICE)
    monkeypatch.setenv("KUBE_EDITOR", f"sed -i s#{OFFICE}#{HOME}#")
    await hands.kubectl(world, "edit", "aisb", "flux")
    await admitted(world, "flux", HOME)
    assert await hands.differences(world, manifest, FLUX) != [], "Flux sees the drift"
    with pytest.raises(RuntimeError, match='conflict with "kubectl-edit"'):
        await hands.apply(world, manifest, FLUX)
    await hands.apply(world, manifest, FLUX, "--force-conflicts")
    await admitted(world, "flux", OFFICE)
    await world.quiet()
    assert await hands.differences(world, manifest, FLUX) == []
    row = {"Check": "`kubectl edit` of the allowlist, then the next reconciliation", "As": FLUX}
    results.row("gitops", {**row, "Outcome": "reverted; firewall and gateway follow both"})


async def test_a_note_of_somebody_is_no_difference(world: World, results: Results) -> None:
    manifest = hands.sandbox("noted", {"lifecycle": {"state": "Suspended"}})
    await hands.apply(world, manifest, FLUX, "--force-conflicts")
    await world.until("noted", "Ready", "False", reason="Suspended", timeout=60)
    await hands.kubectl(world, "annotate", "aisb", "noted", "example.com/note=hello")
    await hands.kubectl(world, "label", "aisb", "noted", "example.com/team=a")
    await world.quiet()
    for manager in (FLUX, hands.ARGO_CD):
        assert await hands.differences(world, manifest, manager) == []
    row = {"Check": "labels and annotations that somebody adds to a sandbox", "As": "kubectl"}
    results.row("gitops", {**row, "Outcome": "kept; no difference"})


async def test_children_that_people_edit_or_scale_are_restored_and_the_sandbox_is_not_touched(
    world: World, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    await hands.apply(world, hands.sandbox(NAME, {"chat": {"enabled": False}}), FLUX)
    await world.until(NAME, "Ready", timeout=90)
    await world.quiet()
    sandbox = await world.sandbox(NAME)
    before = {key: essence(child) for key, child in (await world.children(NAME)).items()}

    async def restored() -> bool:
        now = {key: essence(child) for key, child in (await world.children(NAME)).items()}
        return now == before

    policy = next(name for kind, name in before if kind == "NetworkPolicy" and name.endswith("-engine"))
    edits = {
        f"deployment/{NAME}-gateway": "s/replicas: 2/replicas: 0/",
        f"service/{NAME}-engine": "s/port: 8000/port: 8001/",
        f"networkpolicy/{policy}": "s/- Egress//",
    }
    for target, script in edits.items():
        monkeypatch.setenv("KUBE_EDITOR", f"sed -i '{script}'")
        assert "edited" in await hands.kubectl(world, "edit", target), target
        await world.eventually(restored, timeout=20, what=f"the repair of {target}")
    await hands.kubectl(world, "scale", f"deployment/{NAME}-gateway", "--replicas=5")
    await world.eventually(restored, timeout=20, what="the number of gateways")
    await world.until(NAME, "Ready", timeout=60)
    await world.quiet()
    after = await world.sandbox(NAME)
    assert after["spec"] == sandbox["spec"]
    assert after["metadata"]["generation"] == sandbox["metadata"]["generation"]
    assert {k: v for k, v in after["metadata"].items() if k in ("labels", "annotations", "finalizers")} == {
        k: v for k, v in sandbox["metadata"].items() if k in ("labels", "annotations", "finalizers")
    }
    assert hands.owned(after, FLUX) == hands.owned(sandbox, FLUX)
    row = {"Check": "`kubectl edit` and `kubectl scale` of children", "As": "kubectl"}
    results.row("gitops", {**row, "Outcome": "restored; the sandbox's spec and metadata stay"})
