"""Events about sandboxes: on transitions only, deduplicated by name.

The name of an Event is derived from what it says, so a repetition raises its count instead of
adding an object; a token bucket per sandbox bounds what a flapping sandbox can write.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Literal

from ai_sandbox_operator.api import kinds, names

from . import client as kube_client
from . import errors

log = logging.getLogger(__name__)

BURST = 10
REFILL_SECONDS = 30.0
MESSAGE_LIMIT = 1024


class Recorder:
    """Writes Events; never raises, since an Event is worth less than the pass that reports it."""

    def __init__(
        self, client: kube_client.KubeClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._budget: dict[str, tuple[float, float]] = {}

    async def record(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        type_: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Create the Event, or count it up if the same was recorded before."""
        if not self._take(uid):
            return
        message = message[:MESSAGE_LIMIT]
        event_name = f"{name}.{hashlib.sha256(f'{uid}/{reason}/{message}'.encode()).hexdigest()[:16]}"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": event_name},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": names.FIELD_MANAGER},
            "reportingComponent": names.FIELD_MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            try:
                await self._client.create(kinds.EVENT, manifest)
            except errors.AlreadyExists:
                held = await self._client.get(kinds.EVENT, namespace, event_name)
                count = int(held.get("count") or 1) + 1
                await self._client.merge_patch(
                    kinds.EVENT, namespace, event_name, {"count": count, "lastTimestamp": now}
                )
        except errors.KubeError as error:
            log.info("event not recorded", extra={"reason": reason, "error": repr(error)})

    def forget(self, uid: str) -> None:
        """Drop the budget of a sandbox that is gone."""
        self._budget.pop(uid, None)

    def _take(self, uid: str) -> bool:
        tokens, at = self._budget.get(uid, (float(BURST), self._clock()))
        now = self._clock()
        tokens = min(float(BURST), tokens + (now - at) / REFILL_SECONDS)
        granted = tokens >= 1
        self._budget[uid] = (tokens - granted, now)
        return granted
