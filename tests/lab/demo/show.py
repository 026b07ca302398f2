"""The chapters of the show."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import yaml
from rich.table import Table

from ai_sandbox_operator.api import kinds, names
from lab import layers
from lab.demo.curl import Curl
from lab.demo.gateway import GatewayChapter
from lab.demo.stage import Stage, make_table
from lab.demo.timeline import Timeline
from lab.proxy import Fault
from lab.samples import SAMPLES
from lab.world import World

NAME = "mistral"
OFFICE, HOME = "203.0.113.4/32", "198.51.100.0/24"
STRANGER = "192.0.2.99"


class Show:
    """One run."""

    def __init__(self, world: World, stage: Stage) -> None:
        self._world = world
        self._stage = stage
        sample: dict[str, Any] = yaml.safe_load((SAMPLES / "mistral.yaml").read_text())
        self._spec: dict[str, Any] = sample["spec"]

    async def play(self) -> None:
        """All chapters, in order."""
        await self._birth()
        await self._three_layers()
        await self._edit()
        if self._world.lab.loopback_prefix and Curl.available():
            await GatewayChapter(self._world, self._stage, NAME).play()
        else:
            self._stage.say("(chapter 4 needs envoy and curl, and is left out)")
        await self._vandal()
        await self._killed()
        await self._end()

    async def encore(self) -> None:
        """A sandbox to play with."""
        await self._world.apply(NAME, self._spec)
        await self._world.until(NAME, "Ready", timeout=60)

    async def _birth(self) -> None:
        stage, world = self._stage, self._world
        stage.chapter(
            "1. One apply",
            "kubectl apply -f manifests/samples/mistral.yaml\n\n"
            "Mistral 7B on one GPU, a chat UI and an API, behind a public address that only the office\n"
            f"({OFFICE}) may use. Closed things come first; the public address comes last.",
        )
        timeline = Timeline(world, NAME)
        began = time.monotonic()
        with stage.live(lambda: self._growth(timeline, began)):
            await world.apply(NAME, self._spec)
            await world.until(NAME, "Ready", timeout=90)
        order = timeline.labels()
        policies = [i for i, label in enumerate(order) if label.startswith("NetworkPolicy")]
        workloads = [i for i, label in enumerate(order) if label.startswith(("Deployment", "Job"))]
        firewall = order.index("Cloud Firewall created")
        service = order.index(f"Service {NAME}")
        balancer = order.index("NodeBalancer created")
        stage.claim(
            max(policies) < min(workloads), "every NetworkPolicy was there before the first pod could be"
        )
        stage.claim(
            firewall < service < balancer, "the Cloud Firewall was there before anything was reachable"
        )
        created = timeline.body(f"Service {NAME}")
        annotation = created["metadata"]["annotations"][names.ANNOTATION_FIREWALL_ID]
        stage.claim(bool(annotation), f"the Service named its firewall ({annotation}) from its first write")
        birth = next(e for e in world.linode.journal if e.method == "POST" and e.path == "/nodebalancers")
        stage.claim(
            str(birth.body["firewall_id"]) == annotation,
            f"the NodeBalancer was born with the firewall attached: POST /nodebalancers firewall_id={annotation}",
        )
        stage.say("")
        stage.console.print(
            world.lab.plane.kubectl("get", "aisb", "-n", world.namespace, "-o", "wide"), markup=False
        )

    def _growth(self, timeline: Timeline, began: float) -> Table:
        rows = [(f"{at - began:6.2f} s", label, note) for at, label, note in timeline.rows()]
        return make_table("What appeared, in order", ("after", "object", "why it matters"), rows)

    async def _three_layers(self) -> None:
        stage = self._stage
        stage.chapter(
            "2. One list, three layers",
            "The same allowlist stands in the Cloud Firewall at Linode, in the gateway (which sees the true\n"
            "client address) and in the NetworkPolicy for clients inside the cluster.",
        )
        await self._show_layers("The allowlist in each layer")
        for label, layer in (await self._layers()).items():
            stage.claim(layer == await self._wanted(), f"{label} admits exactly the allowlist")
        snapshot, balancer = await self._balancer()
        stage.claim(snapshot.admits(balancer, OFFICE.split("/")[0], 8000), f"{OFFICE} reaches the API port")
        stage.claim(not snapshot.admits(balancer, STRANGER, 8000), f"a stranger ({STRANGER}) does not")

    async def _edit(self) -> None:
        stage, world = self._stage, self._world
        stage.chapter(
            "3. The allowlist changes",
            f"kubectl patch: the office ({OFFICE}) goes, home ({HOME}) comes, for the API only.\n"
            "Every layer follows, and no layer is ever wider than the list.",
        )
        before = await self._layers()
        began = time.monotonic()
        entry = {"cidr": HOME, "description": "home", "to": ["API"]}
        await world.edit(NAME, {"access": {"allowlist": [entry]}})
        wanted = await self._wanted()
        followed: dict[str, float] = {}
        while len(followed) < len(before) and time.monotonic() - began < 20:
            for label, layer in (await self._layers()).items():
                if layer not in (before[label], wanted):
                    stage.claim(False, f"{label} holds the old list or the new one, nothing else")
                if layer == wanted:
                    followed.setdefault(label, time.monotonic() - began)
            await asyncio.sleep(0.01)
        stage.claim(len(followed) == len(before), "every layer holds the new list")
        rows = [
            (label, f"{seconds * 1000:.0f} ms") for label, seconds in sorted(followed.items(), key=_second)
        ]
        stage.table("From the edit to its effect", ("layer", "after"), rows)
        await world.until(NAME, "NetworkProtected")
        await self._show_layers("The allowlist in each layer, now")
        snapshot, balancer = await self._balancer()
        stage.claim(not snapshot.admits(balancer, OFFICE.split("/")[0], 8000), "the office is out")
        stage.claim(not snapshot.admits(balancer, HOME.split("/")[0], 3000), "home does not get the chat")

    async def _vandal(self) -> None:
        stage, world = self._stage, self._world
        stage.chapter(
            "5. Somebody opens the firewall by hand",
            "In the Cloud Manager, a rule is added that lets the whole world in. The operator looks at the\n"
            "firewall every few minutes (here: every 3 s) and repairs what differs.",
        )
        firewall = (await world.sandbox(NAME))["status"]["linode"]["firewallID"]
        _, balancer = await self._balancer()
        world.linode.state.open_firewall(firewall)
        began = time.monotonic()
        stage.claim(
            self._snapshot().admits(balancer, STRANGER, 8000), "now a stranger gets through the firewall"
        )

        async def repaired() -> bool:
            return not self._snapshot().admits(balancer, STRANGER, 8000)

        await world.eventually(repaired, timeout=20, what="the repair")
        stage.claim(
            True, f"{time.monotonic() - began:.1f} s later the firewall is as the allowlist says again"
        )

    async def _killed(self) -> None:
        stage, world = self._stage, self._world
        stage.chapter(
            "6. The operator dies in the middle",
            "A second sandbox is applied, and the operator is killed (SIGKILL) in the middle of its writes.\n"
            "It starts again and finishes; nothing was exposed on the way.",
        )
        mark = len(world.proxy.writes())
        world.proxy.faults.append(Fault(mode="kill_after", nth=9))
        await world.apply("second", {**self._spec, "gpu": {"count": 1}})

        async def dead() -> bool:
            return not world.operator.running

        await world.eventually(dead, timeout=20, what="the kill")
        world.proxy.faults.clear()
        done = len(world.proxy.writes()) - mark
        service = await world.get(kinds.SERVICE, "second")
        stage.claim(service is None, f"killed after {done} writes; no public Service exists")
        began = time.monotonic()
        await world.operator.start()
        await world.until("second", "NetworkProtected", timeout=30)
        await world.until("second", "Exposed", timeout=30)
        took = time.monotonic() - began
        stage.claim(True, f"started again; {took:.1f} s later the sandbox is complete and protected")
        balancers = [
            b
            for b in self._snapshot().nodebalancers.values()
            if len(self._snapshot().firewalls_of(b.id)) != 1
        ]
        stage.claim(not balancers, "every NodeBalancer has exactly one firewall, none was made twice")
        engine = await world.until("second", "EngineReady", "False", reason="GPUsInUse", timeout=40)
        stage.say(f"(its engine waits, since the first sandbox has the only GPU: {engine['message']})")

    async def _end(self) -> None:
        stage, world = self._stage, self._world
        stage.chapter(
            "7. The end",
            "kubectl delete aisb --all\n\n"
            "The Service goes first, then the NodeBalancer, and only then the firewall, so that nothing is\n"
            "open for a moment.",
        )
        mark = world.linode.journal.last
        for name in (NAME, "second"):
            await world.delete(name)
        for name in (NAME, "second"):
            await world.gone(name, timeout=60)
        gone = [e for e in world.linode.journal.since(mark) if e.method == "DELETE" and e.wrote]
        rows = [(e.token or "", f"DELETE {e.path}") for e in gone]
        stage.table("What was deleted at Linode, in order", ("by", "request"), rows)
        snapshot = self._snapshot()
        stage.claim(not snapshot.nodebalancers and not snapshot.firewalls, "nothing is left at Linode")

        async def swept() -> bool:
            return not [key for key in await world.children(NAME) if key[0] != "PersistentVolumeClaim"]

        await world.eventually(swept, timeout=30, what="the garbage collector")
        left = await world.children(NAME)
        kept = ", ".join(name for _, name in left)
        stage.claim(
            set(left) == {("PersistentVolumeClaim", f"{NAME}-chat")},
            f"nothing is left in the cluster but the chats, which outlive their sandbox by default ({kept})",
        )
        stage.claim(
            not world.linode.violations,
            "every answer of the Linode simulator kept to Linode's API description",
        )

    async def _wanted(self) -> layers.Layer:
        return layers.allowlist(await self._world.sandbox(NAME))

    async def _layers(self) -> dict[str, layers.Layer]:
        world = self._world
        secret = await world.get(kinds.SECRET, f"{NAME}-gateway")
        policy = await world.get(kinds.NETWORK_POLICY, f"{NAME}-gateway")
        _, balancer = await self._balancer()
        firewall = self._snapshot().firewalls_of(balancer)[0]
        assert secret is not None
        assert policy is not None
        return {
            "Cloud Firewall": layers.firewall(firewall.rules.render()),
            "gateway, from outside": layers.gateway(secret, side="external"),
            "gateway, from inside": layers.gateway(secret, side="internal"),
            "NetworkPolicy": layers.policy(policy),
        }

    async def _show_layers(self, title: str) -> None:
        wanted = await self._wanted()
        rows = [("spec.access.allowlist", *_by_target(wanted))]
        rows += [(label, *_by_target(layer)) for label, layer in (await self._layers()).items()]
        self._stage.table(title, ("layer", "API", "Chat"), rows)

    def _snapshot(self) -> Any:
        return self._world.linode.state.snapshot()

    async def _balancer(self) -> tuple[Any, int]:
        live = await self._world.sandbox(NAME)
        return self._snapshot(), int(live["status"]["linode"]["nodeBalancerID"])


def _by_target(layer: layers.Layer) -> tuple[str, str]:
    return (
        ", ".join(sorted(network for network, target in layer if target == "API")) or "nobody",
        ", ".join(sorted(network for network, target in layer if target == "Chat")) or "nobody",
    )


def _second(item: tuple[str, float]) -> float:
    return item[1]
