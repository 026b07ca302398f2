"""The service controller around `Balancer`: caches, triggers, finalizer, status, events, retries.

One worker, as by default; a failed sync is repeated with exponential back-off, whatever the error. A
restart forgets everything and syncs every Service again. After a Service is gone, one more deletion is
tried for its last known status (that is a controller of the CCM's own). Source: k8s.io/cloud-provider
v0.35.4, controllers/service/controller.go; CCM cloud/linode/service_controller.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import aiohttp

from lab.linode.ccm import triggers
from lab.linode.ccm.annotations import SyncError
from lab.linode.ccm.balancer import Balancer, Options
from lab.linode.ccm.events import Recorder
from lab.linode.ccm.kube import Kube, KubeError
from lab.linode.ccm.linode import Linode
from lab.linode.ccm.requests import name_of
from lab.linode.errors import Json

log = logging.getLogger("lab.linode.ccm")
REAL_RETRY_MIN, REAL_RETRY_MAX = 5.0, 300.0  # of the service controller; tests are more impatient
Object = Mapping[str, Json]
NODES = ("nodes", "")  # the queue's item for "the set of nodes may have changed"


class Controller:
    def __init__(
        self, kube: Kube, linode: Linode, options: Options, retry_min: float, retry_max: float
    ) -> None:
        self.kube = kube
        self.balancer = Balancer(linode, kube, options)
        self.events = Recorder(kube)
        self.retry_min, self.retry_max = retry_min, retry_max
        self.services: dict[str, Object] = {}
        self.nodes: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self._known: dict[str, Object] = {}  # Services that were synced once, as last seen by a sync
        self._last_nodes: dict[str, list[Object]] = {}
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._queued: set[tuple[str, str]] = set()
        self._failures: dict[str, int] = {}
        self._gone: dict[str, Object] = {}

    # -- queue ---------------------------------------------------------------------------------------------

    def _enqueue(self, item: tuple[str, str]) -> None:
        if item not in self._queued:
            self._queued.add(item)
            self._queue.put_nowait(item)

    def _retry(self, key: str) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self.retry_max, self.retry_min * 2**failures)
        asyncio.get_running_loop().call_later(delay, self._enqueue, ("service", key))

    # -- watches -------------------------------------------------------------------------------------------

    def on_service(self, kind: str, service: Object) -> None:
        key = name_of(service)
        old = self.services.get(key)
        if kind == "DELETED":
            self.services.pop(key, None)
            if triggers.wants(service):
                self._gone[key] = service
                self._enqueue(("gone", key))
            return
        self.services[key] = service
        cleanup = triggers.needs_cleanup(service)
        if old is None:
            if triggers.wants(service) or cleanup:
                self._enqueue(("service", key))
        elif triggers.needs_update(old, service) or cleanup:
            self._enqueue(("service", key))

    def on_node(self, kind: str, node: Object) -> None:
        name = node["metadata"]["name"]
        old = self.nodes.get(name)
        if kind == "DELETED":
            self.nodes.pop(name, None)
        else:
            self.nodes[name] = node
        if kind == "DELETED" or old is None or triggers.node_change_counts(old, node):
            self._enqueue(NODES)

    async def _follow(self, plural: str, ready: asyncio.Event) -> None:
        """List and watch one kind for ever."""
        handle = self.on_service if plural == "services" else self.on_node
        cache = self.services if plural == "services" else self.nodes
        while True:
            try:
                items, version = await self.kube.list_all(plural)
                keys = {name_of(one) if plural == "services" else one["metadata"]["name"] for one in items}
                for gone in [old for key, old in cache.items() if key not in keys]:
                    handle("DELETED", gone)
                for item in items:
                    handle("ADDED", item)
                ready.set()
                async for kind, item in self.kube.watch(plural, version):
                    handle(kind, item)
            except (KubeError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("watch of %s ended: %s", plural, error)
                await asyncio.sleep(0.2)

    async def run(self) -> None:
        ready = {plural: asyncio.Event() for plural in ("nodes", "services")}
        async with asyncio.TaskGroup() as group:
            for plural, event in ready.items():
                group.create_task(self._follow(plural, event))
            for event in ready.values():
                await event.wait()
            self.synced.set()
            group.create_task(self._work())

    # -- syncing -------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            self._queued.discard(item)
            await self.process(item)

    async def process(self, item: tuple[str, str]) -> None:
        kind, key = item
        if item == NODES:
            await self._sync_nodes()
            return
        try:
            if kind == "gone":
                await self._sync_gone(key)
            else:
                await self._sync(key)
            self._failures.pop(key, None)
        except (SyncError, KubeError, aiohttp.ClientError, TimeoutError) as error:
            log.info("sync of %s failed: %s", key, error)
            if kind == "service":
                self._retry(key)

    def _usable(self) -> list[Object]:
        return [node for node in self.nodes.values() if triggers.usable(node)]

    async def _sync(self, key: str) -> None:
        service = self.services.get(key)
        if service is None:
            self._known.pop(key, None)
            return
        self._known[key] = service
        try:
            if not triggers.wants(service) or triggers.needs_cleanup(service):
                await self._clean_up(service)
                self._known.pop(key, None)
            else:
                await self._ensure(key, service)
        except SyncError as error:
            text = f"Error syncing load balancer: {error}"
            await self.events.warning(service, "SyncLoadBalancerFailed", text)
            raise

    async def _ensure(self, key: str, service: Object) -> None:
        await self.events.normal(service, "EnsuringLoadBalancer", "Ensuring load balancer")
        if not triggers.has_finalizer(service):
            await self._patch(service, {"metadata": {"finalizers": [triggers.FINALIZER]}})
        nodes = self._usable()
        if not nodes:
            text = "There are no available nodes for LoadBalancer"
            await self.events.warning(service, "UnAvailableLoadBalancer", text)
        self._last_nodes[key] = nodes
        try:
            ingress = await self.balancer.ensure(service, nodes)
        except SyncError as error:
            raise SyncError(f"failed to ensure load balancer: {error}") from error
        await self.events.normal(service, "EnsuredLoadBalancer", "Ensured load balancer")
        await self._patch_status(service, ingress)

    async def _clean_up(self, service: Object) -> None:
        """Without an address in the status nothing is found, the finalizer goes, and a NodeBalancer leaks."""
        if await self.balancer.find(service) is not None:
            await self.events.normal(service, "DeletingLoadBalancer", "Deleting load balancer")
            try:
                await self.balancer.delete(service)
            except SyncError as error:
                raise SyncError(f"failed to delete load balancer: {error}") from error
        if triggers.has_finalizer(service):
            patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [triggers.FINALIZER]}}
            await self._patch(service, patch)
        await self.events.normal(service, "DeletedLoadBalancer", "Deleted load balancer")
        await self._patch_status(service, [])

    async def _sync_gone(self, key: str) -> None:
        service = self._gone.pop(key, None)
        if service is not None:
            await self.balancer.delete(service)

    async def _sync_nodes(self) -> None:
        for key, service in list(self._known.items()):
            if not triggers.wants(service):
                continue
            new, old = self._usable(), [n for n in self._last_nodes.get(key, []) if triggers.usable(n)]
            self._last_nodes[key] = new
            if triggers.same_nodes(old, new):
                continue
            try:
                await self.balancer.update(service, new)
                text = "Updated load balancer with new hosts"
                await self.events.normal(service, "UpdatedLoadBalancer", text)
            except SyncError as error:
                await self._nodes_failed(key, service, new, error)

    async def _nodes_failed(self, key: str, service: Object, nodes: list[Object], error: SyncError) -> None:
        """Only an error while the load balancer exists counts; the service queue takes over."""
        with contextlib.suppress(SyncError):
            if await self.balancer.find(service) is None:
                return
        text = f"Error updating load balancer with new hosts {[n['metadata']['name'] for n in nodes]}"
        await self.events.warning(service, "UpdateLoadBalancerFailed", f"{text}, error: {error}")
        self._enqueue(("service", key))

    async def _patch(self, service: Object, patch: Json) -> None:
        metadata = service["metadata"]
        await self.kube.patch_service_status(metadata["namespace"], metadata["name"], patch)

    async def _patch_status(self, service: Object, ingress: list[dict[str, str]]) -> None:
        before = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        plain = [{k: v for k, v in one.items() if k in ("ip", "hostname")} for one in before]
        if plain == ingress:
            return
        try:
            await self._patch(service, {"status": {"loadBalancer": {"ingress": ingress or None}}})
        except KubeError as error:
            if error.status != 404:
                raise
