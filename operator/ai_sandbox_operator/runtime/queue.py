"""Work queue as in client-go: no duplicates, never two workers on one key, back-off per key."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from ai_sandbox_operator.reconcile import backoff

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait for a pass.

    A key that is added while a worker holds it is handed out again afterwards, so the last change is
    always seen by a pass that began after it.
    """

    def __init__(
        self,
        *,
        longest_backoff: float = 300.0,
        pass_timeout: float = 120.0,
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, no secret
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        # With the time at which each was asked for first; the order is the one in which they came.
        self._dirty: dict[K, float] = {}
        self._busy: set[K] = set()
        self._failures: Counter[K] = Counter()
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._longest_backoff = longest_backoff
        self._pass_timeout = pass_timeout
        self._jitter = jitter
        self._clock = clock

    def __len__(self) -> int:
        """Keys that wait now; delayed ones are not counted."""
        return self._ready.qsize()

    @property
    def oldest(self) -> float:
        """Seconds for which the key that waits longest has waited; 0 if none does."""
        first = next(iter(self._dirty.values()), None)
        return 0.0 if first is None else max(0.0, self._clock() - first)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on; delayed keys may exist."""
        return not self._dirty and not self._busy

    def add(self, key: K, delay: float = 0.0) -> None:
        """Ask for a pass, now or in `delay` seconds; the earliest of several requests counts."""
        if delay > 0:
            loop = asyncio.get_running_loop()
            due = loop.time() + delay
            waiting = self._later.get(key)
            if waiting is not None:
                if waiting.when() <= due:
                    return
                waiting.cancel()
            self._later[key] = loop.call_at(due, self._now, key)
            return
        self._now(key)

    def _now(self, key: K) -> None:
        if (waiting := self._later.pop(key, None)) is not None:
            waiting.cancel()
        if key not in self._dirty:
            self._dirty[key] = self._clock()
            if key not in self._busy:
                self._ready.put_nowait(key)

    async def work(self, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        """Take keys for ever. `reconcile` returns the seconds after which it wants another pass."""
        while True:
            key = await self._ready.get()
            self._dirty.pop(key, None)
            self._busy.add(key)
            try:
                async with asyncio.timeout(self._pass_timeout):
                    again = await reconcile(key)
                self._failures.pop(key, None)
                if again is not None:
                    self.add(key, max(again, 0.01))
            except Exception as error:
                self._failures[key] += 1
                delay = (
                    backoff.pause(self._failures[key], first=0.5, longest=self._longest_backoff)
                    * self._jitter()
                )
                log.warning(
                    "pass failed", extra={"key": key, "error": repr(error), "retry_in": round(delay, 1)}
                )
                self.add(key, delay)
            finally:
                self._busy.discard(key)
                if key in self._dirty:
                    self._ready.put_nowait(key)

    def close(self) -> None:
        """Cancel delayed requests."""
        for waiting in self._later.values():
            waiting.cancel()
        self._later.clear()
