"""Leader election beside the main loop.

A burst of work keeps the main loop busy for seconds, and a leader that renews its lease there loses
it just when it is needed. So the lease lives in a thread with a loop of its own. In return the thread
watches the main loop: one that hangs must not go on holding the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable

from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import lease

#: Seconds after which a main loop that did not turn counts as hung.
HUNG = 30.0
BEAT = 1.0


class Election:
    """A lease.Lease in a thread, with the same face.

    Attributes:
        held: set, in the main loop, while this process is the leader.
    """

    def __init__(
        self,
        make_client: Callable[[], Awaitable[kube_client.KubeClient]],
        *,
        namespace: str,
        name: str,
        identity: str,
    ) -> None:
        self._make_client = make_client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._beat = time.monotonic()
        self._lease: lease.Lease | None = None
        self._stop: Callable[[], None] = lambda: None
        self.held = asyncio.Event()

    def check(self) -> None:
        """Raise lease.LeaseLost unless this process is surely the leader. Safe in any thread."""
        if self._lease is None:
            raise lease.LeaseLost("this operator is not the leader")
        self._lease.check()

    async def hold(self) -> None:
        """Acquire and renew until cancelled, then give the lease up.

        Raises:
            lease.LeaseLost: a held lease could not be renewed in time (in an exception group).
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def run() -> None:
            outcome: BaseException | None = None
            try:
                asyncio.run(self._candidate(loop))
            except BaseException as error:
                outcome = error
            with contextlib.suppress(RuntimeError):  # the main loop may be gone
                loop.call_soon_threadsafe(ended.set_result, outcome)

        thread = threading.Thread(target=run, name="lease", daemon=True)
        thread.start()
        try:
            while not ended.done():
                self._beat = time.monotonic()
                await asyncio.wait([ended], timeout=BEAT)
            raise ended.result() or lease.LeaseLost("the election ended")
        finally:
            # Also on cancellation: whoever stops has stopped writing before.
            self._stop()
            await asyncio.to_thread(thread.join, 2 * lease.ATTEMPT)

    async def _candidate(self, main: asyncio.AbstractEventLoop) -> None:
        """In the thread: hold the lease until told to stop, or until the main loop hangs."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        client = await self._make_client()
        candidate = lease.Lease(client, namespace=self._namespace, name=self._name, identity=self._identity)
        self._lease = candidate
        self._stop = lambda: _call(loop, stop.set)
        try:
            async with asyncio.TaskGroup() as group:
                duties = [
                    group.create_task(candidate.hold()),
                    group.create_task(self._announce(candidate, main)),
                    group.create_task(self._watch_main_loop()),
                ]
                await stop.wait()
                for duty in duties:
                    duty.cancel()
        finally:
            await candidate.release()
            await client.close()

    async def _announce(self, candidate: lease.Lease, main: asyncio.AbstractEventLoop) -> None:
        await candidate.held.wait()
        _call(main, self.held.set)

    async def _watch_main_loop(self) -> None:
        while time.monotonic() - self._beat < HUNG:  # noqa: ASYNC110 - a hung loop sets no event
            await asyncio.sleep(BEAT)
        raise lease.LeaseLost(f"the main loop has not turned for {HUNG:.0f} s")


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call in another thread's loop, which may have ended already."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
