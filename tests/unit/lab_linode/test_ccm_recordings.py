"""The stand-in makes the requests that the real cloud controller manager was recorded to make.

Recordings: CCM v0.9.8 against a minimal simulator. Ids, addresses, node ports and random labels differ between
runs, so both sides are renamed in order of appearance; everything else must be equal, in order.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import lab.linode
from lab.linode import Behaviour, LinodeSimulator, State
from lab.linode.ccm import CloudControllerManager
from lab.linode.ccm.annotations import PREFIX
from lab.linode.ccm.fake_kube import FakeKube
from lab.linode.ccm.triggers import EXCLUDE_LABEL

RECORDINGS = pathlib.Path(lab.linode.__file__).parent / "data" / "ccm-recordings.jsonl"
CREATED = "Service created with firewall-id, proxy-protocol v2, tags; ports 3000 and 8000; one node"
THROTTLED = "throttle annotation changed on a live Service"
EXCLUDED = "only node labelled exclude-from-external-load-balancers"
INCLUDED = "node label removed again"
REMOVED = "firewall-id annotation removed from a live Service"
UNKNOWN = "firewall-id set to an id that does not exist"
GOOD = "firewall-id set to a good id on a live Service"
DELETED = "Service deleted"
CREATED_UNKNOWN = "Service created with an unknown firewall id (server accepted it)"
NUMBER = re.compile(r"(?<![\w.])\d{3,5}(?![\w.])|198\.51\.100\.\d+|ccm-[0-9a-f]{12}")
FIXED = {"3000", "8000"}  # the Service's ports and nothing else


def recorded(scenario: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in RECORDINGS.read_text().splitlines()]
    # The node metadata controller's look at the Linodes is no part of a Service's sync.
    return [e for e in entries if e["scenario"] == scenario and e["path"] != "/v4/linode/instances"]


def normalised(requests: list[dict[str, Any]]) -> list[str]:
    """One line per request; ids, addresses and labels renamed in order of appearance."""
    names: dict[str, str] = {}

    def rename(found: re.Match[str]) -> str:
        text = found.group()
        return text if text in FIXED else names.setdefault(text, f"<{len(names)}>")

    return [
        NUMBER.sub(
            rename,
            f"{r['method']} {r['path']} ?{r['query']} {r['filter']} {json.dumps(r['body'], sort_keys=True)}",
        )
        for r in requests
    ]


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
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    def requests(self) -> list[dict[str, Any]]:
        return [
            {
                "method": e.method,
                "path": f"/v4{e.path}",
                "query": e.query,
                "filter": e.filter,
                "body": e.body,
            }
            for e in self.sim.journal.since(self.mark, token="ccm")
        ]

    async def agrees(self, scenario: str, prefix: bool = False) -> None:
        """Wait for as many requests as were recorded, then compare."""
        wanted = recorded(scenario)
        await self.until(lambda: len(self.requests()) >= len(wanted))
        await asyncio.sleep(0.05)  # a request too many would show now
        found = self.requests()[: len(wanted)] if prefix else self.requests()
        assert normalised(found) == normalised(wanted)

    async def settled(self) -> None:
        await self.until(lambda: self.kube.reasons()[-1:] == ["EnsuredLoadBalancer"])
        await self.until(lambda: (self.kube.service("s") or {}).get("status", {}).get("loadBalancer"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    state = State(Behaviour(unknown_firewall_at_birth="accept"))
    state.create_firewall("sandbox-0a1b2c")
    kube = FakeKube()
    async with LinodeSimulator(state) as sim:
        async with CloudControllerManager(kube=kube, linode_url=sim.url, retry_min=0.3):
            made = Bench(sim, kube)
            made.node()
            yield made
        assert sim.violations == []


async def live(bench: Bench) -> None:
    bench.apply(firewall_id="101")
    await bench.settled()
    bench.mark = bench.sim.journal.last


async def test_creation(bench: Bench) -> None:
    bench.apply(firewall_id="101")
    await bench.agrees(CREATED)


async def test_throttle(bench: Bench) -> None:
    await live(bench)
    bench.apply(throttle="5")
    await bench.agrees(THROTTLED)


async def test_no_nodes_and_nodes_again(bench: Bench) -> None:
    await live(bench)
    bench.node(**{EXCLUDE_LABEL: "true"})
    await bench.agrees(EXCLUDED)
    bench.mark = bench.sim.journal.last
    bench.node()
    await bench.agrees(INCLUDED)


async def test_annotation_removed(bench: Bench) -> None:
    await live(bench)
    bench.apply(firewall_id=None)
    await bench.agrees(REMOVED)
    assert bench.sim.state.firewalls == {}, "the firewall itself is deleted"


async def test_unknown_firewall_then_a_good_one(bench: Bench) -> None:
    await live(bench)
    bench.sim.state.detach(102)
    bench.apply(firewall_id="999")
    await bench.agrees(UNKNOWN, prefix=True)
    await bench.until(lambda: "SyncLoadBalancerFailed" in bench.kube.reasons())
    failed = [e for e in bench.kube.events if e["reason"] == "SyncLoadBalancerFailed"]
    assert "[404] Not found" in failed[0]["message"]
    good = bench.sim.state.create_firewall("another")
    bench.apply(firewall_id=str(good.id))
    await bench.agrees(GOOD)


async def test_deletion(bench: Bench) -> None:
    await live(bench)
    bench.kube.delete("services", "s")
    await bench.agrees(DELETED)
    assert bench.kube.service("s") is None
    assert list(bench.sim.state.firewalls) == [101], "the firewall stays"


async def test_creation_with_an_unknown_firewall(bench: Bench) -> None:
    bench.apply(firewall_id="999")
    await bench.until(lambda: len(bench.requests()) == 1)
    created = recorded(CREATED_UNKNOWN)
    assert normalised(bench.requests()) == normalised(created[:1])
    # The update that follows tries the attachment and stops there.
    await bench.settled()
    bench.apply(throttle="1", firewall_id="998")
    await bench.until(lambda: any(r["method"] == "POST" for r in bench.requests()))
    methods = [(r["method"], r["path"].rsplit("/", 1)[1]) for r in bench.requests()]
    assert methods == [
        ("GET", "nodebalancers"),
        ("PUT", str(next(iter(bench.sim.state.nodebalancers)))),
        ("GET", "firewalls"),
        ("POST", "devices"),
    ]
