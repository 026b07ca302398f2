"""What a pass may do with the model: which commit, whether it is known, whether it fits the GPUs.

Nothing is fetched and no GPU is asked for before the hub named a commit and the model was seen to fit.
Pure but for the look at the hub that it is given.
"""

from __future__ import annotations

import decimal
from collections.abc import Awaitable, Callable, Mapping

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import common, engine, fit, plans
from ai_sandbox_operator.fetch.failures import FetchError
from ai_sandbox_operator.observed import fetch_result

from . import inputs, resolution, views

_REFUSED = frozenset({fit.Verdict.TooBig, fit.Verdict.BadParallelism})
_REASONS = {
    fit.Cause.Model: Reason.ContextTooLong,
    fit.Cause.Context: Reason.KVCacheTooSmall,
    fit.Cause.Heads: Reason.GPUCountUnsupported,
}


async def view(
    sandbox: v1alpha1.AISandbox,
    children: inputs.Children,
    look: Callable[[v1alpha1.AISandbox, str], resolution.Look],
    pool: Callable[[Mapping[str, str]], Awaitable[plans.Cards | None]],
) -> views.ModelView:
    """What is known of the model of the current spec.

    The hub is asked only for a model that is not pinned, and for the architecture of one whose engine is
    about to change; an engine that has what the spec says needs neither.

    Args:
        look: what the hub says, see `resolution.Resolutions.look`.
        pool: the cards of the nodes with these labels, see `pool.Pool.cards`.
    """
    commit, size = pinned(sandbox, children)
    running = children.get(("Deployment", f"{sandbox.metadata.name}-engine"))
    current = running is not None and running.facts["engine_inputs"] == engine.engine_inputs(sandbox, commit)
    if commit and current:
        return views.ModelView(commit=commit, size_bytes=size)
    seen = look(sandbox, commit)
    if seen.model is not None:
        gpu = sandbox.spec.gpu
        cards = plans.cards(gpu.plan) if gpu.plan else await pool(gpu.node_selector)
        problem, notice = _fit(sandbox, seen.model, cards)
        return views.ModelView(
            commit=seen.model.commit,
            size_bytes=seen.model.size_bytes,
            problem=problem,
            notice=notice,
            hold=_hold(sandbox) if problem else frozenset(),
        )
    if seen.failure is None:
        return views.ModelView(commit=commit, size_bytes=size, pending=True, hold=_hold(sandbox))
    if commit:
        # The commit is known and the hub silent: only the check of the fit is lost, and the engine makes it too.
        return views.ModelView(commit=commit, size_bytes=size, again=seen.again)
    return views.ModelView(failure=_failure(seen.failure), hold=_hold(sandbox), again=seen.again)


def pinned(sandbox: v1alpha1.AISandbox, children: inputs.Children) -> tuple[str, int | None]:
    """Commit and bytes that the current id and revision were resolved to; empty if they were not.

    The engine carries the commit as well: a status that was lost must not restart it with another one.
    """
    source, held = engine.model_source(sandbox), sandbox.status.model
    if held is not None and held.resolved_from == source and held.revision:
        return held.revision, held.size_bytes
    record = children.get(("Deployment", f"{sandbox.metadata.name}-engine"))
    carried = record.facts["model"].rsplit(" ", 2) if record else []
    if len(carried) == 3 and carried[0] == source and carried[2].isdecimal():
        return carried[1], int(carried[2]) or None
    return "", None


def _hold(sandbox: v1alpha1.AISandbox) -> frozenset[str]:
    """What must stay as it is. A suspension is never held up: it frees a GPU."""
    suspended = sandbox.spec.lifecycle.state == "Suspended"
    return frozenset({common.FETCH} if suspended else {common.FETCH, common.ENGINE})


def _failure(error: FetchError) -> views.Problem:
    return views.Problem(
        reason=fetch_result.REASONS.get(error.failure.name, Reason.FetchFailed),
        message=error.detail,
        stalled=error.failure.permanent,
    )


def _fit(
    sandbox: v1alpha1.AISandbox, model: resolution.Model, cards: plans.Cards | None
) -> tuple[views.Problem | None, str]:
    """Why the engine must not be started, and what a person should know."""
    spec = sandbox.spec
    plan = plans.find(spec.gpu.plan)
    if plan is not None and spec.gpu.count > plan.count:
        text = f"spec.gpu.count {spec.gpu.count} is more than plan {plan.name} has ({plan.count})"
        return views.Problem(reason=Reason.NoGPUNode, message=text, stalled=True), ""
    flags = fit.settings(spec.engine.extra_args, engine.sequences(spec))
    judged = fit.judge(
        model.architecture,
        model.weight_bytes,
        cards,
        count=spec.gpu.count,
        utilization=decimal.Decimal(spec.engine.gpu_memory_utilization_percent) / 100,
        context=spec.model.max_context_tokens,
        kv_cache_dtype=flags.kv_cache_dtype,
        max_num_seqs=flags.max_num_seqs,
        certain=flags.certain,
    )
    if judged.verdict in _REFUSED:
        reason = _REASONS.get(judged.cause, Reason.ModelTooLarge)
        return views.Problem(reason=reason, message=judged.message, stalled=True), ""
    return None, judged.message if judged.verdict is fit.Verdict.Tight else ""
