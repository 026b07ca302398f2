"""Engine and chat behind real gateways: one stand-in per sandbox, which answers while the pods run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from lab.cluster.nodes.engines import Engines
from lab.envoy.upstream import Upstream

_LABEL_SANDBOX = "sandbox.linode.com/name"
_ENGINE_PORT = 8000
#: The ready engine pod of a sandbox, by namespace and name.
FindEngine = Callable[[str, str], Mapping[str, Any] | None]


class Upstreams:
    """Stand-ins by namespace and sandbox.

    Args:
        engines: what runs in the engine pods.

    Attributes:
        find_engine: set by the owner of the pods.
    """

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._lock = asyncio.Lock()
        self._made: dict[tuple[str, str], Upstream] = {}
        self.find_engine: FindEngine = lambda _namespace, _sandbox: None

    async def ports(self, namespace: str, labels: Mapping[str, str]) -> Mapping[str, int]:
        """Port on 127.0.0.1 by cluster, of the sandbox that the labels name."""
        key = namespace, labels.get(_LABEL_SANDBOX, "")
        async with self._lock:
            if key not in self._made:
                made = Upstream(lambda request: self._answer(request, *key))
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

    async def _answer(
        self, request: web.BaseRequest, namespace: str, sandbox: str
    ) -> web.StreamResponse | None:
        """The answer of the sandbox's engine; None while no engine is ready."""
        pod = self.find_engine(namespace, sandbox)
        run = self._engines.at(pod["metadata"]["uid"], _ENGINE_PORT) if pod else None
        return await run.answer(request, request.path) if run else None
