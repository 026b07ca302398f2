"""A Helm release that contains a sandbox: install, upgrade, roll back and uninstall, with both Helms."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from ai_sandbox_operator.api import kinds, names
from chart import helm
from controlplane import steps
from controlplane.steps import placed
from gitops import hands
from lab.cluster.lab import Lab
from lab.world import World
from results import Results

CHART = """
apiVersion: v2
name: team
version: 0.1.0
"""
#: A release's template as people write it: with the labels that Helm's own starter puts everywhere.
TEMPLATE = f"""
apiVersion: {names.API_VERSION}
kind: {names.KIND}
metadata:
  name: {{{{ .Release.Name }}}}
  labels:
    app.kubernetes.io/instance: {{{{ .Release.Name }}}}
    app.kubernetes.io/managed-by: {{{{ .Release.Service }}}}
    helm.sh/chart: team-0.1.0
spec:
  access:
    exposure: NodeBalancer
    allowlist:
    - cidr: {{{{ .Values.office }}}}
      description: office
"""
NAME = "release"
OFFICE, HOME = "203.0.113.0/24", "198.51.100.0/24"


def chart(folder: pathlib.Path) -> pathlib.Path:
    """A chart with one sandbox."""
    made = folder / "team"
    (made / "templates").mkdir(parents=True)
    (made / "Chart.yaml").write_text(CHART)
    (made / "templates/sandbox.yaml").write_text(TEMPLATE)
    return made


@pytest.mark.parametrize("version", helm.VERSIONS, ids=lambda version: f"helm-{version.number}")
async def test_a_release_with_a_sandbox_upgrades_rolls_back_and_goes_without_a_conflict(
    lab: Lab, tmp_path: pathlib.Path, version: helm.Version, results: Results
) -> None:
    lab.nodes.forget()
    home = tmp_path / "home"
    home.mkdir()
    program = helm.Helm(version, helm.ensure(version), home, lab.plane.kubeconfig)
    folder = chart(tmp_path)
    async with World(lab, tmp_path, operator={"flags": steps.FLAGS}) as world:
        await world.operator.start()

        async def run(*arguments: str) -> str:
            return await asyncio.to_thread(program.run, *arguments, "--namespace", world.namespace)

        async def allowed() -> str:
            """What the sandbox lists, once the firewall holds it and all has settled."""
            (entry,) = (await world.sandbox(NAME))["spec"]["access"]["allowlist"]
            at = await placed(world, NAME, timeout=60)
            inside = {OFFICE: "203.0.113.9", HOME: "198.51.100.9"}

            async def held() -> bool:
                now = world.linode.state.snapshot()
                return {n: now.admits(at.balancer, a, 8000) for n, a in inside.items()} == {
                    n: n == entry["cidr"] for n in inside
                }

            await world.eventually(held, what="the firewall")
            await world.quiet()
            return str(entry["cidr"])

        await run("install", NAME, str(folder), "--set", f"office={OFFICE}", "--wait", "--timeout", "120s")
        if version.major == 4:
            assert (await world.condition(NAME, "Ready"))["status"] == "True", "Helm 4 waits by kstatus"
        await world.until(NAME, "Ready", timeout=120)
        assert await allowed() == OFFICE
        settled = await hands.versions(world)
        await run("upgrade", NAME, str(folder), "--set", f"office={OFFICE}")
        await world.quiet()
        children = {
            key: value for key, value in (await hands.versions(world)).items() if key != f"AISandbox {NAME}"
        }
        assert children.items() <= settled.items()
        await run("upgrade", NAME, str(folder), "--set", f"office={HOME}")
        assert await allowed() == HOME
        await run("rollback", NAME, "1")
        assert await allowed() == OFFICE
        for child in (await world.children(NAME)).values():
            assert hands.marks(child) == [], child["metadata"]["name"]
        await run("uninstall", NAME, "--wait", "--timeout", "120s")
        assert await world.get(kinds.SANDBOX, NAME) is None
        assert world.linode.state.nodebalancers == {}
    row = {
        "Check": "a release that contains a sandbox: install, upgrade without and with a change, roll back, uninstall",
        "As": f"Helm {version.major}",
        "Outcome": "no conflict; the operator follows; uninstall waits for the end at Linode",
    }
    results.row("gitops", row)
