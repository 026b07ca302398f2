"""How far a download is, from the last lines of the fetch Job's log."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import common
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors

from . import views

log = logging.getLogger(__name__)

#: Seconds between two looks: each may become a write of the status.
EVERY = 10.0
_TAIL, _LIMIT = 5, 1 << 14


@dataclasses.dataclass
class _Memory:
    looked_at: float = float("-inf")
    progress: views.Progress | None = None


class Downloads:
    """Progress by sandbox, for those that are downloading."""

    def __init__(self, client: kube_client.KubeClient, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._memory: dict[str, _Memory] = {}

    async def progress(
        self, sandbox: v1alpha1.AISandbox, pods: Iterable[Mapping[str, Any]]
    ) -> views.Progress | None:
        """The last that is known.

        Args:
            pods: of the fetch Job while it is not complete; none forgets what was known.
        """
        uid = sandbox.metadata.uid
        running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
        if not running:
            self.forget(uid)
            return None
        memory = self._memory.setdefault(uid, _Memory())
        if self._clock() - memory.looked_at < EVERY * 0.9:
            return memory.progress
        memory.looked_at = self._clock()
        try:
            words = await self._client.logs(
                sandbox.metadata.namespace,
                running[-1]["metadata"]["name"],
                common.FETCH,
                tail=_TAIL,
                previous=False,
                limit_bytes=_LIMIT,
            )
        except errors.KubeError as error:
            log.info("progress not read", extra={"key": sandbox.key, "error": str(error)})
            return memory.progress
        memory.progress = parse(words) or memory.progress
        return memory.progress

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox's download."""
        self._memory.pop(uid, None)


def parse(words: str) -> views.Progress | None:
    """The last progress line; None without one."""
    for line in reversed(words.splitlines()):
        try:
            said = json.loads(line)
            if said["event"] == "progress":
                eta = said.get("etaSeconds")
                return views.Progress(
                    downloaded_bytes=max(0, int(said["doneBytes"])),
                    total_bytes=max(0, int(said["totalBytes"])),
                    eta_seconds=None if eta is None else max(0, int(eta)),
                )
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
    return None
