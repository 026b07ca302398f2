"""Drives the pods of all fake nodes: one watch, one timer per pod, few writes.

A thin shell around `lifecycle` (what comes next), `needs` (what is missing) and `podstatus` (what to
write). Invariant: of one pod at most one `_drive` runs; whatever happens meanwhile makes it go round once
more, so no change is lost and no status is written from an old view.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from lab.cluster.nodes import lifecycle, mounts, needs, podstatus, reports, voices
from lab.cluster.nodes.api import Api, ApiError
from lab.cluster.nodes.behaviour import Behaviour, Behaviours, Selector
from lab.cluster.nodes.lifecycle import Blocked, Phase, State, Times
from lab.cluster.nodes.workloads import Workloads

log = logging.getLogger("lab.nodes")

_RETRY = 0.5
#: Phases in which the containers run.
_UP = (Phase.RUNNING, Phase.READY)
_PODS = "/api/v1/pods"
_COLLECTIONS = {
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}


@dataclass
class Entry:
    """A pod that is bound to one of the nodes.

    Attributes:
        written: what the last written status followed from.
        timer: the next look.
        task: the running `_drive`.
        again: something changed while it ran.
        ending_at: when the deletion that was asked for is carried out.
        told: the Events that were posted.
    """

    pod: dict[str, Any]
    state: State
    pod_ip: str
    needs: tuple[needs.Need, ...]
    written: object = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    again: bool = False
    ending_at: float | None = None
    told: set[str] = field(default_factory=set)

    @property
    def path(self) -> str:
        meta = self.pod["metadata"]
        return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


class Kubelet:
    """All kubelets of the cluster.

    Args:
        api: the API server.
        behaviours: the rules; a change reaches the pods at once.
        times: how long each step takes.
        workloads: what runs in the pods of gateways.

    Attributes:
        hosts: internal address of each node that is served, by name.
    """

    def __init__(self, api: Api, behaviours: Behaviours, times: Times, workloads: Workloads) -> None:
        self._api = api
        self._behaviours = behaviours
        self._times = times
        self._workloads = workloads
        self._entries: dict[str, Entry] = {}
        self._addresses = _pod_addresses()
        self._by_address: dict[str, str] = {}
        self._background: set[asyncio.Task[None]] = set()
        self.hosts: dict[str, str] = {}
        workloads.kick = self._kick_one
        workloads.upstreams.find_engine = self._find_engine
        behaviours.on_change(self.kick_all)

    async def run(self) -> None:
        """Follow the pods of the cluster, for ever."""
        try:
            # Pods that have a node; the scheduler's part is none of ours.
            await self._api.watch(_PODS, self._on_pod, selector="spec.nodeName!=")
        finally:
            for entry in self._entries.values():
                _stop(entry)
            for task in self._background:
                task.cancel()

    def kick_all(self) -> None:
        """Look at every pod again: the rules or the nodes have changed."""
        for entry in self._entries.values():
            self._kick(entry)

    def find(self, namespace: str, name: str) -> tuple[dict[str, Any], State, Behaviour] | None:
        """A pod with its state, for the log server."""
        for uid, entry in self._entries.items():
            meta = entry.pod["metadata"]
            if meta["name"] == name and meta["namespace"] == namespace:
                rule = self._behaviours.of(entry.pod)
                said = self._workloads.log(uid) if rule.log is None else None
                return entry.pod, entry.state, rule if said is None else replace(rule, log=said)
        return None

    def find_address(self, address: str) -> tuple[dict[str, Any], State, Behaviour] | None:
        """The pod with an address, with its state, for the pod network."""
        uid = self._by_address.get(address)
        entry = self._entries.get(uid) if uid else None
        return (entry.pod, entry.state, self._behaviours.of(entry.pod)) if entry else None

    def _find_engine(self, namespace: str, sandbox: str) -> dict[str, Any] | None:
        """A ready engine pod of a sandbox."""
        chosen = Selector(component="engine", namespace=namespace, sandbox=sandbox)
        for entry in self._entries.values():
            if entry.state.phase is Phase.READY and chosen.matches(entry.pod):
                return entry.pod
        return None

    def pods_of(self, node: str) -> list[dict[str, Any]]:
        """The pods of one node."""
        return [entry.pod for entry in self._entries.values() if entry.pod["spec"]["nodeName"] == node]

    def _on_pod(self, event: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        entry = self._entries.get(uid)
        if event == "DELETED":
            if entry is not None:
                _stop(entry)
                del self._entries[uid]
                self._by_address.pop(entry.pod_ip, None)
                self._workloads.gone(uid)
            return
        if entry is None:
            entry = Entry(pod, lifecycle.begin(time.time()), next(self._addresses), needs.of(pod))
            self._entries[uid] = entry
            self._by_address[entry.pod_ip] = uid
            self._kick(entry)
            return
        asked_to_end = "deletionTimestamp" in pod["metadata"] and entry.ending_at is None
        self._take(entry, pod)
        # Most events are the echo of our own writes and need no look.
        if asked_to_end:
            self._kick(entry)

    def _take(self, entry: Entry, pod: dict[str, Any]) -> None:
        """Go on with a newer version of the pod."""
        changed = not mounts.same(entry.pod, pod)
        entry.pod = pod
        if changed:
            self._workloads.changed(pod)

    def _kick_one(self, uid: str) -> None:
        if (entry := self._entries.get(uid)) is not None:
            self._kick(entry)

    def _kick(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.task is not None:
            entry.again = True
        elif entry.pod["spec"]["nodeName"] in self.hosts:
            entry.task = asyncio.create_task(self._drive(entry))

    async def _drive(self, entry: Entry) -> None:
        """Bring the pod to where it should be now, then set its timer."""
        delay: float | None = None
        try:
            entry.again = True
            while entry.again:
                entry.again = False
                due = await self._look(entry)
                delay = None if due is None else due - time.time()
                entry.again |= delay is not None and delay <= 0
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            gone = isinstance(error, ApiError) and error.status in (404, 409)
            log.log(logging.DEBUG if gone else logging.WARNING, "%s: %r", entry.path, error)
            delay = _RETRY
        except Exception:
            log.exception("%s", entry.path)
        finally:
            entry.task = None
        uid = entry.pod["metadata"]["uid"]
        if delay is not None and uid in self._entries:
            entry.timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._kick, entry)

    async def _look(self, entry: Entry) -> float | None:
        """One step of the pod; when to look again."""
        if "deletionTimestamp" in entry.pod["metadata"]:
            return await self._end(entry)
        over = (entry.pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if over or entry.pod["spec"]["nodeName"] not in self.hosts:
            return None
        behaviour = self._workloads.view(entry.pod, self._behaviours.of(entry.pod))
        blocked = await self._blocked(entry)
        before = entry.state
        entry.state, due = lifecycle.advance(
            before, entry.pod, behaviour, time.time(), times=self._times, blocked=blocked
        )
        if entry.state.last is not None and entry.state.last is not before.last:
            finished = voices.finish(entry.pod, entry.state.last, behaviour)
            entry.state = replace(entry.state, last=finished)
        if entry.state != before:
            self._run(entry, before)
            self._report(entry, behaviour)
        if lifecycle.worth_telling(entry.state, self._times):
            await self._write(entry, behaviour)
        return due

    def _run(self, entry: Entry, before: State) -> None:
        """Tell the workloads what has become of the containers."""
        if entry.state.phase not in _UP:
            if before.phase in _UP:
                self._workloads.stopped(entry.pod)
        elif entry.state.started != before.started:
            self._workloads.started(entry.pod, entry.pod_ip)

    async def _write(self, entry: Entry, behaviour: Behaviour) -> None:
        # The message of a wait is the rule's, so it belongs to what a status follows from.
        key = (entry.state, behaviour.message if entry.state.phase in lifecycle.WAITING else None)
        if entry.written == key:
            return
        place = podstatus.Place(self.hosts[entry.pod["spec"]["nodeName"]], entry.pod_ip)
        status = podstatus.build(entry.pod, entry.state, behaviour, place)
        body = {"metadata": {"uid": entry.pod["metadata"]["uid"]}, "status": status}
        before = entry.pod
        answer = await self._api.patch(f"{entry.path}/status", body)
        entry.written = key
        # A newer version, such as one that is to be deleted, may have come by the watch meanwhile.
        if entry.pod is before:
            self._take(entry, answer)

    async def _blocked(self, entry: Entry) -> Blocked | None:
        """What the pod lacks; looked up only while its containers have not started."""
        state = entry.state
        if not entry.needs or state.phase not in (Phase.CREATING, Phase.CONFIG_ERROR):
            return None
        if state.blocked is None and time.time() < state.since + self._times.creating:
            return None
        namespace = entry.pod["metadata"]["namespace"]
        wanted = list(needs.objects(entry.needs))
        found = await asyncio.gather(
            *(
                self._api.get_or_none(f"/api/v1/namespaces/{namespace}/{_COLLECTIONS[kind]}/{name}")
                for kind, name in wanted
            )
        )
        return needs.first_unmet(entry.needs, dict(zip(wanted, found, strict=True)), namespace)

    async def _end(self, entry: Entry) -> float | None:
        """Carry out a deletion that was asked for."""
        now = time.time()
        if entry.ending_at is None:
            entry.ending_at = now + self._times.ending
            if (goodbye := self._workloads.end(entry.pod)) is not None:
                entry.ending_at = math.inf
                self._spawn(self._await_end(entry, goodbye))
        if now < entry.ending_at:
            return entry.ending_at if entry.ending_at < math.inf else None
        if lifecycle.completes(entry.pod) and entry.state.phase is Phase.RUNNING:
            # A Job counts a pod only when it has seen how it ended.
            stopped = lifecycle.End(143, "Error", None, entry.state.started, now)
            entry.state = replace(entry.state, phase=Phase.FAILED, since=now, last=stopped)
            await self._write(entry, self._behaviours.of(entry.pod))
        await self._api.delete(entry.path, uid=entry.pod["metadata"]["uid"], grace=0)
        # A finalizer may hold it; then there is nothing left to do but to wait for DELETED.
        return None

    async def _await_end(self, entry: Entry, goodbye: Coroutine[Any, Any, None]) -> None:
        try:
            await goodbye
        finally:
            entry.ending_at = time.time()
            self._kick(entry)

    def _report(self, entry: Entry, behaviour: Behaviour) -> None:
        """Tell what went wrong as an Event, each thing once, for people who describe the pod."""
        event = reports.build(entry.pod, entry.state, behaviour, time.time())
        if event is None or (what := f"{event['reason']}: {event['message']}") in entry.told:
            return
        entry.told.add(what)
        self._spawn(self._post_event(entry.pod["metadata"]["namespace"], event))

    async def _post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        try:
            await self._api.post(f"/api/v1/namespaces/{namespace}/events", event)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("event: %r", error)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _stop(entry: Entry) -> None:
    if entry.timer is not None:
        entry.timer.cancel()
    if entry.task is not None:
        entry.task.cancel()


def _pod_addresses() -> Iterator[str]:
    """Addresses of pods, none twice among the last 64,000."""
    while True:
        for third in range(256):
            for fourth in range(1, 251):
                yield f"10.2.{third}.{fourth}"
