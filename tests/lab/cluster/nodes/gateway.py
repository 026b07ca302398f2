"""What a gateway pod would say of itself, from the Secret that it mounts.

Only the lines that tell which route configurations are served: name and form are those of the real
Envoy (tests/unit/lab_nodes compares them). The files are as old as the kubelet's last sync: it reads
mounted Secrets once in a while, and at once when the pod itself is changed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any


class StandIn:
    """One gateway pod."""

    def __init__(self) -> None:
        self._revisions: dict[str, str] = {}
        self._synced_at = float("-inf")
        self._annotations: object = None
        self._lock = asyncio.Lock()

    async def sync(
        self,
        pod: Mapping[str, Any],
        read: Callable[[str], Awaitable[dict[str, Any] | None]],
        period: float,
    ) -> None:
        """Read the mounted Secret again if it is time to."""
        async with self._lock:
            annotations = pod["metadata"].get("annotations")
            if time.monotonic() - self._synced_at < period and annotations == self._annotations:
                return
            secret = await read(_secret_path(pod))
            self._synced_at, self._annotations = time.monotonic(), annotations
        for name, value in ((secret or {}).get("data") or {}).items():
            if not name.startswith("rds-"):
                continue
            try:
                document = json.loads(base64.b64decode(value))
                (resource,) = document["resources"]
                self._revisions[resource["name"]] = document["version_info"]
            except (ValueError, KeyError, TypeError):
                continue  # what is served stays

    def statistics(self, *, readouts: bool, pattern: str = "") -> str:
        """The answer to /stats/prometheus."""
        if not readouts or not re.search(pattern, "http.x.rds.x.version_text"):
            return ""
        lines = [
            f'envoy_http_rds_version_text{{envoy_rds_route_config="{name}",'
            f'envoy_http_conn_manager_prefix="{name}",text_value="{revision}"}} 0'
            for name, revision in sorted(self._revisions.items())
        ]
        return "\n".join(["# TYPE envoy_http_rds_version_text gauge", *lines, ""]) if lines else ""


def _secret_path(pod: Mapping[str, Any]) -> str:
    mounted = {volume["name"]: volume.get("secret") for volume in pod["spec"]["volumes"]}
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{mounted['config']['secretName']}"
