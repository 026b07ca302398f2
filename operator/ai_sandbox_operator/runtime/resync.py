"""One remedy for four gaps of watching: a metadata LIST per kind every few minutes.

It is the start barrier (nothing is reconciled before every kind was listed and seen once), removes
objects that vanished unseen, finds events that were missed, and detects a deaf watch: what is missed
twice in a row was never going to arrive.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors

from . import store as stores

log = logging.getLogger(__name__)


class Deaf(Exception):
    """A watch delivers nothing; only a new process helps."""


class Resync:
    """Periodic comparison of the store with the API server.

    Attributes:
        ready: set once every kind has been listed and the store holds all of it.
        completed: monotonic time of the last complete round.
    """

    def __init__(
        self,
        *,
        client: kube_client.KubeClient,
        store: stores.Store,
        add: Callable[[stores.Key], None],
        namespaces: Sequence[str],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._store = store
        self._add = add
        self._namespaces = tuple(namespaces) or (None,)
        self._interval = interval
        self._clock = clock
        self._suspects: dict[str, dict[stores.Key, str]] = {}
        self.missed_total = 0
        self.ready = asyncio.Event()
        self.completed = float("-inf")

    async def run(self) -> None:
        """Resync for ever.

        Raises:
            Deaf: an object was behind in two rounds, and nothing was heard of it in between.
        """
        await self._barrier()
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            try:
                await self.round()
            except errors.KubeError as error:
                log.warning("resync failed", extra={"error": repr(error)})

    async def round(self) -> None:
        """One comparison of all kinds."""
        for kind in kinds.WATCHED:
            began = self._clock()
            found = self._store.sweep(kind, await self._list(kind), began)
            for key in found.lost | found.missed:
                self._add(key)
            self.missed_total += len(found.behind)
            # An event may be on its way while the LIST is answered; five minutes later it is not, so an
            # object that is behind again, at the same version, will never be heard of.
            suspects = self._suspects.get(kind.plural, {})
            deaf = sorted(found.behind.items() & suspects.items())
            self._suspects[kind.plural] = found.behind
            if deaf:
                raise Deaf(f"the watch of {kind.plural} does not deliver: {[key for key, _ in deaf[:3]]}")
        for key in self._store.sandboxes():
            self._add(key)
        self.completed = self._clock()

    async def _barrier(self) -> None:
        """Wait until the watch has delivered what a LIST shows, so that no child looks absent.

        Raises:
            Deaf: a kind came after the start. kopf looks for kinds once, so it will never watch this one.
        """
        for kind in kinds.WATCHED:
            absent = False
            while True:
                try:
                    listed = await self._list(kind)
                    if absent:
                        raise Deaf(f"{kind.plural}.{kind.group} was installed after the start")
                    if self._arrived(kind, listed):
                        break
                except errors.NotFound:
                    absent = True
                    log.warning(
                        "the CRD is not installed; waiting", extra={"resource": f"{kind.plural}.{kind.group}"}
                    )
                    await asyncio.sleep(5)
                except errors.KubeError as error:
                    log.warning("not listed", extra={"resource": kind.plural, "error": str(error)})
                    await asyncio.sleep(2)
                await asyncio.sleep(0.1)
        self.completed = self._clock()
        self.ready.set()
        for key in self._store.sandboxes():
            self._add(key)

    def _arrived(self, kind: kinds.Kind, listed: list[kube_client.Object]) -> bool:
        """Whether the store holds everything that was listed; newer versions are as good."""
        return self._store.holds(
            kind, {(i["metadata"].get("namespace", ""), i["metadata"]["name"]) for i in listed}
        )

    async def _list(self, kind: kinds.Kind) -> list[kube_client.Object]:
        selector = "" if kind is kinds.SANDBOX else names.MANAGED_BY_SELECTOR
        return [
            item
            for namespace in self._namespaces
            for item in await self._client.list_all(
                kind, namespace, label_selector=selector, metadata_only=True
            )
        ]
