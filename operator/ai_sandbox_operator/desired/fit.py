"""Whether a model fits into the GPUs that were asked for, before one is used. Pure.

The engine measures memory itself when it starts, so this is an estimate with two edges, what is expected and
what is certain (memory.py). Only what is certain is refused; what is only expected is a warning.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Sequence
from decimal import Decimal

from . import plans
from .architecture import Architecture
from .memory import Demand, Estimate

#: A cache of fewer tokens is worth a warning.
_FEW_TOKENS = 2048
_FLAG_SEQUENCES, _FLAG_CACHE = "--max-num-seqs", "--kv-cache-dtype"
#: Flags by which the engine loads something else, or otherwise, than the configuration says.
_OVERRIDES = (
    "--cpu-offload-gb",
    "--decode-context-parallel-size",
    "--dtype",
    "--hf-config-path",
    "--hf-overrides",
    "--kv-cache-memory-bytes",
    "--language-model-only",
    "--load-format",
    "--num-gpu-blocks-override",
    "--quantization",
    "--rope-scaling",
)


class Verdict(enum.Enum):
    """What is to be expected of a start."""

    Fits = "Fits"
    Tight = "Tight"
    """It may or may not start, or with a shorter context: worth a warning."""
    TooBig = "TooBig"
    """It cannot start."""
    BadParallelism = "BadParallelism"
    """It cannot start, because the heads do not divide by the number of GPUs."""
    Unknown = "Unknown"
    """Nothing speaks against it, and too little is known to say more."""


class Cause(enum.Enum):
    """What decided the verdict."""

    Weights = "the weights do not fit into the card"
    Utilization = "the weights do not fit into the engine's share of the card"
    Heads = "the heads cannot be split"
    Model = "the model was made for a shorter context"
    Context = "the asked context does not fit beside the weights"
    Room = "too little room beside the weights"
    States = "more requests at once than states"
    Unknown = "too little is known"
    NoCache = "no cache is needed"
    Nothing = "nothing speaks against it"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """The verdict, with its numbers. A number that is not known is None."""

    verdict: Verdict
    cause: Cause
    message: str
    """For people: the numbers, and what to do unless it fits."""
    kv_bytes_per_token: int | None = None
    """Bytes on one GPU that grow with each token; 0 if nothing does."""
    kv_tokens: int | None = None
    """Tokens that all requests together may have in the cache, as vLLM logs it: GPU KV cache size."""
    largest_context: int | None = None
    """Longest context of one request in tokens that is expected to fit; 0 if none is."""
    smallest_plan: plans.Plan | None = None
    """Smallest plan of Linode that is expected to serve all that was asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What flags of the engine mean for the check; arguments of `judge`."""

    kv_cache_dtype: str
    max_num_seqs: int
    certain: bool


def settings(arguments: Sequence[str], default_sequences: int) -> Settings:
    """Read the user's arguments; of a repeated flag the last one counts.

    Args:
        arguments: spec.engine.extraArgs.
        default_sequences: requests at once without --max-num-seqs.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    dtype, sequences = "auto", default_sequences
    for flag, value in itertools.pairwise([*words, ""]):
        name = flag.replace("_", "-")
        if name == _FLAG_CACHE:
            dtype = value
        elif name == _FLAG_SEQUENCES and value.isdecimal() and len(value) < 9:
            sequences = max(1, int(value))
    return Settings(
        kv_cache_dtype=dtype,
        max_num_seqs=sequences,
        certain=not any(map(_overrides, words)),
    )


def _overrides(word: str) -> bool:
    """Any beginning of a flag stands for it."""
    name = word.replace("_", "-").partition(".")[0]
    return name == "-q" or (len(name) > 3 and any(flag.startswith(name) for flag in _OVERRIDES))


