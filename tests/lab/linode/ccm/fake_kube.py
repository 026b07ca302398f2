"""Just enough of a cluster in memory for the stand-in: Services, Nodes, Secrets, Events, watches, finalizers.

For tests that judge the cloud controller manager and need no API server. Admission, defaulting and
conflicts do not exist here; node ports are given out in order.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from lab.linode.ccm.kube import KubeError
from lab.linode.errors import Json

Key = tuple[str, str]  # namespace, name


class FakeKube:
    def __init__(self, first_node_port: int = 30711) -> None:
        self.objects: dict[str, dict[Key, dict[str, Json]]] = {"services": {}, "nodes": {}, "secrets": {}}
        self.events: list[dict[str, Json]] = []
        self._watchers: list[tuple[str, asyncio.Queue[tuple[str, Json]]]] = []
        self._versions = itertools.count(1)
        self._node_ports = itertools.count(first_node_port)

    # -- as a user -----------------------------------------------------------------------------------------

    def apply(self, plural: str, given: Mapping[str, Json]) -> dict[str, Json]:
        """Create or replace; status and identity of what is there stay."""
        thing = copy.deepcopy(dict(given))
        metadata = thing["metadata"] = dict(thing["metadata"])
        key = (metadata.setdefault("namespace", "default" if plural != "nodes" else ""), metadata["name"])
        old = self.objects[plural].get(key)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        if old is not None:
            thing.setdefault("status", old.get("status", {}))
            metadata.setdefault("finalizers", list(old["metadata"].get("finalizers") or []))
        for index, port in enumerate(thing.get("spec", {}).get("ports") or []):
            known = old["spec"]["ports"][index : index + 1] if old else []
            default = known[0]["nodePort"] if known else next(self._node_ports)
            port.setdefault("nodePort", default)
        self._store(plural, key, thing, "ADDED" if old is None else "MODIFIED")
        return thing

    def delete(self, plural: str, name: str, namespace: str = "default") -> None:
        key = (namespace if plural != "nodes" else "", name)
        thing = copy.deepcopy(self.objects[plural][key])
        if thing["metadata"].get("finalizers"):
            thing["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._store(plural, key, thing, "MODIFIED")
        else:
            del self.objects[plural][key]
            self._tell(plural, "DELETED", thing)

    def service(self, name: str, namespace: str = "default") -> dict[str, Json] | None:
        return self.objects["services"].get((namespace, name))

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events]

    # -- as an API server ----------------------------------------------------------------------------------

    def _store(self, plural: str, key: Key, thing: dict[str, Json], kind: str) -> None:
        thing["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[plural][key] = thing
        self._tell(plural, kind, thing)

    def _tell(self, plural: str, kind: str, thing: Json) -> None:
        for wanted, queue in self._watchers:
            if wanted == plural:
                queue.put_nowait((kind, copy.deepcopy(thing)))

    async def list_all(self, plural: str) -> tuple[list[Json], str]:
        return copy.deepcopy(list(self.objects[plural].values())), "0"

    async def watch(self, plural: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        queue: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        entry = (plural, queue)
        self._watchers.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(entry)

    async def get(self, plural: str, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects[plural].get((namespace, name)))

    async def patch_service_status(self, namespace: str, name: str, patch: Json) -> None:
        key = (namespace, name)
        if key not in self.objects["services"]:
            raise KubeError(404, f'services "{name}" not found')
        thing = copy.deepcopy(self.objects["services"][key])
        self._merge(thing, patch)
        if thing["metadata"].get("deletionTimestamp") and not thing["metadata"].get("finalizers"):
            del self.objects["services"][key]
            self._tell("services", "DELETED", thing)
            return
        self._store("services", key, thing, "MODIFIED")

    @staticmethod
    def _merge(thing: dict[str, Any], patch: Mapping[str, Any]) -> None:
        metadata = patch.get("metadata", {})
        present = list(thing["metadata"].get("finalizers") or [])
        present += [f for f in metadata.get("finalizers", []) if f not in present]
        gone = metadata.get("$deleteFromPrimitiveList/finalizers", [])
        thing["metadata"]["finalizers"] = [f for f in present if f not in gone]
        if "status" in patch:
            ingress = patch["status"]["loadBalancer"]["ingress"]
            thing["status"] = {"loadBalancer": {"ingress": ingress} if ingress else {}}

    async def create_event(self, namespace: str, event: Json) -> None:
        self.events.append(copy.deepcopy(event))

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        for event in self.events:
            if event["metadata"]["name"] == name:
                event.update(patch)
