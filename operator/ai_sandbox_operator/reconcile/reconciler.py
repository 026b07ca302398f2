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
from ai_sandbox_operator.desired import common, engine, facts, fetch, render
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events
from ai_sandbox_operator.observed import seen

from . import (
    backoff,
    credentials,
    deletion,
    downloads,
    engine_trial,
    engine_update,
    engines,
    execute,
    exposure,
    fence,
    findings,
    gateways,
    inputs,
    judge_engine,
    keeper,
    model,
    plan,
    prepare,
    report,
    resolution,
    views,
)
from .references import RECHECK, references

log = logging.getLogger(__name__)

Key = tuple[str, str]
#: Seconds between two tries of what the API server refuses. Nothing tells when a quota or a policy allows it.
LONGEST_PAUSE = 15.0


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
    silent: str = ""
    refusals: int = 0
    told_at: float = float("-inf")


_NOTHING_WRITTEN = plan.Plan(pending=frozenset(facts.Stage))
_NOTHING_SERVED = views.GatewayProof(message="the gateway's configuration is being written")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Done:
    """What is left to write, and what the gateway was seen to serve."""

    steps: plan.Plan = _NOTHING_WRITTEN
    gateway: views.GatewayProof = _NOTHING_SERVED
    engine_wanted: engine_update.Wanted | None = None
    trial: engine_trial.Trial | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """What a pass says of itself.

    Attributes:
        again: seconds until the next, or None to wait for an event.
        refused: whether the API server refused something, or did not answer; lost races do not count.
    """

    again: float | None = None
    refused: bool = False


