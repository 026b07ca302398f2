"""Leader election by a coordination.k8s.io Lease, with fencing.

A leader that cannot renew stops writing before another may take over: `check` compares the time of
the last renewal with a deadline that is shorter than the lease. It is the guard of every write.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable

from ai_sandbox_operator.api import kinds

from . import client as kube_client
from . import errors

log = logging.getLogger(__name__)

# A new leader takes over within DURATION + RETRY of a crash.
DURATION = 6.0
DEADLINE = 4.5
RETRY = 1.0
#: One try; shorter than the deadline, so that a single lost packet does not end a leader.
ATTEMPT = 2.5


class LeaseLost(Exception):
    """This process is not the leader (any more)."""


class Lease:
    """One candidate.

    Attributes:
        held: set while this process is the leader.
    """

    def __init__(
        self,
        client: kube_client.KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        retry: float = RETRY,
        attempt: float = ATTEMPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._retry = retry
        self._attempt = attempt
        self._clock = clock
        self._renewed = float("-inf")
        self._observed: tuple[str, float] = ("", 0.0)
        self.held = asyncio.Event()

    def check(self) -> None:
        """Raise LeaseLost unless this process is surely the leader."""
        if self._clock() - self._renewed > DEADLINE:
            raise LeaseLost("this operator is not the leader")

    async def hold(self) -> None:
        """Acquire and renew for ever; raises LeaseLost when a held lease could not be renewed in time."""
        while True:
            began = self._clock()
            try:
                # Not wait_for: in Python 3.11 it loses a cancellation that comes with the result.
                async with asyncio.timeout(self._attempt):
                    acquired = await self._try()
            except (errors.KubeError, TimeoutError) as error:
                log.warning("lease not renewed", extra={"error": repr(error)})
                acquired = False
            if acquired:
                self._renewed = began
                if not self.held.is_set():
                    log.info("this operator is the leader", extra={"identity": self._identity})
                    self.held.set()
            elif self.held.is_set() and self._clock() - self._renewed > DEADLINE:
                raise LeaseLost("the lease could not be renewed in time")
            await asyncio.sleep(self._retry)

    async def release(self) -> None:
        """Give the lease up at once, so that a successor need not wait for its end."""
        if not self.held.is_set():
            return
        self._renewed = float("-inf")
        try:
            lease = await self._client.get(kinds.LEASE, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(kinds.LEASE, lease)
        except errors.KubeError as error:
            log.warning("lease not released", extra={"error": repr(error)})

    async def _try(self) -> bool:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        wanted = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": now,
        }
        try:
            lease = await self._client.get(kinds.LEASE, self._namespace, self._name)
        except errors.NotFound:
            metadata = {"namespace": self._namespace, "name": self._name}
            manifest = {
                "apiVersion": kinds.LEASE.api_version,
                "kind": kinds.LEASE.kind,
                "metadata": metadata,
                "spec": {**wanted, "acquireTime": now},
            }
            try:
                await self._client.create(kinds.LEASE, manifest)
            except errors.AlreadyExists:
                return False
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder != self._identity and self.held.is_set():
            # Whoever has it writes already, or may at any moment.
            self._renewed = float("-inf")
            return False
        if holder and holder != self._identity and not self._expired(lease, spec):
            return False
        if holder != self._identity:
            wanted["acquireTime"] = now
        lease["spec"] = {**spec, **wanted}
        try:
            await self._client.replace(kinds.LEASE, lease)
        except errors.Conflict:
            return False
        return True

    def _expired(self, lease: kube_client.Object, spec: kube_client.Object) -> bool:
        """By our own clock since the last change seen: clocks of two nodes may differ."""
        version = lease["metadata"]["resourceVersion"]
        if version != self._observed[0]:
            self._observed = (version, self._clock())
        return self._clock() - self._observed[1] > float(spec.get("leaseDurationSeconds", DURATION))
