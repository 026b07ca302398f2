"""Tells what was judged: one status write if something changed, events on transitions."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.desired import allowlist, facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events
from ai_sandbox_operator.observed import diagnosis

from . import deletion, inputs, judge, tell

log = logging.getLogger(__name__)

#: Seconds that a change of mere words in the status may wait.
QUIET = 2.0
#: Seconds between two looks at the pods of a sandbox that is not ready.
DIAGNOSE_EVERY = 5.0


class Memory(Protocol):
    """What a pass remembers of the last one, see reconciler.py."""

    told_at: float
    diagnosed_at: float
    began_at: float
    findings: dict[str, diagnosis.Finding]


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
        self, situation: judge.Situation, body: Mapping[str, Any], memory: Memory
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
        self,
        sandbox: v1alpha1.AISandbox,
        body: Mapping[str, Any],
        *,
        waiting_for: str,
        problem: str,
    ) -> None:
        """Write what a deletion waits for, if it changed."""
        status = deletion.status_of(sandbox, waiting_for=waiting_for, problem=problem, now=self._now())
        if not tell.differs(body, status):
            return
        await self._write(sandbox, status)
        if problem:
            reason = Reason.DeletionBlocked.name
            await self._record(sandbox, tell.Announcement(type="Warning", reason=reason, message=problem))

    async def findings(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        memory: Memory,
        *,
        material: facts.Material | None,
    ) -> Mapping[str, diagnosis.Finding]:
        """Causes for components that are not ready; pods are listed only for those, and not at once.

        Without `material` nobody knows what must not be told, so nothing new is.
        """
        waiting = inputs.waiting_components(sandbox, children)
        now = self._clock()
        memory.findings = {c: f for c, f in memory.findings.items() if c in waiting}
        young = now - memory.began_at < DIAGNOSE_EVERY / 2
        if material is None or not waiting or young or now - memory.diagnosed_at < DIAGNOSE_EVERY * 0.9:
            return dict(memory.findings)
        selector = f"{names.MANAGED_BY_SELECTOR},{names.LABEL_SANDBOX}={sandbox.metadata.name}"
        memory.diagnosed_at = now
        try:
            pods = await self._client.list_all(kinds.POD, sandbox.metadata.namespace, label_selector=selector)
        except errors.KubeError as error:
            # A cause that is not known must not keep the status from being told.
            log.warning("pods not listed", extra={"key": sandbox.key, "error": str(error)})
            return dict(memory.findings)
        memory.findings = {}
        for component in waiting:
            mine = [p for p in pods if p["metadata"]["labels"].get(names.LABEL_COMPONENT) == component]
            if (finding := diagnosis.diagnose(mine, secrets=material.values)) is not None:
                memory.findings[component] = finding
        return dict(memory.findings)

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


def _linode(situation: judge.Situation) -> dict[str, int]:
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


def _applied(situation: judge.Situation, true: set[ConditionType]) -> dict[str, str]:
    """What each layer was last observed to hold."""
    sandbox = situation.sandbox
    held = sandbox.status.applied or v1alpha1.AppliedStatus()
    protected, serving = ConditionType.NETWORK_PROTECTED in true, ConditionType.ENGINE_READY in true
    hashes = {
        "accessHash": allowlist.access_revision(sandbox) if protected else held.access_hash,
        "engineHash": situation.engine_inputs if serving else held.engine_hash,
    }
    return {name: value for name, value in hashes.items() if value}
