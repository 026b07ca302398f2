"""One pass over one sandbox, top to bottom.

Observe, decide, act, tell. Every pass applies everything from scratch: nothing remembers that a step
was done, so a crash between any two lines is repaired by the next pass.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pydantic

from ai_sandbox_operator.api import kinds, names, v1alpha1, validation
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import allowlist, engine, facts, fetch, render
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events
from ai_sandbox_operator.linode import errors as linode_errors
from ai_sandbox_operator.linode import firewall
from ai_sandbox_operator.linode.ownership import Owner
from ai_sandbox_operator.observed import diagnosis, seen

from . import credentials, deletion, execute, judge, keeper, plan, tell
from .references import RECHECK, Reference, References

log = logging.getLogger(__name__)

Key = tuple[str, str]

#: Seconds between two looks at the pods of a sandbox that is not ready.
DIAGNOSE_EVERY = 5.0
#: Seconds after which a failed download is tried again.
RETRY_FETCH = 300.0
#: Seconds that a change of mere words in the status may wait.
QUIET = 2.0


class Cache(Protocol):
    """The watch's view, see runtime/store.py."""

    def sandbox(self, key: Key) -> dict[str, Any] | None: ...
    def children(self, key: Key) -> dict[tuple[str, str], seen.Seen]: ...
    def write_back(self, kind: kinds.Kind, body: Mapping[str, Any]) -> seen.Seen: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is the same for all sandboxes."""

    cluster_id: str
    release: facts.Release
    storage_class: str
    nodebalancer_ranges: tuple[str, ...]
    pod_ranges: tuple[str, ...]


@dataclasses.dataclass
class _Memory:
    """What a pass leaves for the next one; losing it costs a read or a repeated write, never more."""

    uid: str = ""
    accepted: dict[tuple[str, str], tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    findings: dict[str, diagnosis.Finding] = dataclasses.field(default_factory=dict)
    diagnosed_at: float = float("-inf")
    told_at: float = float("-inf")
    began_at: float = 0.0


class Reconciler:
    """Brings sandboxes to their specs."""

    def __init__(
        self,
        *,
        client: kube_client.KubeClient,
        cache: Cache,
        linode: keeper.Keeper,
        recorder: events.Recorder,
        options: Options,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._client = client
        self._cache = cache
        self._linode = linode
        self._recorder = recorder
        self._options = options
        self._clock = clock
        self._now = now
        self._executor = execute.Executor(client, cache.write_back)
        self._references = References(client, clock=clock)
        self._credentials = credentials.Credentials(client, cache.write_back, now=now)
        self._deletion = deletion.Deletion(client, cluster_id=options.cluster_id)
        self._memory: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One pass; returns the seconds until the next, or None to wait for an event."""
        body = self._cache.sandbox(key)
        if body is None:
            self._forget(key)
            return None
        try:
            sandbox = v1alpha1.parse(body)
        except pydantic.ValidationError as error:
            sandbox = _bare(body)
            if not sandbox.metadata.deletion_timestamp:
                return await self._refuse(sandbox, body, error)
        memory = self._recall(sandbox)
        if sandbox.metadata.deletion_timestamp:
            return await self._finish(sandbox, body, memory)
        return await self._converge(sandbox, body, memory)

    def _recall(self, sandbox: v1alpha1.AISandbox) -> _Memory:
        key, uid = sandbox.key, sandbox.metadata.uid
        memory = self._memory.get(key)
        if memory is None or memory.uid != uid:
            self._forget(key)
            memory = self._memory[key] = _Memory(uid=uid, began_at=self._clock())
        return memory

    async def _converge(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], memory: _Memory
    ) -> float | None:
        key, uid = sandbox.key, sandbox.metadata.uid
        public = sandbox.spec.access.exposure == "NodeBalancer"

        # Observe.
        invalid = validation.violations(sandbox)
        if invalid:
            # What stands keeps standing: it is as narrow as the last valid spec made it.
            problems = tuple(
                judge.Problem(reason=Reason.InvalidSpec, message=f"{v.field}: {v.message}", stalled=True)
                for v in invalid
            )
            situation = self._situation(sandbox, problems=problems, pending=frozenset(facts.Stage))
            return await self._tell(situation, body, memory)
        missing = await self._references.missing(sandbox)
        if public and names.FINALIZER not in sandbox.metadata.finalizers:
            # Before the first Linode write, so that no crash can leave an object that nothing releases.
            await self._deletion.hold(sandbox, body)
        children = self._cache.children(key)
        own = _own(children, uid)
        service = own.get(("Service", sandbox.metadata.name))
        linode, again_linode = self._protect(sandbox, service) if public else (judge.LinodeView(), None)
        released = True
        if not public and names.FINALIZER in sandbox.metadata.finalizers and service is None:
            released, again_linode = await self._let_go(sandbox)

        # Decide and act.
        material = await self._credentials.ensure(sandbox, own, address=_address(service))
        desired = render.render(sandbox, self._facts(sandbox, own, material, linode, service))
        context = self._context(sandbox, own, memory, missing, linode)
        steps = plan.plan(desired, children, context)
        outcome = await self._executor.execute(steps, namespace=key[0], uid=uid)
        memory.accepted.update(outcome.accepted)
        if not steps.empty:
            children = self._cache.children(key)
            context = dataclasses.replace(context, accepted=memory.accepted)
            steps = plan.plan(desired, children, context)

        # Tell.
        own = _own(children, uid)
        findings = await self._diagnose(sandbox, own, memory)
        situation = self._situation(
            sandbox,
            children=own,
            pending=steps.pending | frozenset(outcome.held_back),
            releasing=not public and (not released or ("Service", sandbox.metadata.name) in own),
            access_pending=_gateway_pending(steps, sandbox.metadata.name),
            problems=(*(problem for _, problem in missing), *_write_problems(outcome)),
            linode=linode,
            findings=findings,
        )
        again = await self._tell(situation, body, memory)
        waits = [again, again_linode]
        if missing or list(_references_of(sandbox)):
            waits.append(RECHECK / 2 if missing else RECHECK)
        if outcome.failures or steps.waiting or not released:
            retries = [error.retry_after for _, error in outcome.failures if error.retry_after]
            waits.append(max([1.0, *retries]))
        if situation.findings or not _all_rolled_out(own, situation):
            waits.append(DIAGNOSE_EVERY)
        due = [wait for wait in waits if wait is not None]
        return min(due) if due else None

    def _protect(
        self, sandbox: v1alpha1.AISandbox, service: seen.Seen | None
    ) -> tuple[judge.LinodeView, float | None]:
        ports: dict[v1alpha1.Target, int] = {"API": names.PORT_API}
        if sandbox.spec.chat.enabled:
            ports["Chat"] = names.PORT_CHAT
        try:
            rules = firewall.rules_for(sandbox.spec.access.allowlist, ports=ports)
        except linode_errors.TooManyNetworks as error:
            problem = judge.Problem(reason=Reason.TooManyNetworks, message=str(error))
            return judge.LinodeView(problem=problem), None
        goal = keeper.Protect(
            owner=self._owner(sandbox),
            rules=rules,
            annotation=service.facts["firewall_id"] if service else "",
            address=service.facts["address"] if service else "",
            hostname=service.facts["hostname"] if service else "",
            has_service=service is not None,
        )
        result, again = self._linode.pursue(
            sandbox.key, sandbox.metadata.uid, goal, known=_known(sandbox), confirm=self._confirm(sandbox)
        )
        return (result.view if result else judge.LinodeView()), again

    async def _let_go(self, sandbox: v1alpha1.AISandbox) -> tuple[bool, float | None]:
        """The spec no longer wants a NodeBalancer: release, then drop the finalizer."""
        if await self._deletion.withdraw(sandbox):
            return False, None
        result, again = self._release(sandbox)
        if result is not None and result.released:
            await self._deletion.let_go(sandbox)
            self._linode.forget(sandbox.metadata.uid)
            return True, None
        return False, again

    def _release(self, sandbox: v1alpha1.AISandbox) -> tuple[keeper.Result | None, float]:
        return self._linode.pursue(
            sandbox.key,
            sandbox.metadata.uid,
            keeper.Release(owner=self._owner(sandbox)),
            known=_known(sandbox),
            confirm=self._deletion.service_gone(sandbox),
        )

    def _owner(self, sandbox: v1alpha1.AISandbox) -> Owner:
        return Owner(cluster_id=self._options.cluster_id, uid=sandbox.metadata.uid)

    def _confirm(self, sandbox: v1alpha1.AISandbox) -> Callable[[], Any]:
        async def confirm() -> bool:
            """A stale view must not reopen what the user has closed: read before acting on a new goal."""
            try:
                live = await self._client.get(kinds.SANDBOX, *sandbox.key)
            except errors.NotFound:
                return False
            metadata = live["metadata"]
            same = (
                metadata["uid"] == sandbox.metadata.uid
                and metadata["generation"] == sandbox.metadata.generation
            )
            return same and "deletionTimestamp" not in metadata

        return confirm

    def _facts(
        self,
        sandbox: v1alpha1.AISandbox,
        children: Mapping[tuple[str, str], seen.Seen],
        material: facts.Material,
        linode: judge.LinodeView,
        service: seen.Seen | None,
    ) -> facts.Facts:
        annotated = service.facts["firewall_id"] if service else ""
        held = int(annotated) if annotated.isdigit() else None
        job = children.get(("Job", fetch.job_name(sandbox)))
        return facts.Facts(
            release=self._options.release,
            material=material,
            storage_class=self._options.storage_class,
            nodebalancer_ranges=self._options.nodebalancer_ranges,
            pod_ranges=self._options.pod_ranges,
            linode_tags=self._owner(sandbox).tags,
            firewall_id=linode.firewall_id or held,
            address=_address(service) or None,
            model_cached=bool(job and job.facts["complete"]),
        )

    def _context(
        self,
        sandbox: v1alpha1.AISandbox,
        children: Mapping[tuple[str, str], seen.Seen],
        memory: _Memory,
        missing: tuple[tuple[Reference, judge.Problem], ...],
        linode: judge.LinodeView,
    ) -> plan.Context:
        public = sandbox.spec.access.exposure == "NodeBalancer"
        job = children.get(("Job", fetch.job_name(sandbox)))
        return plan.Context(
            uid=sandbox.metadata.uid,
            accepted=memory.accepted,
            # A component whose Secret is missing waits for it; what runs already keeps running.
            hold=frozenset(reference.component for reference, _ in missing if reference.component == "fetch"),
            expose=public and linode.current and linode.problem is None,
            exposed=public,
            model_cached=bool(job and job.facts["complete"]),
            running=sandbox.spec.lifecycle.state == "Running",
            replace=self._to_retry(sandbox, job),
        )

    def _to_retry(self, sandbox: v1alpha1.AISandbox, job: seen.Seen | None) -> frozenset[tuple[str, str]]:
        """A failed download is tried again after a while, and at once when the spec has changed."""
        if job is None or not job.facts["failed_at"]:
            return frozenset()
        failed_at = datetime.datetime.fromisoformat(job.facts["failed_at"])
        overdue = (self._now() - failed_at).total_seconds() > RETRY_FETCH
        edited = sandbox.status.observed_generation != sandbox.metadata.generation
        return frozenset({(job.kind, job.name)}) if overdue or edited else frozenset()

    def _situation(
        self,
        sandbox: v1alpha1.AISandbox,
        *,
        children: Mapping[tuple[str, str], seen.Seen] | None = None,
        **rest: Any,
    ) -> judge.Situation:
        return judge.Situation(
            sandbox=sandbox,
            children=_own(self._cache.children(sandbox.key), sandbox.metadata.uid)
            if children is None
            else children,
            engine_inputs=engine.engine_inputs(sandbox),
            fetch_job=fetch.job_name(sandbox),
            notices=_unsupported(sandbox),
            **rest,
        )

    async def _diagnose(
        self, sandbox: v1alpha1.AISandbox, children: Mapping[tuple[str, str], seen.Seen], memory: _Memory
    ) -> Mapping[str, diagnosis.Finding]:
        """Causes for components that are not ready; pods are listed only for those, and not at once."""
        waiting = _waiting_components(sandbox, children)
        now = self._clock()
        memory.findings = {c: f for c, f in memory.findings.items() if c in waiting}
        young = now - memory.began_at < DIAGNOSE_EVERY / 2
        if not waiting or young or now - memory.diagnosed_at < DIAGNOSE_EVERY * 0.9:
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
            if (finding := diagnosis.diagnose(mine)) is not None:
                memory.findings[component] = finding
        return dict(memory.findings)

    async def _tell(
        self, situation: judge.Situation, body: Mapping[str, Any], memory: _Memory
    ) -> float | None:
        sandbox = situation.sandbox
        verdicts = judge.judge(situation)
        linode = situation.linode
        held = sandbox.status.linode or v1alpha1.LinodeStatus()
        ids = {
            "firewallID": linode.firewall_id or held.firewall_id,
            "nodeBalancerID": linode.nodebalancer_id or held.node_balancer_id,
            "firewallVersion": linode.firewall_version or held.firewall_version,
        }
        protected = next(v for v in verdicts if v.type == "NetworkProtected").status == "True"
        served = next(v for v in verdicts if v.type == "EngineReady").status == "True"
        applied = sandbox.status.applied or v1alpha1.AppliedStatus()
        status = tell.build_status(
            sandbox,
            verdicts,
            now=self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            endpoints=judge.endpoints(situation),
            linode={k: v for k, v in ids.items() if v is not None}
            if situation.public or names.FINALIZER in sandbox.metadata.finalizers
            else {},
            applied={
                k: v
                for k, v in {
                    "accessHash": allowlist.access_revision(sandbox) if protected else applied.access_hash,
                    "engineHash": situation.engine_inputs if served else applied.engine_hash,
                }.items()
                if v
            },
        )
        if not tell.differs(body, status):
            return None
        since = self._clock() - memory.told_at
        if since < QUIET and not tell.urgent(sandbox, verdicts):
            return QUIET - since
        memory.told_at = self._clock()
        await write_status(self._client, sandbox, status)
        for announcement in tell.announcements(sandbox, verdicts):
            await self._recorder.record(
                namespace=sandbox.metadata.namespace,
                name=sandbox.metadata.name,
                uid=sandbox.metadata.uid,
                type_=announcement.type,
                reason=announcement.reason,
                message=announcement.message,
            )
        return None

    async def _finish(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], memory: _Memory
    ) -> float | None:
        """Deletion: retract, free the GPU, release Linode's objects, let go."""
        if names.FINALIZER not in sandbox.metadata.finalizers:
            self._linode.forget(sandbox.metadata.uid)
            return None
        children = self._cache.children(sandbox.key)
        blocked, problem = await self._deletion.retract(sandbox, children), ""
        again: float | None = 1.0
        if not blocked and not self._deletion.abandoned(sandbox):
            result, again = self._release(sandbox)
            if result is None or not result.released:
                waiting = result.waiting_for if result else ""
                blocked = waiting or "the NodeBalancer and its firewall are being released"
                problem = waiting if result and result.overdue else ""
        if not blocked:
            await self._deletion.let_go(sandbox)
            self._linode.forget(sandbox.metadata.uid)
            return None
        status = deletion.status_of(sandbox, waiting_for=blocked, problem=problem, now=self._now())
        if tell.differs(body, status):
            await write_status(self._client, sandbox, status)
            memory.told_at = self._clock()
            if problem:
                await self._recorder.record(
                    namespace=sandbox.metadata.namespace,
                    name=sandbox.metadata.name,
                    uid=sandbox.metadata.uid,
                    type_="Warning",
                    reason=Reason.DeletionBlocked.name,
                    message=problem,
                )
        return min(again or 1.0, 5.0)

    async def _refuse(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], error: pydantic.ValidationError
    ) -> float | None:
        """An object that the models cannot read (stored under another CRD): touch nothing but its status."""
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = judge.Problem(reason=Reason.InvalidSpec, message=f"{field}: {first['msg']}", stalled=True)
        situation = self._situation(sandbox, problems=(problem,), pending=frozenset(facts.Stage))
        return await self._tell(situation, body, self._recall(sandbox))

    def _forget(self, key: Key) -> None:
        memory = self._memory.pop(key, None)
        if memory is not None:
            self._linode.forget(memory.uid)
            self._recorder.forget(memory.uid)
            self._credentials.forget(memory.uid)


