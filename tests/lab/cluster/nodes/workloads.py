"""What runs in the pods: in gateways a stand-in, or a real Envoy with a stand-in for chat behind it; in
engines the stand-in for vLLM; in fetch pods nothing, or the real fetch.

The kubelet tells when containers start, change and end; what really runs tells back whether it is
ready, as a behaviour. Pods of other components run nothing.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from lab.cluster.nodes import mounts
from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.engines import Engines
from lab.cluster.nodes.envoys import EnvoyPod
from lab.cluster.nodes.fetches import Fetches
from lab.cluster.nodes.gateway import CONFIG_PATH, StandIn
from lab.cluster.nodes.lifecycle import Times
from lab.cluster.nodes.upstreams import Upstreams

log = logging.getLogger("lab.nodes")

_LABEL_COMPONENT = "app.kubernetes.io/component"
_DEFAULT_GRACE = 30.0


class Workloads:
    """Processes of the pods, by UID.

    Args:
        read: the API server.
        behaviour_of: the rule for a pod.
        folder: for the files of real Envoys; None: stand-ins only.
        volumes: for the content of claims; None: a temporary directory.
        ready: seconds of an engine's usual start.

    Attributes:
        engines: the engine pods.
        fetches: the fetch pods that really fetch.
        mounts: the Secrets in the pods.
        kick: called with the UID of a pod that the kubelet is to look at.
    """

    def __init__(
        self,
        read: mounts.Read,
        behaviour_of: Callable[[Mapping[str, Any]], Behaviour],
        folder: pathlib.Path | None = None,
        volumes: pathlib.Path | None = None,
        ready: float = Times().ready,
    ) -> None:
        self._folder = folder
        self.engines = Engines(read, behaviour_of, ready)
        self.fetches = Fetches(read, behaviour_of, volumes)
        self._stand_ins: dict[str, StandIn] = {}
        self._envoys: dict[str, EnvoyPod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock: socket.socket | None = None
        self.mounts = mounts.Mounts(read, lambda pod: behaviour_of(pod).status == "frozen")
        self.upstreams = Upstreams(self.engines)
        self.kick: Callable[[str], None] = lambda _uid: None
        self.prefix = ""
        if folder is not None:
            self._lock, self.prefix = _claim()

    def started(self, pod: Mapping[str, Any], address: str) -> None:
        """The containers start, or start again."""
        uid = pod["metadata"]["uid"]
        if self.fetches.wants(pod):
            self._spawn(self.fetches.start(pod, lambda: self.kick(uid)))
        self.engines.start(pod, lambda: self.kick(uid))
        if not _is_gateway(pod):
            return
        if self._folder is None:
            if uid not in self._stand_ins:
                stand_in = self._stand_ins[uid] = StandIn()
                wanted = tuple(volume for volume in mounts.volumes(pod) if volume.path == CONFIG_PATH)
                self._spawn(self.mounts.add(pod, wanted, stand_in.mount))
        else:
            self._spawn(self._start(pod, address, self._folder))

    async def _start(self, pod: Mapping[str, Any], address: str, folder: pathlib.Path) -> None:
        uid, namespace = pod["metadata"]["uid"], pod["metadata"]["namespace"]
        if uid not in self._envoys:
            ports = await self.upstreams.ports(namespace, pod["metadata"]["labels"])
            envoy = EnvoyPod(
                pod, self.loopback(address), folder / pod["metadata"]["name"], ports, lambda: self.kick(uid)
            )
            self._envoys[uid] = envoy
            await self.mounts.add(pod, mounts.volumes(pod), envoy.mount)
        # It may have been deleted meanwhile.
        if (found := self._envoys.get(uid)) is not None:
            await found.start()

    def stopped(self, pod: Mapping[str, Any]) -> None:
        """The containers were ended by a rule."""
        if fetch := self.fetches.find(pod["metadata"]["uid"]):
            fetch.kill()
        if envoy := self._envoys.get(pod["metadata"]["uid"]):
            envoy.kill()

    def changed(self, pod: Mapping[str, Any]) -> None:
        """The pod itself has changed."""
        self.mounts.changed(pod)

    def end(self, pod: Mapping[str, Any]) -> Coroutine[Any, Any, None] | None:
        """The end of a pod that was asked to end, for a pod that takes its time."""
        uid = pod["metadata"]["uid"]
        running = self._envoys.get(uid) or self.fetches.find(uid)
        grace = pod["metadata"].get("deletionGracePeriodSeconds", _DEFAULT_GRACE)
        return running.end(float(grace)) if running else None

    def gone(self, uid: str) -> None:
        """The pod is gone."""
        self.mounts.remove(uid)
        self._stand_ins.pop(uid, None)
        self.fetches.gone(uid)
        self.engines.gone(uid)
        if envoy := self._envoys.pop(uid, None):
            envoy.kill()

    def view(self, pod: Mapping[str, Any], rule: Behaviour) -> Behaviour:
        """The rule, and what really runs where the rule says nothing."""
        uid = pod["metadata"]["uid"]
        rule = self.engines.view(uid, self.fetches.view(uid, rule))
        if self._folder is None or not _is_gateway(pod) or rule.kind != "normal":
            return rule
        envoy = self._envoys.get(pod["metadata"]["uid"])
        if envoy is not None and envoy.exit_code is not None:
            message = envoy.log[-2048:]
            return replace(rule, kind="crash", seconds=0.0, exit_code=envoy.exit_code, message=message)
        if envoy is not None and envoy.ready:
            return replace(rule, seconds=0.0)
        return replace(rule, kind="never-ready")

    def log(self, uid: str) -> str | None:
        """The log of a pod's real process."""
        running = self._envoys.get(uid) or self.fetches.find(uid)
        return running.log if running else self.engines.log(uid)

    def stand_in(self, uid: str) -> StandIn | None:
        """What answers for a gateway pod."""
        return self._stand_ins.get(uid)

    def real(self, uid: str) -> str | None:
        """Where a pod's real process listens."""
        envoy = self._envoys.get(uid)
        return envoy.address if envoy else None

    def loopback(self, address: str) -> str:
        """The loopback address that stands for a pod's address."""
        return f"{self.prefix}.{address.split('.', 2)[2]}"

    async def stop(self) -> None:
        """End everything at once."""
        self.mounts.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for envoy in self._envoys.values():
            envoy.kill()
        self.fetches.stop()
        self.engines.stop()
        await self.upstreams.stop()
        if self._lock is not None:
            self._lock.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a container did not start: %r", error)


def _is_gateway(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("labels") or {}).get(_LABEL_COMPONENT) == "gateway"


def _claim() -> tuple[socket.socket, str]:
    """The first two numbers of loopback addresses that no other lab on this machine uses.

    Envoy shares ports, so that two of them on one address would go unnoticed.
    """
    for second in range(2, 250):
        lock = socket.socket()
        try:
            lock.bind((f"127.{second}.255.254", 9902))
            return lock, f"127.{second}"
        except OSError:
            lock.close()
    raise OSError("every loopback network is in use")
