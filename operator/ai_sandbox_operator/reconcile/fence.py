"""The first part of a pass: close. Policies and firewall need nothing but the spec, and nothing delays them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.desired import facts, network
from ai_sandbox_operator.observed import seen

from . import deletion, execute, exposure, inputs, plan, views

Key = tuple[str, str]
#: See plan.Context.accepted.
Accepted = Mapping[tuple[str, str], tuple[bytes, bytes]]


class Cache(Protocol):
    """The watch's view, see runtime/store.py."""

    def children(self, key: Key) -> dict[tuple[str, str], seen.Seen]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fence:
    """What guards a sandbox: its Linode objects, and whether an earlier exposure is known to be gone."""

    linode: views.LinodeView
    released: bool
    again: float | None


class Fencing:
    """Brings policies and Linode objects to the spec, narrowing first."""

    def __init__(
        self,
        cache: Cache,
        executor: execute.Executor,
        exposure: exposure.Exposure,
        deletion: deletion.Deletion,
        *,
        options: inputs.Options,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._exposure = exposure
        self._deletion = deletion
        self._options = options
        self._now = now

    async def close(
        self,
        sandbox: v1alpha1.AISandbox,
        body: Mapping[str, Any],
        accepted: Accepted,
        outcome: execute.Outcome,
    ) -> Fence:
        """Policies, and what is to be true at Linode."""
        children = self._cache.children(sandbox.key)
        service = inputs.external_service(sandbox, inputs.own(children, sandbox.metadata.uid))
        linode, again = await self._guard(sandbox, body, service, outcome)
        await self._write_policies(sandbox, children, accepted, linode, outcome)
        released = True
        if (
            not inputs.is_public(sandbox)
            and service is None
            and names.FINALIZER in sandbox.metadata.finalizers
        ):
            left = await execute.attempt(outcome, "the Linode objects", self._exposure.leave(sandbox))
            released, again = left or (False, None)
        return Fence(linode=linode, released=released, again=again)

    async def _guard(
        self,
        sandbox: v1alpha1.AISandbox,
        body: Mapping[str, Any],
        service: seen.Seen | None,
        outcome: execute.Outcome,
    ) -> tuple[views.LinodeView, float | None]:
        """State what the firewall must be; the finalizer first, so that no crash leaves an ownerless object."""
        if not inputs.is_public(sandbox):
            return views.LinodeView(), None
        if names.FINALIZER not in sandbox.metadata.finalizers:
            before = len(outcome.failures)
            await execute.attempt(outcome, "the finalizer", self._deletion.hold(sandbox, body))
            if len(outcome.failures) > before:
                return views.LinodeView(), None
        return self._exposure.protect(sandbox, service)

    async def _write_policies(
        self,
        sandbox: v1alpha1.AISandbox,
        children: inputs.Children,
        accepted: Accepted,
        linode: views.LinodeView,
        outcome: execute.Outcome,
    ) -> None:
        """Write the policies; those that are no longer wanted stay until the pods are gone."""
        nothing = facts.Material(engine_key="", chat_session_key="", api_keys={})
        own = inputs.own(children, sandbox.metadata.uid)
        known = inputs.rendering_facts(
            sandbox, own, options=self._options, material=nothing, linode=linode, model=views.ModelView()
        )
        context = inputs.plan_context(
            sandbox, own, accepted=accepted, hold=frozenset(), linode=linode, commit="", now=self._now()
        )
        policies = {k: record for k, record in children.items() if k[0] == kinds.NETWORK_POLICY.kind}
        steps = plan.plan(network.render(sandbox, known), policies, context)
        steps = dataclasses.replace(steps, prune=())
        namespace, uid = sandbox.metadata.namespace, sandbox.metadata.uid
        outcome.extend(await self._executor.execute(steps, namespace=namespace, uid=uid))
