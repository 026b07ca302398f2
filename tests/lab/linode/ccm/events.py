"""Events on a Service, as the service controller records them; a repeated one grows its count."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp

from lab.linode.ccm.kube import Kube, KubeError
from lab.linode.errors import Json

COMPONENT = "service-controller"


class Recorder:
    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self._seen: dict[tuple[str, str, str], tuple[str, int]] = {}

    async def normal(self, service: Mapping[str, Json], reason: str, message: str) -> None:
        await self._record(service, "Normal", reason, message)

    async def warning(self, service: Mapping[str, Json], reason: str, message: str) -> None:
        await self._record(service, "Warning", reason, message)

    async def _record(self, service: Mapping[str, Json], kind: str, reason: str, message: str) -> None:
        """Events are best effort: a cluster that refuses one does not stop a sync."""
        metadata = service["metadata"]
        key = (str(metadata.get("uid")), reason, message)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with contextlib.suppress(KubeError, aiohttp.ClientError, TimeoutError):
            if key in self._seen:
                name, count = self._seen[key]
                self._seen[key] = (name, count + 1)
                patch = {"count": count + 1, "lastTimestamp": now}
                await self.kube.patch_event(metadata["namespace"], name, patch)
                return
            name = f"{metadata['name']}.{uuid.uuid4().hex[:16]}"
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata.get("uid"),
                    "resourceVersion": metadata.get("resourceVersion"),
                },
                "type": kind,
                "reason": reason,
                "message": message[:1024],
                "source": {"component": COMPONENT},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
            await self.kube.create_event(metadata["namespace"], event)
            self._seen[key] = (name, 1)
