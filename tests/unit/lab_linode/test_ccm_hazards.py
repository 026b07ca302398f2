"""The ordering hazards and quirks of the cloud controller manager, as the stand-in shows them.

These are the situations that the operator must survive; each is read from the CCM's source or recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lab.linode import LinodeSimulator, faults
from lab.linode.ccm import CloudControllerManager
from lab.linode.ccm.bench import Bench
from lab.linode.ccm.fake_kube import FakeKube
from lab.linode.ccm.triggers import FINALIZER

QUIET = 0.08  # seconds without a request that count as "nothing happens"


class Actors(Bench):
    """A bench that also holds the manager, to restart it and to set its switches."""

    def __init__(self, sim: LinodeSimulator, kube: FakeKube, ccm: CloudControllerManager) -> None:
        super().__init__(sim, kube)
        self.ccm = ccm

    async def live(self) -> int:
        """A settled Service; answers its NodeBalancer's id."""
        self.apply(firewall_id="101")
        await self.settled()
        await self.until(lambda: self.sim.state.nodebalancers)
        self.mark = self.sim.journal.last
        return next(iter(self.sim.state.nodebalancers))

    def attached(self, nb: int) -> list[int]:
        return [firewall.id for firewall in self.sim.state.firewalls_of(nb)]

    def count(self, reason: str) -> int:
        return sum(int(event["count"]) for event in self.kube.events if event["reason"] == reason)

    async def failed(self) -> str:
        await self.until(lambda: "SyncLoadBalancerFailed" in self.kube.reasons())
        return next(str(e["message"]) for e in self.kube.events if e["reason"] == "SyncLoadBalancerFailed")


@pytest.fixture
async def bench() -> AsyncIterator[Actors]:
    kube = FakeKube()
    async with LinodeSimulator() as sim:
        sim.state.create_firewall("sandbox-0a1b2c")
        async with CloudControllerManager(kube=kube, linode_url=sim.url, retry_min=0.05) as ccm:
            made = Actors(sim, kube, ccm)
            made.node()
            yield made
        assert sim.violations == []


async def test_no_annotation_is_an_open_nodebalancer(bench: Actors) -> None:
    bench.apply()
    await bench.settled()
    nb = next(iter(bench.sim.state.nodebalancers))
    assert bench.sim.state.snapshot().admits(nb, "203.0.113.9", 8000)
    bench.apply(firewall_id="101")
    await bench.until(lambda: bench.attached(nb) == [101])


async def test_a_firewall_attached_without_annotation_is_detached_and_deleted(bench: Actors) -> None:
    bench.apply()
    await bench.settled()
    nb = next(iter(bench.sim.state.nodebalancers))
    bench.sim.state.attach(101, nb)
    await asyncio.sleep(QUIET)
    assert bench.attached(nb) == [101], "drift at Linode triggers nothing"
    bench.apply(throttle="1")
    await bench.until(lambda: not bench.sim.state.firewalls)


async def test_a_removed_annotation_spares_a_firewall_in_use_elsewhere(bench: Actors) -> None:
    nb = await bench.live()
    bench.sim.state.create_nodebalancer("other", 101)
    bench.apply(firewall_id=None)
    await bench.until(lambda: not bench.attached(nb))
    await asyncio.sleep(QUIET)
    assert 101 in bench.sim.state.firewalls