def _bare(body: Mapping[str, Any]) -> v1alpha1.AISandbox:
    """An object whose spec cannot be read: what was told of it stays known, and it can be deleted."""
    metadata = v1alpha1.Metadata.model_validate(body["metadata"])
    try:
        status = v1alpha1.AISandboxStatus.model_validate(body.get("status") or {})
    except pydantic.ValidationError:
        status = v1alpha1.AISandboxStatus()
    return v1alpha1.AISandbox(metadata=metadata, status=status)


def _own(children: Mapping[tuple[str, str], seen.Seen], uid: str) -> dict[tuple[str, str], seen.Seen]:
    """Without what an earlier sandbox of the same name left and the garbage collector has yet to take.

    It holds names, which the plan must know, but proves nothing and lends nothing to this sandbox.
    """
    return {key: record for key, record in children.items() if record.owner_uid in ("", uid)}


async def write_status(
    client: kube_client.KubeClient, sandbox: v1alpha1.AISandbox, status: Mapping[str, Any]
) -> None:
    """Apply the status of exactly this object; a namesake that took its place is left alone."""
    metadata = sandbox.metadata
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
        "status": dict(status),
    }
    try:
        await client.apply(kinds.SANDBOX, manifest, subresource="status")
    except (errors.NotFound, errors.Conflict):
        log.info("the sandbox is gone", extra={"key": sandbox.key})


