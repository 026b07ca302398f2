"""Judges after every single write whether a sandbox is closed to whom its spec does not name (I1).

A violation that lasts for one write is invisible at the end of a test, so the judge looks at the whole
state after each committed write to the API server and to Linode. It evaluates what it finds for sample
clients (see admits.py) and never asks the operator's renderers.

A user's edit takes effect at the API server before anybody can act on it. What was open at that instant
is therefore tolerated until it is next written; and a write that was decided before the edit may still
arrive within `reaction` seconds. Nothing else may ever be open.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api import names
from lab import admits, picture
from lab.admits import NOBODY, Pairs
from lab.linode.model import Snapshot
from lab.linode.server import Write
from lab.picture import Cluster
from lab.proxy import Exchange
from lab.world import World

#: Seconds for which a write may still follow the spec before the last one.
REACTION = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Whom a spec lets in, and since when it holds."""

    external: Pairs
    internal: Pairs
    since: float


class ClosedObserver:
    """Attach before the sandbox exists; change the sandbox only through `user`.

    Attributes:
        violations: each names the write that caused it.
        judged: number of instants that were judged.
    """

    def __init__(
        self, world: World, name: str, addresses: Iterable[str], *, reaction: float = REACTION
    ) -> None:
        self.world = world
        self.name = name
        self.addresses = tuple(addresses)
        self.violations: list[str] = []
        self.judged = 0
        self._reaction = reaction
        self._labels = names.labels(name, "gateway")
        self._cluster = Cluster()
        self._specs = [_Wanted(external=NOBODY, internal=NOBODY, since=time.monotonic())]
        self._balancers: set[int] = set()
        self._uids: set[str] = set()
        self._reached: dict[str, Pairs] = {"outside": NOBODY, "inside": NOBODY}
        self._rules: dict[int, tuple[Any, ...]] = {}
        self._tolerated: dict[int, Pairs] = {}
        self._attached = True
        self._waiting: list[Write] | None = None
        self._busy = asyncio.Lock()
        world.proxy.on_write(self._after_kubernetes)
        world.linode.on_write(self._after_linode)

    def detach(self) -> None:
        """Judge nothing any more."""
        self._attached = False

    def assert_closed(self) -> None:
        """Raises AssertionError with every violation."""
        assert self.judged, "nothing was observed"
        assert not self.violations, "\n".join(self.violations)

    def reached(self, side: str) -> Pairs:
        """Whom all layers together let in, from `outside` or `inside` the cluster, at the last look."""
        return self._reached[side]

    def wanted(self, side: str) -> Pairs:
        """Whom the spec lets in, at the last look."""
        return self._permitted(side)[0]

    @contextlib.asynccontextmanager
    async def user(self) -> AsyncIterator[None]:
        """Around an edit by the user: no write of the operator comes between the edit and its record.

        Writes at Linode cannot be held back; those that come meanwhile are judged by the new spec.
        """
        async with self.world.proxy.paused(), self._busy:
            before = self.world.linode.state.snapshot()
            self._waiting = []
            try:
                yield
                self._cluster = await picture.read(self.world, self.name)
            finally:
                waiting, self._waiting = self._waiting, None
            self._remember()
            for ident, live in before.firewalls.items():
                self._tolerated[ident] = admits.firewall(live, self.addresses) - self._specs[-1].external
                self._rules[ident] = (live.rules, live.status)
            self._reached = self._reach(self._cluster, before)
            for write in waiting:
                self._judge_linode(write)

    async def apply(self, spec: Mapping[str, Any]) -> None:
        """The user applies the sandbox."""
        async with self.user():
            await self.world.apply(self.name, spec)

    async def edit(self, spec: Mapping[str, Any]) -> None:
        """The user edits the spec."""
        async with self.user():
            await self.world.edit(self.name, spec)

    async def delete(self) -> None:
        """The user deletes the sandbox."""
        async with self.user():
            await self.world.delete(self.name)

    async def look(self, cause: str = "by hand") -> None:
        """Judge now, after a change that went past the proxy."""
        async with self.world.proxy.paused():
            await self._judge_cluster(cause)

    # -- after each write ----------------------------------------------------------------------------------

    async def _after_kubernetes(self, exchange: Exchange) -> None:
        if self._attached:
            await self._judge_cluster(str(exchange))

    def _after_linode(self, write: Write) -> None:
        if not self._attached:
            return
        if self._waiting is not None:
            self._waiting.append(write)
            return
        self._judge_linode(write)

    def _judge_linode(self, write: Write) -> None:
        cause = str(write.entry) if write.entry is not None else f"by hand at Linode ({write.actor})"
        self._judge(cause, self._cluster, write.snapshot, by_person=write.entry is None)

    async def _judge_cluster(self, cause: str) -> None:
        async with self._busy:
            self._cluster = await picture.read(self.world, self.name)
            self._remember()
            self._judge(cause, self._cluster, self.world.linode.state.snapshot(), by_person=False)
            self._judge_pods(cause, self._cluster)

    def _remember(self) -> None:
        """Note a spec that is new, so that it is known what was asked for, and until when."""
        sandbox = self._cluster.sandbox
        if sandbox is not None:
            self._uids.add(sandbox["metadata"]["uid"])
        wanted = _Wanted(
            external=admits.allowlist(sandbox, self.addresses, external=True),
            internal=admits.allowlist(sandbox, self.addresses, external=False),
            since=time.monotonic(),
        )
        last = self._specs[-1]
        if (wanted.external, wanted.internal) != (last.external, last.internal):
            self._specs.append(wanted)

    # -- judging -------------------------------------------------------------------------------------------

    def _permitted(self, side: str) -> list[Pairs]:
        """Whom the current spec lets in, and the specs that were current a moment ago."""
        now = time.monotonic()
        found = []
        for index, spec in reversed(list(enumerate(self._specs))):
            found.append(spec.external if side == "outside" else spec.internal)
            if now - self._specs[index].since > self._reaction:
                break
        return found

    def _judge(self, cause: str, cluster: Cluster, snapshot: Snapshot, *, by_person: bool) -> None:
        self.judged += 1
        self._judge_firewalls(cause, cluster, snapshot, by_person=by_person)
        for balancer in snapshot.nodebalancers.values():
            if not any(f.status == "enabled" for f in snapshot.firewalls_of(balancer.id)):
                self._report(cause, f"NodeBalancer {balancer.id} stands without an enabled firewall")
        reached = self._reach(cluster, snapshot)
        for side, pairs in reached.items():
            if (pairs - self._reached[side]) and not any(pairs <= spec for spec in self._permitted(side)):
                outside = pairs - self._permitted(side)[0]
                self._report(
                    cause,
                    f"widened from the {side} by {_some(pairs - self._reached[side])} while open to "
                    f"{_some(outside)}, which the spec does not name",
                )
        self._reached = reached
        if forged := admits.external(cluster.secret, self.addresses, peer=admits.NO_NODEBALANCER):
            self._report(cause, f"the gateway believes anybody's PROXY header: {_some(forged)}")
        running = any(w["metadata"]["name"] == f"{self.name}-gateway" for w in cluster.workloads)
        if running and (past := admits.bypass(cluster.policies, self._labels, self.addresses)):
            self._report(cause, f"the NodeBalancer can be bypassed by {_some(past)}")

    def _judge_firewalls(self, cause: str, cluster: Cluster, snapshot: Snapshot, *, by_person: bool) -> None:
        for service in cluster.public:
            name = service["metadata"]["name"]
            text = (service["metadata"].get("annotations") or {}).get(names.ANNOTATION_FIREWALL_ID, "")
            live = snapshot.firewalls.get(int(text)) if text.isdigit() else None
            if live is None or live.status != "enabled":
                what = "no firewall" if not text else f"firewall {text}, which is {live and live.status}"
                self._report(cause, f"LoadBalancer Service {name} names {what}")
                continue
            open_to = admits.firewall(live, self.addresses)
            written = self._rules.get(live.id) != (live.rules, live.status)
            self._rules[live.id] = (live.rules, live.status)
            permitted = self._permitted("outside")
            if written:
                late = by_person or any(open_to <= spec for spec in permitted[1:])
                self._tolerated[live.id] = open_to - permitted[0] if late else NOBODY
            excess = open_to - permitted[0] - self._tolerated.get(live.id, NOBODY)
            if excess:
                self._report(cause, f"firewall {live.id} of Service {name} is open to {_some(excess)}")

    def _reach(self, cluster: Cluster, snapshot: Snapshot) -> dict[str, Pairs]:
        """Who gets through all layers that judge addresses, from outside and from inside the cluster."""
        addresses = {s["status"]["loadBalancer"]["ingress"][0].get("ip", "") for s in _placed(cluster.public)}
        self._balancers |= {
            balancer.id
            for balancer in snapshot.nodebalancers.values()
            if balancer.ipv4 in addresses or any(uid in tag for uid in self._uids for tag in balancer.tags)
        }
        through: set[tuple[str, str]] = set()
        for ident in self._balancers & snapshot.nodebalancers.keys():
            through |= {
                (address, target)
                for address in self.addresses
                for target, port in admits.TARGETS.items()
                if snapshot.admits(ident, address, port)
            }
        for service in cluster.public:  # the NodeBalancer that the cloud controller is about to make
            text = (service["metadata"].get("annotations") or {}).get(names.ANNOTATION_FIREWALL_ID, "")
            live = snapshot.firewalls.get(int(text)) if text.isdigit() else None
            through |= admits.firewall(live, self.addresses)
        return {
            "outside": frozenset(through) & admits.external(cluster.secret, self.addresses),
            "inside": admits.internal(cluster.policies, cluster.secret, self._labels, self.addresses),
        }

    def _judge_pods(self, cause: str, cluster: Cluster) -> None:
        """Pods that are there, and pods that a workload would start at once.

        Pods that outlive their sandbox are left to the garbage collector, which knows no order.
        """
        if cluster.sandbox is None:
            return
        born = cluster.sandbox["metadata"]["creationTimestamp"]
        for pod in cluster.pods:
            finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if not finished and pod["metadata"]["creationTimestamp"] >= born:
                self._guarded(cause, f"pod {pod['metadata']['name']}", pod["metadata"]["labels"], cluster)
        for workload in cluster.workloads:
            metadata, spec = workload["metadata"], workload["spec"]
            starts = spec.get("replicas", spec.get("parallelism", 1)) > 0
            ours = any(o["uid"] == cluster.sandbox["metadata"]["uid"] for o in metadata["ownerReferences"])
            if starts and ours and "deletionTimestamp" not in metadata:
                self._guarded(cause, metadata["name"], spec["template"]["metadata"]["labels"], cluster)

    def _guarded(self, cause: str, what: str, labels: Mapping[str, str], cluster: Cluster) -> None:
        if missing := admits.guarded(cluster.policies, labels):
            self._report(cause, f"{what} lacks {missing}")

    def _report(self, cause: str, what: str) -> None:
        text = f"{cause.strip()}: {what}"
        if text not in self.violations:
            self.violations.append(text)


def _placed(services: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [s for s in services if (s.get("status") or {}).get("loadBalancer", {}).get("ingress")]


def _some(pairs: Pairs, most: int = 4) -> str:
    listed = ", ".join(f"{address} ({target})" for address, target in sorted(pairs)[:most])
    return listed if len(pairs) <= most else f"{listed} and {len(pairs) - most} more"
