"""Steps that the control plane tests share: specs, waiting for a sandbox at Linode, judging every instant."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.linode.ownership import Owner
from lab.linode.model import Snapshot
from lab.linode.server import Write
from lab.operator_process import OPERATOR_FOLDER
from lab.world import World

Object = dict[str, Any]

#: Short graces: what takes minutes in a cluster takes seconds here.
FLAGS = ("--linode-check-interval", "2", "--attach-grace", "3", "--leak-grace", "3")
ALLOWED = "203.0.113.0/24"
INSIDE, OUTSIDE = "203.0.113.9", "192.0.2.77"
PORTS = (names.PORT_API, names.PORT_CHAT)


def public(*cidrs: str, **spec: Any) -> Object:
    """A spec with a NodeBalancer; suspended, so that tests of the network do not compete for the GPU."""
    entries = [{"cidr": cidr} for cidr in (cidrs or (ALLOWED,))]
    access = {"exposure": "NodeBalancer", "allowlist": entries}
    return {"access": access, "lifecycle": {"state": "Suspended"}, **spec}


@dataclasses.dataclass(frozen=True)
class Placed:
    """Where a sandbox stands at Linode."""

    firewall: int
    balancer: int


async def placed(world: World, name: str, *, timeout: float = 30.0) -> Placed:
    """Wait until the sandbox is proven to be protected on its NodeBalancer."""

    async def probe() -> Placed | None:
        condition = await world.condition(name, "NetworkProtected")
        if condition["status"] != "True" or "on NodeBalancer" not in condition["message"]:
            return None
        linode = (await world.sandbox(name))["status"]["linode"]
        return Placed(linode["firewallID"], linode["nodeBalancerID"])

    return await world.eventually(probe, timeout=timeout, what=f"the protection of {name}")


async def stand(world: World, name: str, *cidrs: str, **spec: Any) -> Placed:
    """Apply a public sandbox and wait for it."""
    await world.apply(name, public(*cidrs, **spec))
    return await placed(world, name)


async def guarded(world: World, name: str, balancer: int, *, timeout: float = 12.0) -> int:
    """Wait until exactly one firewall, the one the Service names, guards the NodeBalancer; its id."""

    async def probe() -> int | None:
        service = await world.get(kinds.SERVICE, name)
        annotated = (
            (service or {"metadata": {}})["metadata"].get("annotations", {}).get(names.ANNOTATION_FIREWALL_ID)
        )
        on = [one.id for one in world.linode.state.firewalls_of(balancer)]
        return on[0] if len(on) == 1 and str(on[0]) == annotated and closed(world, balancer) else None

    return await world.eventually(probe, timeout=timeout, what=f"the firewall of {name}")


def closed(world: World, balancer: int, *, inside: str = INSIDE) -> bool:
    """Whether the allowlist, and nobody else, reaches the NodeBalancer."""
    now = world.linode.state.snapshot()
    return all(
        now.admits(balancer, inside, port) and not now.admits(balancer, OUTSIDE, port) for port in PORTS
    )


async def owner(world: World, name: str) -> Owner:
    """How Linode objects name this sandbox."""
    system = await world.api.get(kinds.NAMESPACE, None, "kube-system")
    live = await world.sandbox(name)
    return Owner(cluster_id=system["metadata"]["uid"], uid=live["metadata"]["uid"])


def firewalls_of(world: World, whose: Owner) -> list[int]:
    """Firewalls with a sandbox's tags."""
    return [one.id for one in world.linode.state.firewalls.values() if whose.owns(one.tags)]


async def patch_status(world: World, kind: kinds.Kind, name: str, status: Mapping[str, Any]) -> None:
    """Merge into a status, as another controller or a person may."""
    path = kind.path(world.namespace, name, "status")
    await world.api._request(
        "patch", kind, "PATCH", path, body={"status": dict(status)}, content_type=kube_client.MERGE_PATCH
    )


async def annotate(world: World, kind: kinds.Kind, name: str, values: Mapping[str, str | None]) -> None:
    """Set annotations, or remove those that are None, as `kubectl annotate` does."""
    await world.api.merge_patch(kind, world.namespace, name, {"metadata": {"annotations": dict(values)}})


