"""The life of a LoadBalancer Service on a real API server: the cloud controller manager and its stand-in.

Both are held against the recorded requests of the real one; where the real binary is at hand, both run
here and must make the same requests, and the simulator must hold for the real one as it does for the
stand-in.

The real one runs unchanged if LINODE_CCM_BINARY names it, or if LINODE_CCM_BUILD=1 asks to build it from
`tests/lab/tools-ccm`. Its Go module is not available from every module proxy, so no test run tries by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lab.cluster import binaries
from lab.cluster.controlplane import ControlPlane
from lab.linode import LinodeSimulator
from lab.linode.ccm import REAL_RETRY_MIN, CloudControllerManager, recordings
from lab.linode.ccm.annotations import PREFIX
from lab.linode.ccm.triggers import EXCLUDE_LABEL, FINALIZER

MODULE = pathlib.Path(__file__).parents[1] / "lab" / "tools-ccm"
TOOL = binaries.Tool("ccm", "github.com/linode/linode-cloud-controller-manager", MODULE)
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "lab"},
    "spec": {"providerID": "linode://1001"},
}
ADDRESS = {"status": {"addresses": [{"type": "InternalIP", "address": "192.168.128.11"}]}}
ANNOTATIONS = {"default-proxy-protocol": "v2", "check-passive": "false", "tags": "ai-sandbox,uid-abc"}
ACTORS = ["stand-in", "real"]
# How long nothing must be asked before a step counts as over, and the first pause before a repetition.
QUIET, STAND_IN_RETRY = 0.6, 1.0


def ccm_binary() -> pathlib.Path:
    """The real one; the test is skipped where there is none."""
    if found := os.environ.get("LINODE_CCM_BINARY"):
        return pathlib.Path(found)
    if os.environ.get("LINODE_CCM_BUILD") != "1":
        pytest.skip("set LINODE_CCM_BINARY or LINODE_CCM_BUILD=1 to run the real cloud controller manager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOFLAGS", "-mod=mod")
        return binaries.ensure([TOOL]) / TOOL.name


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as started:
        started.kubectl("apply", "-f", "-", stdin=json.dumps(NODE))
        started.kubectl("patch", "node", "lab", "--subresource=status", "-p", json.dumps(ADDRESS))
        yield started


@contextlib.asynccontextmanager
async def running(actor: str, plane: ControlPlane, sim: LinodeSimulator) -> AsyncIterator[float]:
    """One of the two at work; yields its first pause before a repetition."""
    if actor == "stand-in":
        kubeconfig, retry = plane.kubeconfig, STAND_IN_RETRY
        async with CloudControllerManager(kubeconfig=kubeconfig, linode_url=sim.url, retry_min=retry):
            yield retry
        return
    flags = ["--leader-elect=false", "--allow-untagged-cloud", "--cluster-name=lke7", "--secure-port=0"]
    argv = [str(ccm_binary()), f"--kubeconfig={plane.kubeconfig}", *flags]
    environment = {"LINODE_URL": sim.url, "LINODE_API_TOKEN": "ccm-token", "LINODE_REGION": "us-ord"}
    plane.start_process("ccm", argv, {**os.environ, **environment})
    try:
        yield REAL_RETRY_MIN
    finally:
        plane.stop_process("ccm")


class Life:
    """One Service from creation to deletion, step by step as it was recorded."""

    def __init__(self, plane: ControlPlane, sim: LinodeSimulator) -> None:
        self.plane, self.sim = plane, sim
        self.mark = 0
        self.steps: dict[str, list[str]] = {}

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """In a thread: the simulator lives in this loop."""
        return await asyncio.to_thread(self.plane.kubectl, *arguments, stdin=stdin)

    async def create(self, firewall_id: int) -> None:
        annotations = {**ANNOTATIONS, "firewall-id": str(firewall_id)}
        ports = [{"name": f"p{port}", "port": port} for port in (3000, 8000)]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s", "annotations": {PREFIX + k: v for k, v in annotations.items()}},
            "spec": {"type": "LoadBalancer", "ports": ports, "selector": {"app": "none"}},
        }
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(service))

    async def annotate(self, change: str) -> None:
        await self.kubectl("annotate", "--overwrite", "service", "s", PREFIX + change)

    async def service(self) -> dict[str, Any]:
        return dict(json.loads(await self.kubectl("get", "service", "s", "-o", "json")))

    def asked(self) -> list[dict[str, Any]]:
        return recordings.of_journal(self.sim.journal.since(self.mark, token="ccm"))

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    async def quiet(self, seconds: float = QUIET) -> None:
        """Until nothing was asked for that long."""
        last = -1
        while last != self.sim.journal.last:
            last = self.sim.journal.last
            await asyncio.sleep(seconds)

    async def step(self, scenario: str, repeats: bool = False) -> None:
        """The requests since the mark are those that were recorded, then the next step begins.

        `repeats`: a failing sync goes on repeating, so only as many as were recorded are compared.
        """
        wanted = recordings.normalised(recordings.recorded(scenario))
        await self.until(lambda: len(self.asked()) >= len(wanted))
        if not repeats:
            await self.quiet()
        asked = self.asked()[: len(wanted)] if repeats else self.asked()
        self.steps[scenario] = recordings.normalised(asked)
        self.mark = self.sim.journal.last


async def live(actor: str, plane: ControlPlane) -> dict[str, list[str]]:
    """The requests of each recorded scenario, made by one of the actors."""
    async with LinodeSimulator() as sim:
        sim.state.add_linode("lab", "192.168.128.11", ident=1001, lke_cluster_id=7)
        first = sim.state.create_firewall("sandbox-0a1b2c")
        life = Life(plane, sim)
        async with running(actor, plane, sim) as retry:
            await life.create(first.id)
            await life.step(recordings.CREATED)
            service = await life.service()
            nb = next(iter(sim.state.nodebalancers.values()))
            ingress = service["status"]["loadBalancer"]["ingress"][0]
            assert (ingress["ip"], ingress["hostname"]) == (nb.ipv4, nb.hostname)
            assert service["metadata"]["finalizers"] == [FINALIZER]
            assert not sim.state.snapshot().admits(nb.id, "203.0.113.9", 8000), "closed from birth"

            await life.annotate("throttle=5")
            await life.step(recordings.THROTTLED)
            await life.kubectl("label", "node", "lab", f"{EXCLUDE_LABEL}=true")
            await life.step(recordings.EXCLUDED, repeats=True)
            await life.kubectl("label", "node", "lab", f"{EXCLUDE_LABEL}-")
            await life.step(recordings.INCLUDED)
            await life.annotate("firewall-id-")
            await life.step(recordings.REMOVED)
            assert sim.state.firewalls == {}, "the firewall is deleted with the annotation"

            await life.annotate("firewall-id=999")
            await life.step(recordings.UNKNOWN, repeats=True)
            events = await life.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
            assert "[404] Not found" in events
            await life.quiet()
            life.mark = sim.journal.last
            good = sim.state.create_firewall("sandbox-again")
            await life.annotate(f"firewall-id={good.id}")
            await life.step(recordings.GOOD, repeats=True)
            await life.quiet(2 * retry * 1.2)  # repetitions that were due already

            life.mark = sim.journal.last
            await life.kubectl("delete", "service", "s", "--wait=false")
            await life.step(recordings.DELETED)
            assert (sim.state.nodebalancers, list(sim.state.firewalls)) == ({}, [good.id])
            assert await life.kubectl("get", "service", "s", "--ignore-not-found") == ""
        assert sim.violations == []
    return life.steps


@pytest.mark.parametrize("actor", ACTORS)
async def test_requests_are_those_recorded(actor: str, plane: ControlPlane) -> None:
    if actor == "real":
        ccm_binary()
    steps = await live(actor, plane)
    wanted = {scenario: recordings.normalised(recordings.recorded(scenario)) for scenario in steps}
    assert steps == wanted


async def test_both_make_the_same_requests(plane: ControlPlane) -> None:
    ccm_binary()
    assert await live("stand-in", plane) == await live("real", plane)