def _known(sandbox: v1alpha1.AISandbox) -> keeper.Known:
    held = sandbox.status.linode or v1alpha1.LinodeStatus()
    return keeper.Known(firewall_id=held.firewall_id, nodebalancer_id=held.node_balancer_id)


def _address(service: seen.Seen | None) -> str:
    return str(service.facts["address"]) if service else ""


def _gateway_pending(steps: plan.Plan, name: str) -> bool:
    """Whether the gateway's configuration is not as wanted."""
    return any(
        not isinstance(step, plan.Delete)
        and step.child.kind == "Secret"
        and step.child.name == f"{name}-gateway"
        for step in steps.steps
    )


def _write_problems(outcome: execute.Outcome) -> tuple[judge.Problem, ...]:
    taken = tuple(
        judge.Problem(
            reason=Reason.NameTaken, message=f"{label} exists and belongs to somebody else", stalled=True
        )
        for label in outcome.taken
    )
    refused = tuple(
        judge.Problem(reason=Reason.WriteRefused, message=f"{label}: {error}")
        for label, error in outcome.failures
        if isinstance(error, errors.Forbidden | errors.Invalid)
    )
    return (*taken, *refused)


def _waiting_components(
    sandbox: v1alpha1.AISandbox, children: Mapping[tuple[str, str], seen.Seen]
) -> tuple[str, ...]:
    name = sandbox.metadata.name
    job = children.get(("Job", fetch.job_name(sandbox)))
    waiting = ["fetch"] if job is not None and not job.facts["complete"] else []
    for component in ("engine", "chat", "gateway"):
        record = children.get(("Deployment", f"{name}-{component}"))
        if record is not None and record.facts["replicas"] and not judge.rolled_out(record):
            waiting.append(component)
    return tuple(waiting)


def _all_rolled_out(children: Mapping[tuple[str, str], seen.Seen], situation: judge.Situation) -> bool:
    return not _waiting_components(situation.sandbox, children)


def _references_of(sandbox: v1alpha1.AISandbox) -> list[Reference]:
    from .references import references

    return list(references(sandbox))


def _unsupported(sandbox: v1alpha1.AISandbox) -> tuple[str, ...]:
    """Fields that are accepted but do nothing in this release; never silently."""
    notices = []
    if sandbox.spec.access.tls.mode == "CertManager":
        notices.append(
            "spec.access.tls.mode CertManager: put the certificate into the Secret <name>-tls yourself"
        )
    return tuple(notices)