async def command(world: World, *arguments: str) -> tuple[int, str]:
    """Run the operator's command line against the lab; exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ai_sandbox_operator",
        *arguments,
        *("--kubeconfig", str(world.lab.plane.kubeconfig)),
        *("--linode-url", world.linode.url),
        env={**os.environ, "PYTHONPATH": str(OPERATOR_FOLDER), "LINODE_TOKEN": "operator-token"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def ends(world: World, since: int) -> list[tuple[str | None, str]]:
    """Who deleted what at Linode, in order."""
    return [(e.token, e.path) for e in world.linode.journal.writes(since) if e.method == "DELETE"]


def in_order(at: Placed, who: str) -> list[tuple[str | None, str]]:
    """The only safe order: `who` ends the NodeBalancer, then the operator ends its firewall."""
    return [(who, f"/nodebalancers/{at.balancer}"), ("operator", f"/networking/firewalls/{at.firewall}")]


def released_at(world: World, name: str) -> float:
    """When the operator took its finalizer off, by the simulator's clock."""
    offset = time.time() - time.monotonic()
    (taken,) = (
        e.at + offset
        for e in world.proxy.attempts()
        if e.path.endswith(f"/{names.PLURAL}/{name}") and "'remove'" in str(e.body)
    )
    return taken


async def vanish(world: World, name: str) -> None:
    """Remove a sandbox and its Service as the end of a cluster does: nobody's finalizer runs."""
    for kind in (kinds.SANDBOX, kinds.SERVICE):
        live = await world.api.get(kind, world.namespace, name)
        await world.api.merge_patch(kind, world.namespace, name, {"metadata": {"finalizers": None}})
        await world.api.delete(kind, world.namespace, name, uid=live["metadata"]["uid"])


class Watchman:
    """Judges every committed change of the account, whoever made it.

    Attributes:
        openings: (who, NodeBalancer, port) each time a port began to admit an address outside.
        deletions: (who, object, tags) of everything that vanished.
    """

    def __init__(self, world: World) -> None:
        self.openings: list[tuple[str, int, int]] = []
        self.deletions: list[tuple[str, str, tuple[str, ...]]] = []
        self._open: set[tuple[int, int]] = set()
        self._before: Snapshot = world.linode.state.snapshot()
        world.linode.on_write(self._judge)

    def _judge(self, write: Write) -> None:
        now = write.snapshot
        is_open = {
            (ident, port) for ident in now.nodebalancers for port in PORTS if now.admits(ident, OUTSIDE, port)
        }
        self.openings += [(write.actor, *one) for one in sorted(is_open - self._open)]
        for kind in ("firewalls", "nodebalancers"):
            before, after = getattr(self._before, kind), getattr(now, kind)
            self.deletions += [
                (write.actor, f"{kind[:-1]} {ident}", tuple(before[ident].tags))
                for ident in before.keys() - after.keys()
            ]
        self._open, self._before = is_open, now

    def assert_operator_opened_nothing(self) -> None:
        """I1: what is open was opened by others."""
        assert [one for one in self.openings if one[0] == "operator"] == []

    def assert_operator_deleted_only_ours(self) -> None:
        """I2: what the operator deleted carried its tags."""
        ours = ("aisb-cluster-", "aisb-uid-")
        for who, what, tags in self.deletions:
            if who == "operator":
                assert all(any(tag.startswith(prefix) for tag in tags) for prefix in ours), (what, tags)


def service_writes(world: World, name: str, since: int = 0) -> Sequence[Any]:
    """What the operator sent about the external Service, committed or not."""
    tail = f"/services/{name}"
    return [
        e
        for e in world.proxy.attempts(since)
        if e.plural == "services"
        and (e.path.endswith(tail) or (e.method == "POST" and e.body["metadata"]["name"] == name))
    ]


def annotation_of(body: Any) -> str | None:
    """The firewall id in a written Service."""
    if not isinstance(body, dict):
        return None
    value = body.get("metadata", {}).get("annotations", {}).get(names.ANNOTATION_FIREWALL_ID)
    return None if value is None else str(value)
