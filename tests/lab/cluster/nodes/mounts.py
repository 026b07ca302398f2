"""Secrets that are mounted into pods, as old as a kubelet leaves them.

A kubelet brings a changed Secret into a pod when it syncs that pod: at once when the pod itself changes,
and otherwise every 60 to 90 seconds. Here one watch tells which Secrets have changed, and only the pods
that mount one of them get a timer.
Source: kubernetes pkg/kubelet/pod_workers.go (resyncInterval, workerResyncIntervalJitterFactor 0.5).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from lab.cluster.nodes.api import ApiError

log = logging.getLogger("lab.nodes")

Files = dict[str, str]
#: Takes the files of a mounted directory.
Apply = Callable[[str, Files], Awaitable[None]]
#: Reads an object of the API server, or None.
Read = Callable[[str], Awaitable[dict[str, Any] | None]]

#: Two syncs are this many periods apart.
_JITTER = (1.0, 1.5)


@dataclass(frozen=True)
class Volume:
    """A Secret at a path of the container."""

    secret: str
    path: str


def volumes(pod: Mapping[str, Any]) -> tuple[Volume, ...]:
    """The Secrets that the first container mounts as whole directories."""
    names = {v["name"]: v["secret"]["secretName"] for v in pod["spec"].get("volumes") or () if "secret" in v}
    mounts = pod["spec"]["containers"][0].get("volumeMounts") or ()
    return tuple(Volume(names[m["name"]], m["mountPath"]) for m in mounts if m["name"] in names)


def same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a kubelet sees no reason in a new version of a pod to sync it.

    Source: kubernetes pkg/kubelet/config/config.go (podsDifferSemantically).
    """
    keys = ("labels", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds")
    before, after = old["metadata"], new["metadata"]
    return old["spec"] == new["spec"] and all(before.get(key) == after.get(key) for key in keys)


@dataclass
class _Mounted:
    pod: Mapping[str, Any]
    volumes: tuple[Volume, ...]
    apply: Apply
    synced_at: float = float("-inf")
    versions: dict[str, str] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    again: bool = False
    missed: bool = False


class Mounts:
    """All pods that mount Secrets.

    Args:
        read: the API server.
        held: whether a pod does not get changed Secrets for now.
    """

    def __init__(self, read: Read, held: Callable[[Mapping[str, Any]], bool]) -> None:
        self._read = read
        self._held = held
        self._pods: dict[str, _Mounted] = {}
        self._users: dict[str, set[str]] = {}
        self._period = 0.5

    @property
    def period(self) -> float:
        """Seconds between two syncs of a pod that nobody changes; with jitter up to half more."""
        return self._period

    @period.setter
    def period(self, seconds: float) -> None:
        self._period = seconds
        for entry in self._pods.values():
            if entry.timer is not None:
                self._schedule(entry)

    async def add(self, pod: Mapping[str, Any], mounted: tuple[Volume, ...], apply: Apply) -> None:
        """Mount, and keep up to date from now on."""
        uid = pod["metadata"]["uid"]
        entry = self._pods[uid] = _Mounted(pod, mounted, apply)
        for volume in mounted:
            self._users.setdefault(_path(pod, volume), set()).add(uid)
        self._sync(entry)
        if entry.task is not None:
            await asyncio.wait([entry.task])

    def remove(self, uid: str) -> None:
        """The pod is gone."""
        entry = self._pods.pop(uid, None)
        if entry is None:
            return
        for volume in entry.volumes:
            users = self._users[_path(entry.pod, volume)]
            users.discard(uid)
            if not users:
                del self._users[_path(entry.pod, volume)]
        _clear(entry)
        if entry.task is not None:
            entry.task.cancel()

    def changed(self, pod: Mapping[str, Any]) -> None:
        """The pod itself has changed: its kubelet syncs it at once."""
        entry = self._pods.get(pod["metadata"]["uid"])
        if entry is not None:
            entry.pod = pod
            self._sync(entry)

    def on_secret(self, event: str, secret: Mapping[str, Any]) -> None:
        """A Secret has changed; only its metadata is looked at. One that is gone stays mounted."""
        meta = secret["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/secrets/{meta['name']}"
        for uid in self._users.get(path, ()):
            entry = self._pods[uid]
            if event != "DELETED" and entry.versions.get(path) != meta["resourceVersion"]:
                self._schedule(entry)

    def release(self) -> None:
        """Pods that were held may not be any more."""
        for entry in self._pods.values():
            if entry.missed:
                self._schedule(entry)

    def stop(self) -> None:
        """Forget all pods."""
        for uid in list(self._pods):
            self.remove(uid)

    def _schedule(self, entry: _Mounted) -> None:
        """Set the timer for the pod's next regular sync."""
        now = time.monotonic()
        due = entry.synced_at + self._period * random.uniform(*_JITTER)
        if due < now:
            # Syncs without effect were not followed, so any moment may be the next one.
            due = now + self._period * random.uniform(0.0, _JITTER[1])
        _clear(entry)
        entry.timer = asyncio.get_running_loop().call_later(due - now, self._sync, entry)

    def _sync(self, entry: _Mounted) -> None:
        _clear(entry)
        entry.again = True
        if entry.task is None:
            entry.task = asyncio.create_task(self._bring(entry))

    async def _bring(self, entry: _Mounted) -> None:
        try:
            while entry.again:
                entry.again = False
                entry.synced_at = time.monotonic()
                entry.missed = bool(entry.versions) and self._held(entry.pod)
                if entry.missed:
                    return
                for volume in entry.volumes:
                    await self._bring_one(entry, volume)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("mounts of %s: %r", entry.pod["metadata"]["name"], error)
            if entry.pod["metadata"]["uid"] in self._pods:
                self._schedule(entry)
        except Exception:
            log.exception("mounts of %s", entry.pod["metadata"]["name"])
        finally:
            entry.task = None

    async def _bring_one(self, entry: _Mounted, volume: Volume) -> None:
        path = _path(entry.pod, volume)
        secret = await self._read(path)
        if secret is None or entry.versions.get(path) == secret["metadata"]["resourceVersion"]:
            return
        content = (secret.get("data") or {}).items()
        await entry.apply(volume.path, {name: base64.b64decode(value).decode() for name, value in content})
        entry.versions[path] = secret["metadata"]["resourceVersion"]


def _path(pod: Mapping[str, Any], volume: Volume) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{volume.secret}"


def _clear(entry: _Mounted) -> None:
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None