def judge(
    architecture: Architecture | None,
    weight_bytes: int,
    cards: plans.Cards | None,
    *,
    count: int,
    utilization: Decimal,
    context: int | None,
    kv_cache_dtype: str = "auto",
    max_num_seqs: int,
    certain: bool = True,
) -> Fit:
    """Judge a model on `count` cards.

    Args:
        architecture: what the model's configuration says; None: nothing.
        weight_bytes: bytes of the files that the engine loads, not of the whole repository.
        cards: the cards of the plan; None: unknown.
        count: GPUs, which is the tensor-parallel size.
        utilization: share of a card that the engine may use, 0 to 1.
        context: tokens that were asked for; None: the longest that fits.
        kv_cache_dtype: as vLLM's flag.
        max_num_seqs: requests at once, as vLLM's flag.
        certain: whether the configuration is all that decides. With flags that override it, or that
            change what is loaded, nothing is refused.
    """
    demand = Demand(
        architecture=architecture or Architecture(unknown=("configuration",)),
        weight_bytes=weight_bytes,
        utilization=float(utilization),
        context=context,
        kv_cache_dtype=kv_cache_dtype,
        max_num_seqs=max_num_seqs,
    )
    smallest = None if weight_bytes <= 0 else _smallest_plan(demand)
    known = demand.architecture
    if not _divides(known, count):
        verdict = Verdict.BadParallelism if certain else Verdict.Tight
        message = _undivided(known, count)
        return Fit(verdict=verdict, cause=Cause.Heads, message=message, smallest_plan=smallest)
    if cards is None or weight_bytes <= 0:
        message = _no_cards(weight_bytes, smallest)
        return Fit(verdict=Verdict.Unknown, cause=Cause.Unknown, message=message, smallest_plan=smallest)
    estimate = Estimate(demand=demand, cards=cards, count=count)
    cause, verdict = _judge(estimate)
    if verdict is Verdict.TooBig and not certain:
        verdict = Verdict.Tight
    cached = known.caches is not None and estimate.needs_cache
    return Fit(
        verdict=verdict,
        cause=cause,
        message=_say(cause, estimate, smallest),
        kv_bytes_per_token=None if known.caches is None else estimate.bytes_per_token,
        kv_tokens=estimate.pool_tokens if cached else None,
        largest_context=estimate.largest_context if cached else None,
        smallest_plan=smallest,
    )


def _judge(estimate: Estimate) -> tuple[Cause, Verdict]:
    """What is certain first, then what is expected."""
    demand = estimate.demand
    known, context = demand.architecture, demand.context
    if estimate.surely_too_big:
        return Cause.Weights, Verdict.TooBig
    if estimate.surely_over_budget:
        return Cause.Utilization, Verdict.TooBig
    if context and known.context and context > known.context:
        return Cause.Model, Verdict.TooBig
    needed = 0.0 if known.caches is None else estimate.request_bytes(context or 0)
    if needed > max(0, estimate.largest_pool):
        return Cause.Context if context else Cause.Room, Verdict.TooBig
    if estimate.pool < needed and context:
        return Cause.Context, Verdict.Tight
    if estimate.pool <= 0:
        return Cause.Room, Verdict.Tight
    if known.caches is None:
        return Cause.Unknown, Verdict.Unknown
    if not estimate.needs_cache:
        return Cause.NoCache, Verdict.Fits
    if estimate.tokens_in(estimate.pool) < _FEW_TOKENS:
        return Cause.Room, Verdict.Tight
    if estimate.states is not None and estimate.states < demand.max_num_seqs:
        return Cause.States, Verdict.Tight
    return Cause.Nothing, Verdict.Fits


def _smallest_plan(demand: Demand) -> plans.Plan | None:
    """The smallest plan with nothing to warn of."""
    for plan in plans.SIZES:
        if _divides(demand.architecture, plan.count):
            _, verdict = _judge(Estimate(demand=demand, cards=plan.cards, count=plan.count))
            if verdict in (Verdict.Fits, Verdict.Unknown):
                return plan
    return None


def _divides(architecture: Architecture, count: int) -> bool:
    """Whether vLLM can split the heads: evenly, and key-value heads evenly or one for several GPUs."""
    if architecture.heads is not None and architecture.heads % count:
        return False
    return all(
        not cache.kv_heads % count or not count % cache.kv_heads for cache in architecture.caches or ()
    )


