"""One pass over one sandbox, top to bottom.

Observe, decide, act, tell. Every pass applies everything from scratch: nothing remembers that a step
was done, so a crash between any two lines is repaired by the next pass.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import pydantic

from ai_sandbox_operator.api import kinds, names, v1alpha1, validation
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import common, engine, facts, fetch, network, render
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events
from ai_sandbox_operator.observed import diagnosis, seen

from . import (
    certificates,
    credentials,
    deletion,
    execute,
    exposure,
    gateways,
    inputs,
    judge,
    keeper,
    plan,
    report,
)
from .references import RECHECK, References, references

log = logging.getLogger(__name__)

Key = tuple[str, str]
T = TypeVar("T")


class Cache(Protocol):
    """The watch's view, see runtime/store.py."""

    def sandbox(self, key: Key) -> dict[str, Any] | None: ...
    def children(self, key: Key) -> dict[tuple[str, str], seen.Seen]: ...
    def write_back(self, kind: kinds.Kind, body: Mapping[str, Any]) -> seen.Seen: ...
    def remember(self, kind: kinds.Kind, body: Mapping[str, Any]) -> object: ...


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
        gateway: gateways.Gateways,
        recorder: events.Recorder,
        options: inputs.Options,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._cache = cache
        self._gateways = gateway
        self._options = options
        self._clock = clock
        self._now = now
        self._executor = execute.Executor(client, cache.write_back)
        self._references = References(client, clock=clock, now=now)
        self._credentials = credentials.Credentials(client, cache.write_back)
        self._certificates = certificates.Certificates(client, cache.write_back, now=now)
        self._deletion = deletion.Deletion(client, remember=cache.remember)
        self._exposure = exposure.Exposure(client, linode, self._deletion, cluster_id=options.cluster_id)
        self._report = report.Reporter(client, recorder, remember=cache.remember, clock=clock, now=now)
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
            sandbox = inputs.bare(body)
            if not sandbox.metadata.deletion_timestamp:
                return await self._refuse(sandbox, body, [_first(error)])
        memory = self._recall(sandbox)
        if sandbox.metadata.deletion_timestamp:
            return await self._finish(sandbox, body)
        if invalid := validation.violations(sandbox):
            return await self._refuse(sandbox, body, [f"{v.field}: {v.message}" for v in invalid])
        return await self._converge(sandbox, body, memory)

    async def _converge(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], memory: _Memory
    ) -> float | None:
        key, uid, outcome = sandbox.key, sandbox.metadata.uid, execute.Outcome()
        children = self._cache.children(key)
        own = inputs.own(children, uid)
        service = inputs.external_service(sandbox, own)

        # Close first. Policies and firewall need nothing but the spec, and nothing else may delay them.
        linode, again_linode = await self._guard(sandbox, body, service, outcome)
        await self._close(sandbox, children, memory, linode, outcome)
        released = True
        if (
            not inputs.is_public(sandbox)
            and service is None
            and names.FINALIZER in sandbox.metadata.finalizers
        ):
            left = await _attempt(outcome, "the Linode objects", self._exposure.leave(sandbox))
            released, again_linode = left or (False, None)

        # Observe, decide, act.
        missing = await _attempt(outcome, "the spec's Secrets", self._references.missing(sandbox))
        problems = [problem for _, problem in missing or ()]
        # A download whose token is not there waits for it; what runs already keeps running.
        waits_for_secret = missing is None or any(r.component == common.FETCH for r, _ in missing)
        hold = frozenset({common.FETCH}) if waits_for_secret else frozenset()
        certified = await _attempt(
            outcome,
            "the certificate",
            self._certificates.ensure(sandbox, own, public_names=inputs.public_names(service)),
        )
        lacks, again_certificate = certified or ((), None)
        material = await _attempt(outcome, "the keys", self._credentials.ensure(sandbox, own))
        steps = plan.Plan(pending=frozenset(facts.Stage))
        proof = judge.GatewayProof(message="the gateway's configuration is being written")
        if material is not None:
            children = self._cache.children(key)
            own = inputs.own(children, uid)
            desired = render.render(
                sandbox,
                inputs.rendering_facts(sandbox, own, options=self._options, material=material, linode=linode),
            )
            context = inputs.plan_context(
                sandbox, own, accepted=memory.accepted, hold=hold, linode=linode, now=self._now()
            )
            steps = plan.plan(desired, children, context)
            if steps.retract and not await _attempt(outcome, "the spec", self._exposure.unchanged(sandbox)):
                steps = dataclasses.replace(steps, retract=())
            outcome.extend(await self._executor.execute(steps, namespace=key[0], uid=uid))
            memory.accepted.update(outcome.accepted)
            if not steps.empty:
                children = self._cache.children(key)
                steps = plan.plan(desired, children, context)

            if not inputs.touches_gateway_configuration(steps.steps, sandbox.metadata.name):
                parts = inputs.gateway(sandbox, inputs.own(children, uid))
                proof = self._gateways.prove(sandbox, inputs.access_revision(desired), *parts)

        # Tell.
        own = inputs.own(children, uid)
        situation = self._situation(
            sandbox,
            children=own,
            pending=steps.pending | frozenset(outcome.held_back),
            releasing=not inputs.is_public(sandbox)
            and (not released or ("Service", sandbox.metadata.name) in own),
            gateway=proof,
            problems=(
                *problems,
                *lacks,
                *credentials.unusable_keys(sandbox, own),
                *inputs.write_problems(outcome),
            ),
            linode=linode,
            findings=await self._report.findings(sandbox, own, memory, material=material),
        )
        waits = [await self._report.tell_status(situation, body, memory), again_linode, again_certificate]
        if next(references(sandbox), None) is not None:
            waits.append(RECHECK / 2 if problems else RECHECK)
        if outcome.failures or steps.waiting or not released:
            retries = [error.retry_after for _, error in outcome.failures if error.retry_after]
            waits.append(max([1.0, *retries]))
        if inputs.waiting_components(sandbox, own):
            waits.append(report.DIAGNOSE_EVERY)
        return min((wait for wait in waits if wait is not None), default=None)

    async def _guard(
        self,
        sandbox: v1alpha1.AISandbox,
        body: Mapping[str, Any],
        service: seen.Seen | None,
        outcome: execute.Outcome,
    ) -> tuple[judge.LinodeView, float | None]:
        """State what the firewall must be; the finalizer first, so that no crash leaves an ownerless object."""
        if not inputs.is_public(sandbox):
            return judge.LinodeView(), None
        if names.FINALIZER not in sandbox.metadata.finalizers:
            before = len(outcome.failures)
            await _attempt(outcome, "the finalizer", self._deletion.hold(sandbox, body))
            if len(outcome.failures) > before:
                return judge.LinodeView(), None
        return self._exposure.protect(sandbox, service)

    async def _close(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        memory: _Memory,
        linode: judge.LinodeView,
        outcome: execute.Outcome,
    ) -> None:
        """Write the policies; those that are no longer wanted stay until the pods are gone."""
        nothing = facts.Material(engine_key="", chat_session_key="", api_keys={})
        own = inputs.own(children, sandbox.metadata.uid)
        known = inputs.rendering_facts(sandbox, own, options=self._options, material=nothing, linode=linode)
        context = inputs.plan_context(
            sandbox, own, accepted=memory.accepted, hold=frozenset(), linode=linode, now=self._now()
        )
        policies = {k: record for k, record in children.items() if k[0] == kinds.NETWORK_POLICY.kind}
        steps = plan.plan(network.render(sandbox, known), policies, context)
        steps = dataclasses.replace(steps, prune=())
        outcome.extend(
            await self._executor.execute(
                steps, namespace=sandbox.metadata.namespace, uid=sandbox.metadata.uid
            )
        )

    async def _finish(self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any]) -> float | None:
        """Deletion: retract, free the GPU, release Linode's objects, let go."""
        if names.FINALIZER not in sandbox.metadata.finalizers:
            self._exposure.drop(sandbox.metadata.uid)
            return None
        blocked, problem = await self._deletion.retract(sandbox, self._cache.children(sandbox.key)), ""
        again: float | None = 1.0
        if self._deletion.abandoned(sandbox):
            blocked = ""  # whatever the Service still waits for: a person's word ends it
        elif blocked:
            # The cloud controller holds the Service until the NodeBalancer is gone.
            since = datetime.datetime.fromisoformat(sandbox.metadata.deletion_timestamp or "")
            problem = blocked if (self._now() - since).total_seconds() > self._exposure.leak_grace else ""
        else:
            result, again = self._exposure.release(sandbox)
            if result is None or not result.released:
                waiting = result.waiting_for if result else ""
                blocked = waiting or "the NodeBalancer and its firewall are being released"
                problem = waiting if result and result.overdue else ""
        if not blocked:
            await self._exposure.forget(sandbox)
            return None
        await self._report.tell_deletion(sandbox, body, waiting_for=blocked, problem=problem)
        return min(again or 1.0, 5.0)

    async def _refuse(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], why: list[str]
    ) -> float | None:
        """A spec that breaks a rule: what stands keeps standing, as narrow as the last valid spec made it."""
        problems = tuple(judge.Problem(reason=Reason.InvalidSpec, message=text, stalled=True) for text in why)
        situation = self._situation(sandbox, problems=problems, pending=frozenset(facts.Stage))
        return await self._report.tell_status(situation, body, self._recall(sandbox))

    def _situation(
        self, sandbox: v1alpha1.AISandbox, *, children: inputs.Children | None = None, **rest: Any
    ) -> judge.Situation:
        if children is None:
            children = inputs.own(self._cache.children(sandbox.key), sandbox.metadata.uid)
        return judge.Situation(
            sandbox=sandbox,
            children=children,
            engine_inputs=engine.engine_inputs(sandbox),
            fetch_job=fetch.job_name(sandbox),
            notices=inputs.notices(sandbox),
            **rest,
        )

    def _recall(self, sandbox: v1alpha1.AISandbox) -> _Memory:
        key, uid = sandbox.key, sandbox.metadata.uid
        memory = self._memory.get(key)
        if memory is None or memory.uid != uid:
            self._forget(key)
            memory = self._memory[key] = _Memory(uid=uid, began_at=self._clock())
        return memory

    def _forget(self, key: Key) -> None:
        memory = self._memory.pop(key, None)
        if memory is not None:
            self._exposure.drop(memory.uid)
            self._report.forget(memory.uid)
            self._credentials.forget(memory.uid)
            self._gateways.forget(memory.uid)


async def _attempt(outcome: execute.Outcome, what: str, action: Awaitable[T]) -> T | None:
    """Do it; a refusal is noted and does not keep the rest of the pass from narrowing and telling."""
    try:
        return await action
    except errors.AlreadyExists as error:
        outcome.taken.append(str(error))
    except errors.KubeError as error:
        outcome.failures.append((what, error))
    return None


def _first(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
