"""Gathers why components are not ready: their pods, and of these the logs and events that matter.

Nothing is read for a healthy component, the log of a run that ended is read once, and a read that
fails costs a detail, never the pass.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.desired import common, facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import diagnosis, engine_phase, text

from . import engine_trial, inputs

log = logging.getLogger(__name__)

#: Seconds between two looks at the pods of a sandbox that is not ready.
EVERY = 5.0
#: Seconds that a pod or a volume waits before its events are read, and between two readings.
EVENTS_AFTER, EVENTS_EVERY = 5.0, 10.0
#: Lines of the log of a run that ended: the cause stands far above the end (vLLM: 4-10 KiB).
TAIL_ENDED = 400
#: Attempts to read it: a kubelet that does not answer may stay so.
MOST_ATTEMPTS = 3
#: Lines of the log of an engine that is starting.
TAIL_STARTING = 60
#: Bytes of one answer.
LIMIT_ENDED, LIMIT_STARTING = 1 << 18, 1 << 16

#: Volume of a component, by the suffix of its claim's name.
_CLAIMS = {"fetch": "model", "engine": "model", "chat": "chat"}

Pod = Mapping[str, Any]


@dataclasses.dataclass
class _Start:
    """The log of an engine that is starting: when its end last changed, and the last known phase."""

    digest: bytes = b""
    changed_at: float = 0.0
    phase: engine_phase.Phase | None = None


@dataclasses.dataclass
class _Wait:
    """Something that waits for the node or the storage, and the events about it."""

    since: float
    read_at: float = float("-inf")
    events: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Memory:
    """What is known of one sandbox; losing it costs reads, nothing else."""

    began_at: float
    looked_at: float = float("-inf")
    findings: dict[str, diagnosis.Finding] = dataclasses.field(default_factory=dict)
    trial: engine_trial.Trial | None = None
    failures: dict[diagnosis.Run, diagnosis.Failure] = dataclasses.field(default_factory=dict)
    attempts: dict[diagnosis.Run, int] = dataclasses.field(default_factory=dict)
    starts: dict[str, _Start] = dataclasses.field(default_factory=dict)
    waits: dict[str, _Wait] = dataclasses.field(default_factory=dict)
    pods: dict[str, tuple[Pod, ...]] = dataclasses.field(default_factory=dict)


class Findings:
    """Causes by component, for the sandboxes of this process."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._client = client
        self._clock = clock
        self._now = now
        self._memory: dict[str, _Memory] = {}

    async def of(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        *,
        material: facts.Material | None,
    ) -> Mapping[str, diagnosis.Finding]:
        """Causes for components that are not ready; pods are listed only for those, and not at once.

        Without `material` nobody knows what must not be told, so nothing new is.
        """
        now = self._clock()
        memory = self._memory.setdefault(sandbox.metadata.uid, _Memory(began_at=now))
        waiting = inputs.waiting_components(sandbox, children)
        memory.findings = {c: f for c, f in memory.findings.items() if c in waiting}
        if common.ENGINE not in waiting:
            memory.trial = None
        if not waiting:
            self._memory[sandbox.metadata.uid] = memory = _Memory(began_at=memory.began_at)
        young = now - memory.began_at < EVERY / 2
        if material is None or not waiting or young or now - memory.looked_at < EVERY * 0.9:
            return dict(memory.findings)
        memory.looked_at = now
        selector = common.label_selector(sandbox)
        try:
            pods = await self._client.list_all(kinds.POD, sandbox.metadata.namespace, label_selector=selector)
        except errors.KubeError as error:
            # A cause that is not known must not keep the status from being told.
            log.warning("pods not listed", extra={"key": sandbox.key, "error": str(error)})
            return dict(memory.findings)
        memory.findings = await self._look(sandbox, children, memory, waiting, pods, tuple(material.values))
        return dict(memory.findings)

    def trial(self, uid: str) -> engine_trial.Trial | None:
        """How the engine's current template does, at the last look; None while it has no pod."""
        memory = self._memory.get(uid)
        return memory.trial if memory else None

    def pods(self, uid: str, component: str) -> tuple[Pod, ...]:
        """Pods of a component that is not ready, as of the last look; those that are ending too."""
        memory = self._memory.get(uid)
        return memory.pods.get(component, ()) if memory else ()

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox that is gone."""
        self._memory.pop(uid, None)

    async def _look(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        memory: _Memory,
        waiting: Iterable[str],
        pods: list[dict[str, Any]],
        secrets: tuple[str, ...],
    ) -> dict[str, diagnosis.Finding]:
        found: dict[str, diagnosis.Finding] = {}
        fresh = _Memory(began_at=memory.began_at)
        for component in waiting:
            mine = [p for p in pods if p["metadata"]["labels"].get(names.LABEL_COMPONENT) == component]
            fresh.pods[component] = tuple(mine)
            pod = diagnosis.speaker(mine)
            if component == common.ENGINE:
                memory.trial = None
                if (stuck := engine_trial.stuck(mine, self._now())) is not None:
                    found[component] = stuck
            if pod is None:
                continue
            evidence = await self._evidence(sandbox, children, component, pod, memory, fresh, secrets)
            if (finding := diagnosis.diagnose(mine, secrets=secrets, evidence=evidence)) is not None:
                found[component] = finding
                if component == common.ENGINE:
                    engine = children["Deployment", f"{sandbox.metadata.name}-{common.ENGINE}"]
                    memory.trial = engine_trial.observe(mine, engine, finding)
        # Only what this look met is kept, so memory does not grow with restarts.
        memory.failures, memory.attempts, memory.starts = fresh.failures, fresh.attempts, fresh.starts
        memory.waits, memory.pods = fresh.waits, fresh.pods
        return found

    async def _evidence(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        component: str,
        pod: Pod,
        memory: _Memory,
        fresh: _Memory,
        secrets: tuple[str, ...],
    ) -> diagnosis.Evidence:
        run = diagnosis.ended_run(pod)
        if run is not None:
            failure = memory.failures.get(run)
            if failure is None:
                fresh.attempts[run] = memory.attempts.get(run, 0) + 1
                last = fresh.attempts[run] >= MOST_ATTEMPTS
                failure = await self._read_end(sandbox, pod, run, secrets, last=last)
            if failure is not None:
                fresh.failures[run] = failure
            return diagnosis.Evidence(failure=failure)
        if (container := diagnosis.starting_engine(pod)) is not None:
            uid = pod["metadata"]["uid"]
            start = fresh.starts[uid] = memory.starts.get(uid) or _Start(changed_at=self._clock())
            await self._read_start(sandbox, pod, container, start)
            return diagnosis.Evidence(phase=start.phase, silent_seconds=self._clock() - start.changed_at)
        about = {str(pod["metadata"]["uid"])} if diagnosis.waits_for_node(pod) else set()
        claim = children.get(("PersistentVolumeClaim", f"{sandbox.metadata.name}-{_CLAIMS.get(component)}"))
        if claim is not None and claim.facts["phase"] == "Pending":
            about.add(claim.uid)
        events: list[Mapping[str, Any]] = []
        for uid in sorted(about):
            wait = fresh.waits.get(uid) or memory.waits.get(uid) or _Wait(since=self._clock())
            fresh.waits[uid] = wait
            await self._read_events(sandbox, uid, wait)
            events += wait.events
        return diagnosis.Evidence(events=events)

    async def _read_end(
        self,
        sandbox: v1alpha1.AISandbox,
        pod: Pod,
        run: diagnosis.Run,
        secrets: tuple[str, ...],
        *,
        last: bool,
    ) -> diagnosis.Failure | None:
        """What the log of a run that ended comes to; None to try again at the next look."""
        ended = diagnosis.terminated(pod, run)
        try:
            words = await self._client.logs(
                sandbox.metadata.namespace,
                run.pod,
                run.container,
                tail=TAIL_ENDED,
                previous=run.previous,
                limit_bytes=LIMIT_ENDED,
            )
        except errors.KubeError as error:
            log.info("log not read", extra={"key": sandbox.key, "pod": run.pod, "error": str(error)})
            if isinstance(error, errors.Unavailable) and not last:
                return None
            words = ""
        # The termination message holds the last 2 KiB of the log, if the kubelet took it.
        words = words or str(ended.get("message") or "")
        return diagnosis.failure_of(pod, text.redact(words, secrets), ended)

    async def _read_start(self, sandbox: v1alpha1.AISandbox, pod: Pod, container: str, start: _Start) -> None:
        try:
            words = await self._client.logs(
                sandbox.metadata.namespace,
                pod["metadata"]["name"],
                container,
                tail=TAIL_STARTING,
                previous=False,
                limit_bytes=LIMIT_STARTING,
            )
        except errors.KubeError as error:
            log.info("log not read", extra={"key": sandbox.key, "error": str(error)})
            return
        digest = hashlib.sha256(words.encode()).digest()
        if digest != start.digest:
            start.digest, start.changed_at = digest, self._clock()
        start.phase = engine_phase.phase(words) or start.phase

    async def _read_events(self, sandbox: v1alpha1.AISandbox, uid: str, wait: _Wait) -> None:
        now = self._clock()
        if now - wait.since < EVENTS_AFTER * 0.9 or now - wait.read_at < EVENTS_EVERY * 0.9:
            return
        wait.read_at = now
        try:
            events = await self._client.events(sandbox.metadata.namespace, uid)
        except errors.KubeError as error:
            log.info("events not listed", extra={"key": sandbox.key, "error": str(error)})
            return
        wait.events = list(events)
