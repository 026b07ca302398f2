"""Judges an engine's updates from outside: what is told against what the pods do, and what was ever run.

Reads the API server by itself and knows nothing of the operator's renderers, annotations or memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds
from lab.world import World

Object = dict[str, Any]
#: Seconds by which Ready may be late: the time that events take.
LATE = 2.5


class EngineObserver:
    """Attach once the sandbox exists.

    Attributes:
        violations: instants at which Ready was True and no engine pod had been ready for longer than `late`.
        longest: the longest such time in seconds, tolerated or not.
        images: each configuration (image, arguments) that the Deployment was seen with, in order.
        looks: number of instants that were judged.
    """

    def __init__(self, world: World, name: str, *, late: float = LATE) -> None:
        self.violations: list[str] = []
        self.longest = 0.0
        self.images: list[tuple[str, tuple[str, ...]]] = []
        self.looks = 0
        self._world = world
        self._name = name
        self._late = late
        self._bare_since: float | None = None

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look all the time within the block, for the first time before it."""
        await self._look()
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
        failure = results[0]
        if isinstance(failure, Exception):
            raise failure

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        # Ready first: a pod that ends in between is then held against nobody.
        ready = (await self._world.condition(self._name, "Ready"))["status"] == "True"
        pods = await self._world.pods(self._name, "engine")
        deployment = await self._world.get(kinds.DEPLOYMENT, f"{self._name}-engine")
        now = time.monotonic()
        self._bare_since = None if any(map(_ready, pods)) else self._bare_since or now
        if ready and self._bare_since is not None:
            bare = now - self._bare_since
            self.longest = max(self.longest, bare)
            if bare > self._late:
                self.violations.append(f"Ready without a ready engine pod for {bare:.1f} s")
        if deployment is not None:
            container = deployment["spec"]["template"]["spec"]["containers"][0]
            found = (container["image"], tuple(container["args"]))
            if not self.images or self.images[-1] != found:
                self.images.append(found)
        self.looks += 1

    def assert_truthful(self) -> None:
        """Raises AssertionError with every violation."""
        assert self.looks > 3, "hardly anything was observed"
        assert not self.violations, json.dumps(self.violations[:5])


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ending = "deletionTimestamp" in pod["metadata"]
    return not ending and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
