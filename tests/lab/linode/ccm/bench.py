"""One Service, one node, the stand-in and a simulator: a bench for tests of the cloud controller manager."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lab.linode.ccm import recordings
from lab.linode.ccm.annotations import PREFIX
from lab.linode.ccm.fake_kube import FakeKube
from lab.linode.server import LinodeSimulator


class Bench:
    """The stand-in between a simulator and a cluster in memory, and the recorded Service's life."""

    def __init__(self, sim: LinodeSimulator, kube: FakeKube) -> None:
        self.sim, self.kube = sim, kube
        self.annotations = {
            "default-proxy-protocol": "v2",
            "check-passive": "false",
            "tags": "ai-sandbox,uid-abc",
        }
        self.mark = 0

    def node(self, **labels: str) -> None:
        self.kube.apply(
            "nodes",
            {
                "metadata": {"name": "lab", "labels": labels},
                "spec": {"providerID": "linode://1001"},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.168.128.11"}]},
            },
        )

    def apply(self, **changes: str | None) -> None:
        """The Service with changed annotations; the journal's mark moves here."""
        self.mark = self.sim.journal.last
        for name, value in changes.items():
            self.annotations.pop(name.replace("_", "-"), None)
            if value is not None:
                self.annotations[name.replace("_", "-")] = value
        self.kube.apply(
            "services",
            {
                "metadata": {
                    "name": "s",
                    "annotations": {PREFIX + k: v for k, v in self.annotations.items()},
                },
                "spec": {
                    "type": "LoadBalancer",
                    "ports": [{"name": f"p{p}", "port": p, "protocol": "TCP"} for p in (3000, 8000)],
                },
            },
        )

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError("the condition did not come true")

    def requests(self) -> list[dict[str, Any]]:
        """What the manager asked since the mark."""
        return recordings.of_journal(self.sim.journal.since(self.mark, token="ccm"))

    async def settled(self) -> None:
        await self.until(lambda: self.kube.reasons()[-1:] == ["EnsuredLoadBalancer"])
        await self.until(lambda: (self.kube.service("s") or {}).get("status", {}).get("loadBalancer"))
