"""Linode's block storage without volumes: a provisioner that makes PersistentVolumes out of nothing.

Binding stays with the controller manager, as in a real cluster; this makes the volume it binds, grows it
and deletes it. Decisions are functions of the objects alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from lab.cluster.nodes import reports
from lab.cluster.nodes.api import Api, ApiError

log = logging.getLogger("lab.nodes")

PROVISIONER = "linodebs.csi.linode.com"
CLASSES = {"linode-block-storage": "Delete", "linode-block-storage-retain": "Retain"}
_DEFAULT = "linode-block-storage-retain"
_GI = 1024**3
MINIMUM = 10 * _GI
_UNITS = {"Ki": 1024, "Mi": 1024**2, "Gi": _GI, "Ti": 1024**4, "k": 1000, "M": 10**6, "G": 10**9, "T": 10**12}
_MODES = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
_RETRY = 0.5


def size(quantity: str) -> int:
    """Bytes of a Kubernetes quantity of storage."""
    for unit, factor in _UNITS.items():
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * factor)
    return int(float(quantity))


def volume_size(claim: Mapping[str, Any]) -> str:
    """The size of the volume: whole GiB, at least Linode's minimum."""
    asked = size(claim["spec"]["resources"]["requests"]["storage"])
    return f"{-(-max(asked, MINIMUM) // _GI)}Gi"


def storage_class(name: str) -> dict[str, Any]:
    """One of the two classes every cluster has; the retaining one is the default."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": name,
            "annotations": {"storageclass.kubernetes.io/is-default-class": str(name == _DEFAULT).lower()},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": CLASSES[name],
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True,
    }


def volume(claim: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The volume for a claim, reserved for it alone."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{meta['uid']}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": volume_size(claim)},
            "accessModes": spec["accessModes"],
            "volumeMode": spec.get("volumeMode", "Filesystem"),
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": CLASSES[spec["storageClassName"]],
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "csi": {
                "driver": PROVISIONER,
                "volumeHandle": f"{number}-{name.replace('-', '')[:30]}",
                "fsType": "ext4",
            },
        },
    }


def refusal(claim: Mapping[str, Any]) -> str | None:
    """Why no volume can be made for the claim."""
    wrong = [mode for mode in claim["spec"]["accessModes"] if mode not in _MODES]
    if not wrong:
        return None
    return (
        f'failed to provision volume with StorageClass "{claim["spec"]["storageClassName"]}": rpc error: '
        f"code = InvalidArgument desc = unsupported access mode: {', '.join(wrong)}"
    )


def is_new(claim: Mapping[str, Any]) -> bool:
    """Whether the claim waits for a volume of ours."""
    return (
        claim["spec"].get("storageClassName") in CLASSES
        and not claim["spec"].get("volumeName")
        and "deletionTimestamp" not in claim["metadata"]
    )


def grown(claim: Mapping[str, Any]) -> str | None:
    """The size to which a bound volume of ours has to grow; None when it is large enough."""
    status = claim.get("status") or {}
    if claim["spec"].get("storageClassName") not in CLASSES or status.get("phase") != "Bound":
        return None
    wanted = volume_size(claim)
    return wanted if size(wanted) > size(status.get("capacity", {}).get("storage", "0")) else None


def is_garbage(one: Mapping[str, Any]) -> bool:
    """Whether a volume of ours has lost its claim and is not to be kept."""
    spec = one["spec"]
    return (
        (spec.get("csi") or {}).get("driver") == PROVISIONER
        and (one.get("status") or {}).get("phase") == "Released"
        and spec.get("persistentVolumeReclaimPolicy") == "Delete"
        and "deletionTimestamp" not in one["metadata"]
    )


class Storage:
    """Follows claims and volumes of the cluster."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._last_number = 9000
        self._told: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def install(self) -> None:
        """Create the StorageClasses, unless they are there."""
        for name in CLASSES:
            try:
                await self._api.post("/apis/storage.k8s.io/v1/storageclasses", storage_class(name))
            except ApiError as error:
                if error.status != 409:
                    raise

    async def run(self) -> None:
        """Provision for ever."""
        try:
            await asyncio.gather(
                self._api.watch("/api/v1/persistentvolumeclaims", self._on_claim),
                self._api.watch("/api/v1/persistentvolumes", self._on_volume),
            )
        finally:
            for task in list(self._tasks.values()):
                task.cancel()

    def _on_claim(self, event: str, claim: dict[str, Any]) -> None:
        uid = claim["metadata"]["uid"]
        if event == "DELETED":
            self._told.discard(uid)
        elif is_new(claim):
            if (why := refusal(claim)) is None:
                self._last_number += 1
                body = volume(claim, self._last_number)
                self._once(f"make {uid}", lambda: self._api.post("/api/v1/persistentvolumes", body))
            elif uid not in self._told:
                self._told.add(uid)
                self._once(f"tell {uid}", lambda: self._tell(claim, why))
        elif (target := grown(claim)) is not None:
            self._once(f"grow {uid}", lambda: self._grow(claim, target))

    def _on_volume(self, event: str, one: dict[str, Any]) -> None:
        if event != "DELETED" and is_garbage(one):
            name = one["metadata"]["name"]
            self._once(f"delete {name}", lambda: self._api.delete(f"/api/v1/persistentvolumes/{name}"))

    async def _grow(self, claim: Mapping[str, Any], target: str) -> None:
        capacity = {"capacity": {"storage": target}}
        volume_path = f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}"
        await self._api.patch(volume_path, {"spec": capacity})
        meta = claim["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/persistentvolumeclaims/{meta['name']}/status"
        await self._api.patch(path, {"status": {**capacity, "conditions": None}})

    async def _tell(self, claim: Mapping[str, Any], message: str) -> None:
        about = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | {
            key: claim["metadata"][key] for key in ("namespace", "name", "uid")
        }
        body = reports.event(about, "ProvisioningFailed", message, time.time(), component=PROVISIONER)
        await self._api.post(f"/api/v1/namespaces/{about['namespace']}/events", body)

    def _once(self, key: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run `work` until it succeeds, unless the same already runs."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._insist(key, work))

    async def _insist(self, key: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            while not await self._attempt(key, work):
                await asyncio.sleep(_RETRY)
        finally:
            del self._tasks[key]

    async def _attempt(self, key: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Whether that is the end of it; a refusal is, a broken connection is not."""
        try:
            await work()
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            # What is there already, or gone already, is what was wanted.
            settled = isinstance(error, ApiError) and error.status in (404, 409)
            log.log(logging.DEBUG if settled else logging.WARNING, "%s: %s", key, error)
            return isinstance(error, ApiError) and error.status < 500 and error.status != 429
        return True