def _say(cause: Cause, estimate: Estimate, smallest: plans.Plan | None) -> str:
    demand, count = estimate.demand, estimate.count
    gpu = f"the {estimate.cards.gpu}" if count == 1 else f"each of {count} {estimate.cards.gpu}"
    weights = f"The weights take {_gib(estimate.weights)} of {_gib(estimate.cards.memory)} on {gpu}"
    asked = f"spec.model.maxContextTokens {demand.context}"
    plan = _plan(smallest)
    match cause:
        case Cause.Weights:
            return f"The model is too big. {weights}, and the engine needs at least 1 GiB more. {plan}"
        case Cause.Utilization:
            percent = f"spec.engine.gpuMemoryUtilizationPercent {demand.utilization * 100:.0f}"
            return f"{weights}, but {percent} leaves {_gib(estimate.budget)} to the engine. Raise it. {plan}"
        case Cause.Model:
            length = demand.architecture.context
            return (
                f"{asked} is more than the model was made for. Set it to at most {length}, or leave it out."
            )
        case Cause.Context:
            sure = estimate.request_bytes(demand.context or 0) > estimate.largest_pool
            longest = estimate.largest_context
            shorter = f"Set it to at most {longest}, or leave it out for the longest that fits. "
            return (
                f"{asked} {'does' if sure else 'may'} not fit. {weights}, and beside them about "
                f"{_tokens(longest)} tokens are expected to fit. {shorter if longest >= 256 else ''}{plan}"
            )
        case Cause.Room:
            room = _tokens(estimate.tokens_in(estimate.pool))
            return (
                f"{weights}, which leaves room for about {room} tokens, so the engine may not start. {plan}"
            )
        case Cause.States:
            return (
                f"{weights}. About {estimate.states} requests at once fit beside them, and the engine may not start "
                f"with {_FLAG_SEQUENCES} {demand.max_num_seqs}. Add {_FLAG_SEQUENCES} {max(1, estimate.states or 0)} "
                f"to spec.engine.extraArgs. {plan}"
            )
        case Cause.Unknown:
            missing = " and ".join(demand.architecture.unknown)
            return (
                f"{weights}. How long a context fits beside them shows when the engine starts, because the model's "
                f"configuration does not tell: {missing}."
            )
        case Cause.NoCache:
            return f"{weights}. The model needs no cache."
        case _:
            length = demand.context or estimate.largest_context
            tokens = estimate.pool_tokens or 0
            return (
                f"{weights}. About {_tokens(tokens)} tokens of cache are expected beside them: "
                f"{_requests(tokens // max(1, length))} at once with the longest context, {_tokens(length)} tokens."
            )


def _undivided(architecture: Architecture, count: int) -> str:
    groups = sorted({cache.kv_heads for cache in architecture.caches or ()} - {1})
    heads = [f"{architecture.heads} attention heads"] if architecture.heads else []
    heads += [f"{number} key-value heads" for number in groups]
    possible = [str(number) for number in (1, 2, 4, 8) if _divides(architecture, number)]
    return (
        f"The model's {' and '.join(heads)} cannot be split evenly over spec.gpu.count {count}. "
        f"Set it to {' or '.join(possible)}."
    )


def _no_cards(weight_bytes: int, smallest: plans.Plan | None) -> str:
    if weight_bytes <= 0:
        return "The size of the model is not known, so whether it fits shows when the engine starts."
    return (
        f"The weights take {_gib(weight_bytes)}. Whether they fit shows when the engine starts, because spec.gpu.plan "
        f"names no plan whose GPUs are known. {_plan(smallest)}"
    )


def _plan(smallest: plans.Plan | None) -> str:
    if smallest is None:
        return "No plan of Linode fits this: use a smaller model, a quantised build or a shorter context."
    plan = (
        f"The smallest plan that fits is spec.gpu.plan {smallest.name} with spec.gpu.count {smallest.count}"
    )
    return f"{plan} (your account needs access to it)." if "blackwell" in smallest.name else f"{plan}."


def _requests(count: int) -> str:
    return "one request" if count <= 1 else f"{count} requests"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _tokens(count: int) -> str:
    """Rounded down to hundreds, which is still more than the estimate is worth."""
    return f"{count // 100 * 100:,}" if count >= 1000 else str(count)
