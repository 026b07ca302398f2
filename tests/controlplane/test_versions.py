"""Earlier versions of Kubernetes, as the API server emulates them: the CRD's rules, and a life of a sandbox.

The emulated API server offers the APIs and features of that version. At the lowest version that it emulates it
is laxer than a real one about functions in CEL, so those are held against a list (tests/unit/api).
"""

from __future__ import annotations

import pathlib
import time

import pytest

from ai_sandbox_operator.api import kinds
from controlplane.steps import ALLOWED, FLAGS, placed
from lab.cluster.lab import Lab
from lab.world import World
from results import Results

#: The oldest that a 1.37 API server emulates, and the one before the current.
VERSIONS = ("1.34", "1.36")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_sandbox_lives_on_an_earlier_kubernetes(
    version: str, tmp_path: pathlib.Path, results: Results
) -> None:
    with Lab(emulate=version) as lab:
        told = lab.plane.kubectl("get", "--raw", "/version")
        assert f'"emulationMinor": "{version.split(".")[1]}"' in told
        refused = lab.plane.kubectl_result("apply", "--server-side", "-f", "-", stdin=BAD)
        assert "spec.access.allowlist[0].cidr" in refused.stderr
        async with World(lab, tmp_path, operator={"flags": FLAGS}) as world:
            await world.operator.start()
            began = time.monotonic()
            await world.apply(
                "demo", {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": ALLOWED}]}}
            )
            await world.until("demo", "Ready", timeout=60)
            took = time.monotonic() - began
            await placed(world, "demo")
            await world.edit("demo", {"lifecycle": {"state": "Suspended"}})
            await world.until("demo", "Ready", "False", reason="Suspended", timeout=60)
            await world.delete("demo")
            await world.gone("demo")
            assert await world.get(kinds.SERVICE, "demo") is None
    row = {
        "Kubernetes": f"{version} (emulated)",
        "Outcome": "Ready, suspended, deleted",
        "Measured": f"Ready after {took:.0f} s",
    }
    results.row("versions", row)


BAD = """
apiVersion: sandbox.linode.com/v1alpha1
kind: AISandbox
metadata: {name: bad, namespace: default}
spec: {access: {allowlist: [{cidr: 203.0.113.4/8}]}}
"""
