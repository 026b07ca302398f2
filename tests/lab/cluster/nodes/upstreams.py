"""Engine and chat behind real gateways: one stand-in per sandbox, which answers while the pods run."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from lab.cluster.nodes.mounts import Read
from lab.envoy.upstream import Upstream

_LABEL_SANDBOX = "sandbox.linode.com/name"
_KEY_VARIABLE = "VLLM_API_KEY"
#: The ready engine pod of a sandbox, by namespace and name.
FindEngine = Callable[[str, str], Mapping[str, Any] | None]


class Upstreams:
    """Stand-ins by namespace and sandbox.

    Args:
        read: the API server.

    Attributes:
        find_engine: set by the owner of the pods.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._made: dict[tuple[str, str], Upstream] = {}
        self.find_engine: FindEngine = lambda _namespace, _sandbox: None

    async def ports(self, namespace: str, labels: Mapping[str, str]) -> Mapping[str, int]:
        """Port on 127.0.0.1 by cluster, of the sandbox that the labels name."""
        key = namespace, labels.get(_LABEL_SANDBOX, "")
        async with self._lock:
            if key not in self._made:
                made = Upstream(lambda: self._engine_key(*key))
                await made.start()
                self._made[key] = made
        return self._made[key].ports

    def seen(self, namespace: str, sandbox: str) -> list[dict[str, Any]]:
        """What reached engine and chat of a sandbox."""
        made = self._made.get((namespace, sandbox))
        return [asdict(one) for one in made.seen] if made else []

    async def stop(self) -> None:
        """End all."""
        for made in self._made.values():
            await made.stop()

    async def _engine_key(self, namespace: str, sandbox: str) -> str | None:
        """What the engine's container has in its environment; None while no engine is ready."""
        pod = self.find_engine(namespace, sandbox)
        for variable in pod["spec"]["containers"][0].get("env") or () if pod else ():
            if variable["name"] == _KEY_VARIABLE:
                source = variable["valueFrom"]["secretKeyRef"]
                secret = await self._read(f"/api/v1/namespaces/{namespace}/secrets/{source['name']}")
                return base64.b64decode((secret or {})["data"][source["key"]]).decode() if secret else None
        return None
