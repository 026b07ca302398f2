"""What appeared when, on both APIs, as the operator and the cloud controller manager wrote it."""

from __future__ import annotations

import time
from typing import Any

from lab.linode import Write
from lab.proxy import Exchange
from lab.world import World

_NOTES = {
    "NetworkPolicy": "who may talk to the pods, before there are any",
    "Cloud Firewall created": "rules in place from the first instant",
    "Job": "downloads the model on a CPU node; no GPU is used yet",
    "Deployment": "pods",
    "PersistentVolumeClaim": "disk",
    "Secret": "keys, certificate, gateway configuration",
    "Service": "a name inside the cluster",
    "PodDisruptionBudget": "a gateway stays up while nodes are drained",
    "NodeBalancer created": "the public address, with the firewall attached",
}


class Timeline:
    """Collects creations of one sandbox from now on."""

    def __init__(self, world: World, name: str) -> None:
        self._name = name
        self._rows: list[tuple[float, str, Any]] = []
        world.proxy.on_write(self._kubernetes)
        world.linode.on_write(self._linode)

    def labels(self) -> list[str]:
        """Labels in order of appearance."""
        return [label for _, label, _ in self._rows]

    def body(self, label: str) -> Any:
        """What was written first under a label."""
        return next(body for _, found, body in self._rows if found == label)

    def rows(self) -> list[tuple[float, str, str]]:
        """Monotonic time, label and note."""
        return [(at, label, self._note(label)) for at, label, _ in self._rows]

    def _note(self, label: str) -> str:
        if label == f"Service {self._name}":
            return "asks for the public address; carries the firewall's id"
        return _NOTES.get(label) or _NOTES.get(label.split()[0], "")

    def _kubernetes(self, exchange: Exchange) -> None:
        body = exchange.body
        if exchange.method != "POST" or not isinstance(body, dict) or not exchange.counted:
            return
        name = body["metadata"]["name"]
        if name == self._name or name.startswith(f"{self._name}-"):
            self._rows.append((time.monotonic(), f"{body['kind']} {name}", body))

    def _linode(self, write: Write) -> None:
        if write.entry is None or write.entry.method != "POST":
            return
        label = {"/networking/firewalls": "Cloud Firewall created", "/nodebalancers": "NodeBalancer created"}
        if write.entry.path in label:
            self._rows.append((time.monotonic(), label[write.entry.path], write.entry.body))