async def test_a_deleted_firewall_stops_updates_before_the_backends(bench: Actors) -> None:
    nb = await bench.live()
    bench.sim.state.delete_firewall(101)
    bench.kube.apply(
        "nodes",
        {
            "metadata": {"name": "second"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.128.12"}]},
        },
    )
    await bench.until(lambda: "UpdateLoadBalancerFailed" in bench.kube.reasons())
    assert "[404] Not found" in await bench.failed()
    backends = [len(c.nodes) for c in bench.sim.state.nodebalancers[nb].configs.values()]
    assert backends == [1, 1], "the new node never reached the NodeBalancer"
    made = bench.sim.state.create_firewall("again")
    bench.apply(firewall_id=str(made.id))
    await bench.until(lambda: bench.attached(nb) == [made.id])
    configs = bench.sim.state.nodebalancers[nb].configs.values()
    await bench.until(lambda: [len(c.nodes) for c in configs] == [2, 2])


async def test_a_changed_id_never_converges_where_one_firewall_is_the_limit(bench: Actors) -> None:
    nb = await bench.live()
    other = bench.sim.state.create_firewall("other")
    bench.apply(firewall_id=str(other.id))
    await bench.until(lambda: len(bench.sim.journal.since(bench.mark, "ccm", "POST")) >= 3)
    assert bench.attached(nb) == [101]
    bench.sim.state.detach(nb)
    bench.sim.state.attach(other.id, nb)
    await bench.until(lambda: bench.count("EnsuredLoadBalancer") == 2)
    assert bench.attached(nb) == [other.id], "equal already: nothing to attach"


async def test_a_changed_id_attaches_before_it_detaches(bench: Actors) -> None:
    await bench.live()
    bench.sim.state.behaviour.second_firewall = "replace"
    other = bench.sim.state.create_firewall("other")
    bench.apply(firewall_id=str(other.id))
    await bench.until(lambda: bench.sim.journal.writes(bench.mark))
    first = bench.sim.journal.writes(bench.mark)[0]
    assert (first.method, first.path) == ("POST", f"/networking/firewalls/{other.id}/devices")


async def test_acl_makes_a_firewall_and_deletes_it(bench: Actors) -> None:
    bench.apply(firewall_acl='{"allowList": {"ipv4": ["203.0.113.0/24"]}}')
    await bench.settled()
    nb = next(iter(bench.sim.state.nodebalancers))
    made = bench.sim.state.firewalls_of(nb)[0]
    assert made.rules.inbound_policy == "DROP"
    assert [(r["ports"], r["addresses"]) for r in made.rules.inbound or []] == [
        ("3000,8000", {"ipv4": ["203.0.113.0/24"]})
    ]
    bench.apply(firewall_acl='{"denyList": {"ipv4": ["203.0.113.0/24"]}}')
    await bench.until(lambda: made.rules.inbound_policy == "ACCEPT")
    bench.kube.delete("services", "s")
    await bench.until(lambda: bench.kube.service("s") is None)
    assert list(bench.sim.state.firewalls) == [101]


async def test_acl_next_to_an_id_deletes_the_users_firewall_with_the_service(bench: Actors) -> None:
    bench.apply(firewall_id="101", firewall_acl='{"allowList": {"ipv4": ["203.0.113.0/24"]}}')
    await bench.settled()
    bench.kube.delete("services", "s")
    await bench.until(lambda: bench.kube.service("s") is None)
    assert bench.sim.state.firewalls == {}


async def test_acl_takes_over_an_attached_firewall(bench: Actors) -> None:
    nb = await bench.live()
    bench.apply(firewall_id=None, firewall_acl='{"allowList": {"ipv4": ["198.51.100.0/24"]}}')
    await bench.until(lambda: bench.sim.state.firewalls[101].rules.version == 2)
    assert bench.attached(nb) == [101]


async def test_wiped_status_leaks_on_deletion(bench: Actors) -> None:
    nb = await bench.live()
    await bench.kube.patch_service_status("default", "s", {"status": {"loadBalancer": {"ingress": None}}})
    bench.kube.delete("services", "s")
    await bench.until(lambda: bench.kube.service("s") is None)
    await asyncio.sleep(QUIET)
    assert nb in bench.sim.state.nodebalancers
    assert bench.kube.reasons()[-1] == "DeletedLoadBalancer", "success without deletion"


async def test_wiped_status_makes_a_second_nodebalancer_on_sync(bench: Actors) -> None:
    await bench.live()
    await bench.kube.patch_service_status("default", "s", {"status": {"loadBalancer": {"ingress": None}}})
    await asyncio.sleep(QUIET)
    assert len(bench.sim.state.nodebalancers) == 1, "a change of status alone triggers nothing"
    bench.apply(throttle="1")
    await bench.until(lambda: len(bench.sim.state.nodebalancers) == 2)


async def test_foreign_tags_are_removed_at_the_next_sync(bench: Actors) -> None:
    nb = await bench.live()
    bench.sim.state.tag_nodebalancer(nb, ["lke7", "mine"])
    bench.apply(throttle="1")
    await bench.until(lambda: bench.sim.state.nodebalancers[nb].tags == ["lke7", "ai-sandbox", "uid-abc"])


async def test_deletion_repeats_every_error_until_it_succeeds(bench: Actors) -> None:
    nb = await bench.live()
    bench.sim.state.lock_nodebalancer(nb)
    bench.kube.delete("services", "s")
    assert "failed to delete load balancer" in await bench.failed()
    assert FINALIZER in (bench.kube.service("s") or {})["metadata"]["finalizers"]
    bench.sim.state.nodebalancers[nb].locks = []
    await bench.until(lambda: bench.kube.service("s") is None)
    assert bench.sim.state.nodebalancers == {}


async def test_preserve(bench: Actors) -> None:
    nb = await bench.live()
    bench.apply(preserve="true")
    await bench.settled()
    bench.kube.delete("services", "s")
    await bench.until(lambda: bench.kube.service("s") is None)
    assert nb in bench.sim.state.nodebalancers


async def test_restart_syncs_once_and_then_rests(bench: Actors) -> None:
    await bench.live()
    await bench.ccm.restart()
    await bench.until(lambda: len(bench.requests()) >= 7)
    await asyncio.sleep(QUIET)
    assert bench.sim.journal.writes(bench.mark) == []
    assert len(bench.requests()) == 7


async def test_a_resync_or_a_label_does_nothing(bench: Actors) -> None:
    await bench.live()
    service = bench.kube.service("s") or {}
    service["metadata"]["labels"] = {"a": "b"}
    bench.kube.apply("services", service)
    await asyncio.sleep(QUIET)
    assert bench.requests() == []


async def test_switches(bench: Actors) -> None:
    bench.ccm.options.ignore_firewall_annotation = True
    bench.apply(firewall_id="101")
    await bench.settled()
    nb = next(iter(bench.sim.state.nodebalancers))
    assert bench.attached(nb) == [], "hazard 8: the annotation is not honoured"
    bench.sim.state.attach(101, nb)
    bench.apply(throttle="2")
    await bench.until(lambda: bench.sim.state.nodebalancers[nb].client_conn_throttle == 2)
    assert bench.attached(nb) == [101]


async def test_slow_creation(bench: Actors) -> None:
    bench.ccm.options.creation_delay = 0.1
    bench.apply(firewall_id="101")
    await asyncio.sleep(0.05)
    assert bench.sim.state.nodebalancers == {}
    await bench.settled()


async def test_hostname_only(bench: Actors) -> None:
    bench.apply(firewall_id="101", hostname_only_ingress="true")
    await bench.settled()
    ingress = (bench.kube.service("s") or {})["status"]["loadBalancer"]["ingress"]
    assert list(ingress[0]) == ["hostname"]
    bench.apply(throttle="3")
    await bench.until(lambda: [n.client_conn_throttle for n in bench.sim.state.nodebalancers.values()] == [3])


@pytest.mark.parametrize("wrong", ["abc", "12.5", ""])
async def test_an_id_that_is_no_integer_leaves_the_service_pending(bench: Actors, wrong: str) -> None:
    bench.apply(firewall_id=wrong)
    assert "strconv.Atoi" in await bench.failed()
    assert bench.sim.state.nodebalancers == {}


async def test_no_node(bench: Actors) -> None:
    bench.kube.delete("nodes", "lab")
    bench.apply(firewall_id="101")
    assert "no nodes available" in await bench.failed()
    assert "UnAvailableLoadBalancer" in bench.kube.reasons()
    bench.node()
    await bench.settled()


async def test_a_lost_reply_to_the_creation_leaves_a_nodebalancer_behind(bench: Actors) -> None:
    bench.sim.faults.add(faults.lost_reply("POST", "/nodebalancers"))
    bench.apply(firewall_id="101")
    await bench.settled()
    assert len(bench.sim.state.nodebalancers) == 2, "the first one is unknown to the cluster"


async def test_busy_and_unavailable_are_waited_out(bench: Actors) -> None:
    bench.sim.faults.add(faults.busy(times=2))
    bench.sim.faults.add(faults.unavailable(times=1))
    await bench.live()
    assert "SyncLoadBalancerFailed" not in bench.kube.reasons()
    bench.sim.faults.add(faults.maintenance(times=1))
    bench.apply(throttle="1")
    assert "[503]" in await bench.failed(), "maintenance is not retried by the client"


async def test_a_type_change_deletes_the_nodebalancer(bench: Actors) -> None:
    await bench.live()
    service = bench.kube.service("s") or {}
    service["spec"]["type"] = "ClusterIP"
    bench.kube.apply("services", {**service, "metadata": {**service["metadata"]}})
    await bench.until(lambda: not bench.sim.state.nodebalancers)
    await bench.until(lambda: not (bench.kube.service("s") or {})["metadata"].get("finalizers"))


async def test_ports_come_and_go(bench: Actors) -> None:
    nb = await bench.live()
    service = bench.kube.service("s") or {}
    ports = service["spec"]["ports"]
    bench.kube.apply("services", {**service, "spec": {**service["spec"], "ports": ports[:1]}})
    await bench.until(lambda: [c.port for c in bench.sim.state.nodebalancers[nb].configs.values()] == [3000])
    service = bench.kube.service("s") or {}
    added = [*service["spec"]["ports"], {"name": "new", "port": 9000, "protocol": "TCP"}]
    bench.kube.apply("services", {**service, "spec": {**service["spec"], "ports": added}})
    configs = bench.sim.state.nodebalancers[nb].configs
    await bench.until(lambda: [(c.port, len(c.nodes)) for c in configs.values()] == [(3000, 1), (9000, 1)])
