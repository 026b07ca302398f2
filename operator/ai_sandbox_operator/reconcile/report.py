"""Tells what was judged: one status write if something changed, events on transitions."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.desired import allowlist, engine
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events

from . import deletion, judge, tell, views

log = logging.getLogger(__name__)

#: Seconds that a change of mere words in the status may wait.
QUIET = 2.0


class Memory(Protocol):
    """What a pass remembers of the last one, see reconciler.py."""

    told_at: float


class Reporter:
    """Writes status and events of one sandbox at a time."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        recorder: events.Recorder,
        *,
        remember: Callable[[kinds.Kind, Mapping[str, Any]], object],
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._remember = remember
        self._clock = clock
        self._now = now

    async def tell_status(
        self, situation: views.Situation, body: Mapping[str, Any], memory: Memory
    ) -> float | None:
        """Write the status if it changed; the seconds after which a change that may wait is due."""
        sandbox = situation.sandbox
        verdicts = judge.judge(situation)
        status = tell.build_status(
            sandbox,
            verdicts,
            now=self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            endpoints=judge.endpoints(situation),
            linode=_linode(situation),
            applied=_applied(situation, {v.type for v in verdicts if v.status == "True"}),
            model=_model(situation),
        )
        if not tell.differs(body, status):
            return None
        since = self._clock() - memory.told_at
        if since < QUIET and not tell.urgent(sandbox, verdicts, linode=status.get("linode")):
            return QUIET - since
        memory.told_at = self._clock()
        await self._write(sandbox, status)
        for announcement in tell.announcements(sandbox, verdicts):
            await self._record(sandbox, announcement)
        return None

    async def tell_deletion(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], wait: deletion.Wait
    ) -> None:
        """Write what a deletion waits for, if it changed."""
        status = deletion.status_of(sandbox, wait, now=self._now())
        if not tell.differs(body, status):
            return
        await self._write(sandbox, status)
        if wait.overdue:
            reason = Reason.DeletionBlocked.name
            text = ". ".join(part for part in (wait.text, wait.remedy) if part)
            await self._record(sandbox, tell.Announcement(type="Warning", reason=reason, message=text))

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox that is gone."""
        self._recorder.forget(uid)

    async def _write(self, sandbox: v1alpha1.AISandbox, status: Mapping[str, Any]) -> None:
        """Apply the status of exactly this object; a namesake that took its place is left alone."""
        metadata = sandbox.metadata
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
            "status": dict(status),
        }
        try:
            answer = await self._client.apply(kinds.SANDBOX, manifest, subresource="status")
        except (errors.NotFound, errors.Conflict):
            log.info("the sandbox is gone", extra={"key": sandbox.key})
            return
        self._remember(kinds.SANDBOX, answer)

    async def _record(self, sandbox: v1alpha1.AISandbox, announcement: tell.Announcement) -> None:
        await self._recorder.record(
            namespace=sandbox.metadata.namespace,
            name=sandbox.metadata.name,
            uid=sandbox.metadata.uid,
            type_=announcement.type,
            reason=announcement.reason,
            message=announcement.message,
        )


def _linode(situation: views.Situation) -> dict[str, int]:
    """Ids of Linode objects, kept as long as any may exist: deletion finds them by these."""
    sandbox, view = situation.sandbox, situation.linode
    if not situation.public and names.FINALIZER not in sandbox.metadata.finalizers:
        return {}
    held = sandbox.status.linode or v1alpha1.LinodeStatus()
    ids = {
        "firewallID": view.firewall_id or held.firewall_id,
        "nodeBalancerID": view.nodebalancer_id or held.node_balancer_id,
        "firewallVersion": view.firewall_version or held.firewall_version,
    }
    return {name: value for name, value in ids.items() if value is not None}


def _model(situation: views.Situation) -> dict[str, Any]:
    """The pinned commit, and how far its download is."""
    found, held = situation.model, situation.sandbox.status.model
    if not found.commit:
        # What was pinned for an earlier spec stays until the new one is resolved; it pins nothing any more.
        return held.model_dump(mode="json", by_alias=True, exclude_none=True) if held else {}
    job = situation.children.get(("Job", situation.fetch_job))
    complete = job is not None and job.facts["complete"]
    same = held is not None and held.revision == found.commit
    size = found.size_bytes or (held.size_bytes if held and same else None)
    values = {
        "revision": found.commit,
        "resolvedFrom": engine.model_source(situation.sandbox),
        "sizeBytes": size,
        **_progress(situation, size, complete=complete),
        "maxContextTokens": situation.engine.max_context_tokens
        or (held.max_context_tokens if held and same and not situation.engine.proven else None),
    }
    return {name: value for name, value in values.items() if value is not None}


def _progress(situation: views.Situation, size: int | None, *, complete: bool) -> dict[str, int | None]:
    progress = situation.progress
    if complete:
        return {"downloadedBytes": size}
    if progress is None:
        return {}
    return {"downloadedBytes": progress.downloaded_bytes, "etaSeconds": progress.eta_seconds}


def _applied(situation: views.Situation, true: set[ConditionType]) -> dict[str, str]:
    """What each layer was last observed to hold."""
    sandbox = situation.sandbox
    held = sandbox.status.applied or v1alpha1.AppliedStatus()
    protected, serving = ConditionType.NETWORK_PROTECTED in true, ConditionType.ENGINE_READY in true
    hashes = {
        "accessHash": allowlist.access_revision(sandbox) if protected else held.access_hash,
        "engineHash": situation.engine_inputs if serving else held.engine_hash,
    }
    return {name: value for name, value in hashes.items() if value}
