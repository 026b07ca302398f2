"""/healthz, /readyz and /metrics.

kopf's own liveness endpoint only proves that the loop turns; these answers judge the things that
break: a watch that went deaf, a barrier that was never passed, a lease that was lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from . import metrics

#: A resync that is this many intervals old means that the process does not do its work.
STALE_INTERVALS = 4.0


class Health:
    """State behind the endpoints."""

    def __init__(
        self,
        *,
        resync_age: Callable[[], float],
        resync_interval: float,
        started: Callable[[], bool],
        refused: Callable[[], bool],
        before_scrape: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resync_age = resync_age
        self._resync_interval = resync_interval
        self._started = started
        self._refused = refused
        self._before_scrape = before_scrape
        self._born = clock()
        self._clock = clock

    def alive(self) -> tuple[bool, str]:
        """Whether the process should go on."""
        if not self._started():
            return True, "waiting for the first complete list of all kinds"
        age = self._resync_age()
        if age > STALE_INTERVALS * self._resync_interval:
            return False, f"the last complete resync is {age:.0f} s old"
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether the process has a complete view. A standby is ready too: its cache is warm."""
        if self._refused():
            return False, "the API server refuses the credentials of the watch"
        if not self._started():
            return False, "waiting for the first complete list of all kinds"
        return self.alive()

    async def serve(self, host: str, port: int) -> tuple[web.AppRunner, int]:
        """Start serving; returns the runner to clean up and the port in use."""
        app = web.Application()
        app.router.add_get("/healthz", self._answer(self.alive))
        app.router.add_get("/readyz", self._answer(self.ready))
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        return runner, int(runner.addresses[0][1])

    def _answer(
        self, judge: Callable[[], tuple[bool, str]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_: web.Request) -> web.Response:
            good, text = judge()
            return web.Response(status=200 if good else 503, text=text + "\n")

        return handler

    async def _metrics(self, _: web.Request) -> web.Response:
        self._before_scrape()
        # Hundreds of sandboxes take a part of a second to write out, in which the loop goes on.
        text = await asyncio.to_thread(metrics.render)
        return web.Response(body=text, content_type="text/plain", charset="utf-8")
