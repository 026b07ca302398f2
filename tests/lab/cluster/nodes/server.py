"""Fake nodes in this process: `async with FakeNodes(kubeconfig) as nodes`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import secrets
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from lab.cluster.nodes import node, plans
from lab.cluster.nodes.api import Api
from lab.cluster.nodes.behaviour import Behaviours
from lab.cluster.nodes.kubelet import Kubelet
from lab.cluster.nodes.lifecycle import Times
from lab.cluster.nodes.logs import LogServer
from lab.cluster.nodes.podnet import PodNetwork
from lab.cluster.nodes.podstatus import timestamp
from lab.cluster.nodes.storage import Storage
from lab.cluster.nodes.workloads import Workloads

log = logging.getLogger("lab.nodes")

_FIRST_POOL = 4001
#: Seconds for the end; the API server may be gone before.
_GOODBYE = 3.0


@dataclass(frozen=True)
class Member:
    """One node of the cluster."""

    identity: node.Identity
    plan: plans.Plan


class FakeNodes:
    """Nodes, kubelets and block storage for one API server.

    Args:
        kubeconfig: an administrator's, with a client certificate. The content of claims is in a directory
            `volumes` beside it, as far as pods really run.
        times: how long each step of a pod takes.
        pods_per_node: LKE's limit by default.
        envoy_folder: gateways run the real Envoy, with their files here; None: stand-ins.

    Attributes:
        behaviours: what the pods do; may be changed at any time.
        network: the way to the pods.
        workloads: what runs in the pods of gateways.
    """

    def __init__(
        self,
        kubeconfig: pathlib.Path | str,
        *,
        times: Times = Times(),  # noqa: B008 - frozen
        pods_per_node: int = 110,
        envoy_folder: pathlib.Path | None = None,
    ) -> None:
        self._api = Api(pathlib.Path(kubeconfig))
        self._pods_per_node = pods_per_node
        self._members: dict[str, Member] = {}
        self._pools: dict[tuple[str, bool], int] = {}
        self._last_number = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self.behaviours = Behaviours()
        volumes = pathlib.Path(kubeconfig).parent / "volumes"
        self.workloads = Workloads(
            self._api.get_or_none, self.behaviours.of, envoy_folder, volumes, ready=times.ready
        )
        self.behaviours.on_change(self.workloads.mounts.release)
        self._kubelet = Kubelet(self._api, self.behaviours, times, self.workloads)
        self._logs = LogServer(self._kubelet.find)
        self._storage = Storage(self._api)
        self.network = PodNetwork(self._kubelet.find_address, self.workloads)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._api)
            await self._logs.start()
            stack.push_async_callback(self._logs.stop)
            await self.network.start()
            stack.push_async_callback(self.network.stop)
            stack.push_async_callback(self.workloads.stop)
            await self._storage.install()
            self._tasks = [
                asyncio.create_task(self._kubelet.run()),
                asyncio.create_task(self._storage.run()),
                asyncio.create_task(
                    self._api.watch("/api/v1/secrets", self.workloads.mounts.on_secret, metadata=True)
                ),
            ]
            for task in self._tasks:
                task.add_done_callback(_say_if_broken)
            stack.push_async_callback(self._cancel)
            stack.push_async_callback(self._unregister)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _unregister(self) -> None:
        """Take the nodes and their pods away, or the next nodes on this cluster would lose pods to them."""
        work = [self.remove(name) for name in self._members]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), _GOODBYE)

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def add(
        self, plan: str, *, pool: int | None = None, count: int = 1, gpu_taint: bool = False
    ) -> list[str]:
        """Add nodes of a plan; their names. They take pods when this returns.

        Without `pool`, nodes of one plan and taint share one.

        Raises:
            ValueError: the plan is unknown.
            ApiError: the API server refused.
        """
        found = plans.find(plan)
        if pool is None:
            pool = self._pools.setdefault((plan, gpu_taint), _FIRST_POOL + len(self._pools))
        identities = [self._identity(pool) for _ in range(count)]
        await asyncio.gather(*(self._register(one, found, gpu_taint) for one in identities))
        self._kubelet.kick_all()
        return [one.name for one in identities]

    async def remove(self, name: str) -> None:
        """Remove a node and its pods, as a drained and deleted one.

        Raises:
            ValueError: there is none of that name.
            ApiError: the API server refused.
        """
        if name not in self._members:
            raise ValueError(f"no node {name!r}")
        await self._api.delete(f"/api/v1/nodes/{name}")
        del self._members[name]
        # The garbage collector of pods would wait 40 s.
        await asyncio.gather(*(self._evict(pod) for pod in self._kubelet.pods_of(name)))
        self._kubelet.hosts.pop(name, None)

    def describe(self) -> list[dict[str, Any]]:
        """Every node, for the control API."""
        return [
            {
                "name": name,
                "plan": member.plan.name,
                "pool": member.identity.pool,
                "internal_ip": member.identity.internal_ip,
                "linode_id": member.identity.linode_id,
                "pods": len(self._kubelet.pods_of(name)),
            }
            for name, member in self._members.items()
        ]

    def _identity(self, pool: int) -> node.Identity:
        self._last_number += 1
        return node.Identity(self._last_number, secrets.token_hex(6), pool)

    async def _register(self, identity: node.Identity, plan: plans.Plan, gpu_taint: bool) -> None:
        body = node.build(
            identity,
            plan,
            kubelet_port=self._logs.port,
            now=timestamp(time.time()),
            pods=self._pods_per_node,
        )
        await self._api.post("/api/v1/nodes", body)
        self._kubelet.hosts[identity.name] = identity.internal_ip
        self._members[identity.name] = Member(identity, plan)
        # Admission taints every new node not-ready; nobody else takes that away.
        taints = {"spec": {"taints": node.taints(gpu=gpu_taint)}}
        await self._api.patch(f"/api/v1/nodes/{identity.name}", taints)

    async def _evict(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self._api.delete(path, uid=meta["uid"], grace=0)


def _say_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the fake nodes stand still: %r", error)