class Reconciler:
    """Brings sandboxes to their specs."""

    def __init__(
        self,
        *,
        client: kube_client.KubeClient,
        cache: Cache,
        linode: keeper.Keeper,
        gateway: gateways.Gateways,
        engine: engines.Engines,
        hub: resolution.Resolutions,
        recorder: events.Recorder,
        options: inputs.Options,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._cache = cache
        self._gateways = gateway
        self._engines = engine
        self._options = options
        self._clock = clock
        self._now = now
        self._executor = execute.Executor(client, cache.write_back)
        self._preparation = prepare.Preparation(client, hub, cache.write_back, clock=clock, now=now)
        self._deletion = deletion.Deletion(client, remember=cache.remember)
        self._exposure = exposure.Exposure(client, linode, self._deletion, cluster_id=options.cluster_id)
        self._fencing = fence.Fencing(
            cache, self._executor, self._exposure, self._deletion, options=options, now=now
        )
        self._report = report.Reporter(client, recorder, remember=cache.remember, clock=clock, now=now)
        self._findings = findings.Findings(client, clock=clock)
        self._downloads = downloads.Downloads(client, clock=clock)
        self._memory: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> Ended:
        """One pass."""
        body = self._cache.sandbox(key)
        if body is None:
            self._forget(key)
            return Ended()
        try:
            sandbox = v1alpha1.parse(body)
        except pydantic.ValidationError as error:
            sandbox = inputs.bare(body)
            if not sandbox.metadata.deletion_timestamp:
                return Ended(again=await self._refuse(sandbox, body, [_first(error)]))
        memory = self._recall(sandbox)
        if sandbox.metadata.deletion_timestamp:
            return Ended(again=await self._finish(sandbox, body))
        if invalid := validation.violations(sandbox):
            why = [f"{v.field}: {v.message}" for v in invalid]
            return Ended(again=await self._refuse(sandbox, body, why))
        try:
            return await self._converge(sandbox, body, memory)
        except errors.KubeError:
            raise
        except Exception as error:
            await self._admit(sandbox, body, memory, error)
            raise

    async def _converge(self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], memory: _Memory) -> Ended:
        outcome = execute.Outcome()
        # Close first. Policies and firewall need nothing but the spec, and nothing else may delay them.
        closed = await self._fencing.close(sandbox, body, memory.accepted, outcome)
        own = inputs.own(self._cache.children(sandbox.key), sandbox.metadata.uid)
        ready = await self._preparation.prepare(sandbox, own, outcome)
        done = await self._write(sandbox, memory, closed, ready, outcome)
        again = await self._tell(sandbox, body, memory, closed, ready, done, outcome)
        return Ended(again=again, refused=outcome.refused)

    async def _write(
        self,
        sandbox: v1alpha1.AISandbox,
        memory: _Memory,
        closed: fence.Fence,
        ready: prepare.Prepared,
        outcome: execute.Outcome,
    ) -> _Done:
        """Bring the children to the spec; without keys nothing more is written."""
        key, uid, found = sandbox.key, sandbox.metadata.uid, ready.model
        trial = self._findings.trial(uid)
        if ready.material is None:
            return _Done(trial=trial)
        children = self._cache.children(key)
        own = inputs.own(children, uid)
        known = inputs.rendering_facts(
            sandbox,
            own,
            options=self._options,
            material=ready.material,
            linode=closed.linode,
            model=found,
            volume=ready.volume,
        )
        desired = render.render(sandbox, known)
        context = inputs.plan_context(
            sandbox,
            own,
            accepted=memory.accepted,
            hold=ready.hold,
            linode=closed.linode,
            commit=found.commit,
            now=self._now(),
            patience=self._options.engine_patience,
            trial=trial,
            silent=memory.silent,
            volume=ready.volume,
        )
        steps = plan.plan(desired, children, context)
        if steps.retract and not await execute.attempt(
            outcome, "the spec", self._exposure.unchanged(sandbox)
        ):
            steps = dataclasses.replace(steps, retract=())
        outcome.extend(await self._executor.execute(steps, namespace=key[0], uid=uid))
        memory.accepted.update(outcome.accepted)
        if not steps.empty:
            children = self._cache.children(key)
            steps = plan.plan(desired, children, context)
        done = _Done(steps=steps, engine_wanted=inputs.engine_wanted(desired), trial=trial)
        if inputs.touches_gateway_configuration(steps.steps, sandbox.metadata.name):
            return done
        parts = inputs.gateway(sandbox, inputs.own(children, uid))
        proof = self._gateways.prove(sandbox, inputs.access_revision(desired), *parts)
        return dataclasses.replace(done, gateway=proof)

    async def _tell(
        self,
        sandbox: v1alpha1.AISandbox,
        body: Mapping[str, Any],
        memory: _Memory,
        closed: fence.Fence,
        ready: prepare.Prepared,
        done: _Done,
        outcome: execute.Outcome,
    ) -> float | None:
        """Look at what came of it, and say so; returns the seconds until the next pass."""
        uid, found = sandbox.metadata.uid, ready.model
        own = inputs.own(self._cache.children(sandbox.key), uid)
        answers = self._engine(sandbox, own, ready.material)
        memory.silent = answers.message if answers.reason is Reason.EngineUnproven else ""
        causes = await self._findings.of(sandbox, own, material=ready.material)
        fetching = self._findings.pods(uid, common.FETCH)
        situation = self._situation(
            sandbox,
            children=own,
            pending=done.steps.pending | frozenset(outcome.held_back),
            releasing=not inputs.is_public(sandbox)
            and (not closed.released or ("Service", sandbox.metadata.name) in own),
            gateway=done.gateway,
            problems=(
                *ready.problems,
                *([found.problem] if found.problem else []),
                *ready.lacks,
                *credentials.unusable_keys(sandbox, own),
                *inputs.write_problems(outcome),
            ),
            linode=closed.linode,
            found=found,
            engine=answers,
            engine_wanted=done.engine_wanted,
            findings=causes,
            progress=await self._downloads.progress(sandbox, fetching),
        )
        told = await self._report.tell_status(situation, body, memory)
        waits = [told, closed.again, ready.again, found.again]
        if next(references(sandbox), None) is not None:
            waits.append(RECHECK / 2 if ready.problems else RECHECK)
        if done.steps.waiting or not closed.released:
            waits.append(1.0)
        memory.refusals = memory.refusals + 1 if outcome.refused or outcome.taken else 0
        if outcome.failures or outcome.taken:
            retries = [error.retry_after for _, error in outcome.failures if error.retry_after]
            pause = backoff.pause(memory.refusals, first=1.0, longest=LONGEST_PAUSE)
            waits.append(max([pause, 1.0, *retries]))
        if inputs.waiting_components(sandbox, own):
            waits.append(findings.EVERY if self._findings.trial(uid) == done.trial else 0.1)
        if judge_engine.serves(situation) and inputs.engine_unkept(sandbox, own):
            # It was told as serving just now; the own write of the status causes no pass.
            waits.append(1.0)
        return min((wait for wait in waits if wait is not None), default=None)

    async def _finish(self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any]) -> float | None:
        """Deletion: retract, free the GPU, release Linode's objects, let go."""
        if names.FINALIZER not in sandbox.metadata.finalizers:
            self._exposure.drop(sandbox.metadata.uid)
            return None
        blocked = await self._deletion.retract(sandbox, self._cache.children(sandbox.key))
        if self._deletion.abandoned(sandbox):
            # Whatever is still waited for: a person's word ends it.
            await self._exposure.forget(sandbox)
            return None
        wait, again = await self._left(sandbox, blocked)
        if wait is None:
            await self._exposure.forget(sandbox)
            return None
        await self._report.tell_deletion(sandbox, body, wait)
        return min(again or 1.0, 5.0)

    async def _left(
        self, sandbox: v1alpha1.AISandbox, blocked: str
    ) -> tuple[deletion.Wait | None, float | None]:
        """What a deletion still waits for, None for nothing; and when to look again."""
        grace = self._exposure.leak_grace
        if blocked:
            # The cloud controller holds the Service until the NodeBalancer is gone.
            since = datetime.datetime.fromisoformat(sandbox.metadata.deletion_timestamp or "")
            overdue = (self._now() - since).total_seconds() > grace
            return deletion.Wait(text=blocked, overdue=overdue), 1.0
        result, again = self._exposure.release(sandbox)
        if result is None or not result.released:
            waiting = result.waiting_for if result else ""
            text = waiting or "the NodeBalancer and its firewall are being released"
            return deletion.Wait(text=text, overdue=bool(waiting and result and result.overdue)), again
        return await self._deletion.pods_ending(sandbox, now=self._now(), grace=grace), 1.0

    async def _refuse(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], why: list[str]
    ) -> float | None:
        """A spec that breaks a rule: what stands keeps standing, as narrow as the last valid spec made it."""
        problems = tuple(views.Problem(reason=Reason.InvalidSpec, message=text, stalled=True) for text in why)
        situation = self._situation(sandbox, problems=problems, pending=frozenset(facts.Stage))
        return await self._report.tell_status(situation, body, self._recall(sandbox))

    async def _admit(
        self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any], memory: _Memory, error: Exception
    ) -> None:
        """A pass that ends in a defect is told; what was told before it may hold no more (I8)."""
        log.error("a pass ended early", extra={"key": sandbox.key}, exc_info=error)
        # The kind of the error alone: its words may hold a value of a Secret (I6).
        text = f"the operator met an unexpected {type(error).__name__}; its log says where"
        problem = views.Problem(reason=Reason.OperatorFault, message=text)
        situation = self._situation(sandbox, problems=(problem,), pending=frozenset(facts.Stage))
        try:
            await self._report.tell_status(situation, body, memory)
        except Exception:
            log.exception("the status cannot be told", extra={"key": sandbox.key})

    def _situation(
        self,
        sandbox: v1alpha1.AISandbox,
        *,
        found: views.ModelView | None = None,
        children: inputs.Children | None = None,
        **rest: Any,
    ) -> views.Situation:
        if children is None:
            children = inputs.own(self._cache.children(sandbox.key), sandbox.metadata.uid)
        if found is None:
            commit, size = model.pinned(sandbox, children)
            found = views.ModelView(commit=commit, size_bytes=size)
        return views.Situation(
            sandbox=sandbox,
            children=children,
            engine_inputs=engine.engine_inputs(sandbox, found.commit),
            fetch_job=fetch.job_name(sandbox, found.commit),
            model=found,
            notices=(*inputs.notices(sandbox), *([found.notice] if found.notice else [])),
            **rest,
        )

    def _engine(
        self, sandbox: v1alpha1.AISandbox, own: inputs.Children, material: facts.Material | None
    ) -> views.EngineProof:
        """What the engine answers; it is asked with its own key only."""
        deployment = own.get(("Deployment", engine.service_name(sandbox)))
        if material is None:
            return views.EngineProof(unseen=True, message="the engine's key is not known")
        return self._engines.prove(sandbox, deployment, key=material.engine_key)

    def _recall(self, sandbox: v1alpha1.AISandbox) -> _Memory:
        key, uid = sandbox.key, sandbox.metadata.uid
        memory = self._memory.get(key)
        if memory is None or memory.uid != uid:
            self._forget(key)
            memory = self._memory[key] = _Memory(uid=uid)
        return memory

    def _forget(self, key: Key) -> None:
        memory = self._memory.pop(key, None)
        if memory is not None:
            self._exposure.drop(memory.uid)
            self._report.forget(memory.uid)
            self._findings.forget(memory.uid)
            self._downloads.forget(memory.uid)
            self._preparation.forget(memory.uid)
            self._gateways.forget(memory.uid)
            self._engines.forget(memory.uid, key)


def _first(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
