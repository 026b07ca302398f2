"""The stand-in makes the requests that the real cloud controller manager was recorded to make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lab.linode import Behaviour, LinodeSimulator, State
from lab.linode.ccm import CloudControllerManager
from lab.linode.ccm.bench import Bench
from lab.linode.ccm.fake_kube import FakeKube
from lab.linode.ccm.recordings import (
    CREATED,
    CREATED_UNKNOWN,
    DELETED,
    EXCLUDED,
    GOOD,
    INCLUDED,
    REMOVED,
    THROTTLED,
    UNKNOWN,
    normalised,
    recorded,
)
from lab.linode.ccm.triggers import EXCLUDE_LABEL


async def agrees(bench: Bench, scenario: str, prefix: bool = False) -> None:
    """Wait for as many requests as were recorded, then compare."""
    wanted = recorded(scenario)
    await bench.until(lambda: len(bench.requests()) >= len(wanted))
    await asyncio.sleep(0.05)  # a request too many would show now
    found = bench.requests()[: len(wanted)] if prefix else bench.requests()
    assert normalised(found) == normalised(wanted)


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
    await agrees(bench, CREATED)


async def test_throttle(bench: Bench) -> None:
    await live(bench)
    bench.apply(throttle="5")
    await agrees(bench, THROTTLED)


async def test_no_nodes_and_nodes_again(bench: Bench) -> None:
    await live(bench)
    bench.node(**{EXCLUDE_LABEL: "true"})
    await agrees(bench, EXCLUDED)
    bench.mark = bench.sim.journal.last
    bench.node()
    await agrees(bench, INCLUDED)


async def test_annotation_removed(bench: Bench) -> None:
    await live(bench)
    bench.apply(firewall_id=None)
    await agrees(bench, REMOVED)
    assert bench.sim.state.firewalls == {}, "the firewall itself is deleted"


async def test_unknown_firewall_then_a_good_one(bench: Bench) -> None:
    await live(bench)
    bench.sim.state.detach(102)
    bench.apply(firewall_id="999")
    await agrees(bench, UNKNOWN, prefix=True)
    await bench.until(lambda: "SyncLoadBalancerFailed" in bench.kube.reasons())
    failed = [e for e in bench.kube.events if e["reason"] == "SyncLoadBalancerFailed"]
    assert "[404] Not found" in failed[0]["message"]
    good = bench.sim.state.create_firewall("another")
    bench.apply(firewall_id=str(good.id))
    await agrees(bench, GOOD)


async def test_deletion(bench: Bench) -> None:
    await live(bench)
    bench.kube.delete("services", "s")
    await agrees(bench, DELETED)
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
