"""Sees objects of all kinds the moment the API server announces them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from types import TracebackType
from typing import Any, Self

import aiohttp

from ai_sandbox_operator.api import kinds, names


class Watching:
    """Watches sandboxes and their children and keeps when each was first seen, in monotonic seconds.

    Attributes:
        children: by sandbox, the times at which its children appeared, by (kind, name).
        ready: by sandbox, when Ready was first True.
    """

    def __init__(self, *, server: str, tls: ssl.SSLContext, namespace: str) -> None:
        self._server = server
        self._tls = tls
        self._namespace = namespace
        self._tasks: list[asyncio.Task[None]] = []
        self.children: dict[str, dict[tuple[str, str], float]] = {}
        self.ready: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), read_bufsize=2**21
        )
        started = [asyncio.Event() for _ in kinds.WATCHED]
        for kind, event in zip(kinds.WATCHED, started, strict=True):
            self._tasks.append(asyncio.create_task(self._watch(kind, event)))
        await asyncio.gather(*(event.wait() for event in started))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def _watch(self, kind: kinds.Kind, started: asyncio.Event) -> None:
        url = f"{self._server}{kind.path(self._namespace)}"
        query = {} if kind is kinds.SANDBOX else {"labelSelector": names.MANAGED_BY_SELECTOR}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(url, params={**query, "limit": "1"}, timeout=timeout) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        while True:
            parameters = {**query, "watch": "true", "resourceVersion": version}
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get(url, params=parameters, timeout=timeout) as answer:
                    started.set()
                    async for line in answer.content:
                        event = json.loads(line)
                        version = event["object"]["metadata"]["resourceVersion"]
                        self._note(kind, event["object"])

    def _note(self, kind: kinds.Kind, item: dict[str, Any]) -> None:
        metadata, now = item["metadata"], time.monotonic()
        if kind is not kinds.SANDBOX:
            owner = metadata["labels"].get(names.LABEL_SANDBOX, "")
            self.children.setdefault(owner, {}).setdefault((kind.kind, metadata["name"]), now)
            return
        for condition in (item.get("status") or {}).get("conditions") or ():
            if condition["type"] == "Ready" and condition["status"] == "True":
                self.ready.setdefault(metadata["name"], now)
