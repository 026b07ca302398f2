"""A provisioner of volumes: a folder of the node per claim, made when the scheduler has chosen the node.

Volumes are of type `local`, to which the kubelet gives a pod's fsGroup, as it does with a disk of Linode's. Their
size is neither enforced nor changed.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable
from typing import Any

from lab.node import manifests

_SELECTED = "volume.kubernetes.io/selected-node"
_PERIOD = 0.5
Object = dict[str, Any]
#: As `ControlPlane.kubectl`.
Kubectl = Callable[..., str]


class Provisioner:
    """Runs in a thread between `start` and `stop`."""

    def __init__(self, kubectl: Kubectl, folder: pathlib.Path, node: str) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self._node = node
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="provisioner", daemon=True)
        self.errors: list[str] = []

    def start(self) -> None:
        self._folder.mkdir()
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._ending.wait(_PERIOD):
            try:
                self._pass()
            except (RuntimeError, OSError) as error:
                self.errors.append(str(error))

    def _pass(self) -> None:
        text = self._kubectl("get", "persistentvolumeclaims,persistentvolumes", "-A", "-o", "json")
        items = json.loads(text)["items"]
        volumes = {one["metadata"]["name"]: one for one in items if one["kind"] == "PersistentVolume"}
        for claim in items:
            if claim["kind"] == "PersistentVolumeClaim":
                self._serve(claim, volumes)
        for name, volume in volumes.items():
            released = volume.get("status", {}).get("phase") == "Released"
            if released and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                self._kubectl("delete", "persistentvolume", name, "--wait=false", "--ignore-not-found")
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def _serve(self, claim: Object, volumes: Iterable[str]) -> None:
        spec, metadata = claim["spec"], claim["metadata"]
        name = f"pvc-{metadata['uid']}"
        chosen = (metadata.get("annotations") or {}).get(_SELECTED) == self._node
        if spec.get("storageClassName") not in manifests.CLASSES or not chosen or name in volumes:
            return
        (self._folder / name).mkdir(exist_ok=True)
        self._kubectl("create", "-f", "-", stdin=json.dumps(self._volume(name, claim)))

    def _volume(self, name: str, claim: Object) -> Object:
        spec, metadata = claim["spec"], claim["metadata"]
        on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self._node]}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": name,
                "annotations": {"pv.kubernetes.io/provisioned-by": manifests.PROVISIONER},
            },
            "spec": {
                "accessModes": spec["accessModes"],
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
                "local": {"path": str(self._folder / name)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
                "persistentVolumeReclaimPolicy": manifests.CLASSES[spec["storageClassName"]],
                "storageClassName": spec["storageClassName"],
            },
        }
