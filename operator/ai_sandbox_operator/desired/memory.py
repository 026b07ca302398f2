"""What a model takes of GPU memory: the arithmetic behind the fit check. Pure.

All amounts are bytes on one GPU. With W the weights on one GPU:

    expected   utilization x card - 1.02 W - (2.3 GiB + 0.05 W) = cache
    too big    1.02 W + 1 GiB > 0.95 card, at any utilization up to that
    too long   the cache of one request > utilization x card - 0.95 W - 0.5 GiB

Sources: the factors of the first line, KAITO pkg/workspace/estimator/nodesestimator/estimator.go. The last
line leaves out five percent of the files, which an engine may not load (layers for drafts), and takes less
overhead than any public log of vLLM shows (0.6 GiB); docs/models.md has the comparison. What one request
takes follows vLLM, vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py.
"""

from __future__ import annotations

import dataclasses

from . import plans
from .architecture import Architecture, Cache

_GIB = 2**30
_LOADED, _OVERHEAD_SHARE, _OVERHEAD = 1.02, 0.05, 2.3 * _GIB
_SURE_CARD, _SURE_OVERHEAD = 0.95, 1.0 * _GIB
_LEAST_LOADED, _LEAST_OVERHEAD = 0.95, 0.5 * _GIB
#: The engine hands out the cache in blocks of this many tokens.
_BLOCK_TOKENS = 16
_LONGEST = 100_000_000
#: Cards from here on compute more tokens of a prompt at once (vLLM, max_num_batched_tokens).
_LARGE_CARD = 70 * _GIB
_BATCHED, _BATCHED_LARGE = 2048, 8192
#: States that a running request holds: the current one, and the last that a later request may reuse.
_STATES_HELD = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """What is asked of the cards, whichever these are."""

    architecture: Architecture
    weight_bytes: int
    """Bytes of the files that are loaded."""
    utilization: float
    context: int | None
    kv_cache_dtype: str
    max_num_seqs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A demand on certain cards. Properties are bytes on one GPU unless they say otherwise."""

    demand: Demand
    cards: plans.Cards
    count: int

    @property
    def weights(self) -> float:
        """Weights of 32 bits are loaded as 16 (vLLM, `--dtype auto`)."""
        half = self.demand.architecture.weight_element_bytes == 4
        return self.demand.weight_bytes / self.count / (2 if half else 1)

    @property
    def least_weights(self) -> float:
        """Without a word on their type, the weights might have 32 bits."""
        unsaid = self.demand.architecture.weight_element_bytes is None
        return self.weights / (2 if unsaid else 1)

    @property
    def budget(self) -> float:
        return self.demand.utilization * self.cards.memory

    @property
    def pool(self) -> float:
        """Cache that is expected; below zero if the weights alone take more."""
        return self.budget - _LOADED * self.weights - _OVERHEAD - _OVERHEAD_SHARE * self.weights

    @property
    def largest_pool(self) -> float:
        """Cache that is possible at best."""
        return self.budget - _LEAST_LOADED * self.least_weights - _LEAST_OVERHEAD

    @property
    def surely_too_big(self) -> bool:
        share = max(_SURE_CARD, self.demand.utilization)
        return _LOADED * self.least_weights + _SURE_OVERHEAD > share * self.cards.memory

    @property
    def surely_over_budget(self) -> bool:
        """The weights alone exceed what the engine may use of the card."""
        return _LEAST_LOADED * self.least_weights > self.budget

    @property
    def bytes_per_token(self) -> int:
        return int(sum(self._token_bytes(cache) for cache in self._caches if cache.window is None))

    @property
    def needs_cache(self) -> bool:
        return bool(self._caches or self.demand.architecture.state_layers)

    def request_bytes(self, tokens: int) -> float:
        """Cache of one request of that length."""
        large = self.cards.memory >= _LARGE_CARD
        batched = _BATCHED_LARGE if large else _BATCHED
        growing = sum(
            self._token_bytes(cache)
            * (tokens if cache.window is None else min(tokens, cache.window - 1 + batched))
            for cache in self._caches
        )
        known = self.demand.architecture
        return growing + _STATES_HELD * known.state_layers * known.state_bytes / self.count

    def tokens_in(self, pool: float) -> int:
        """Longest request whose cache fits into `pool`."""
        if self.request_bytes(1) > pool:
            return 0
        low, high = 1, _LONGEST
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.request_bytes(middle) <= pool else (low, middle - 1)
        return low

    @property
    def largest_context(self) -> int:
        """Longest context in tokens that is expected to fit, in whole blocks."""
        found = min(self.tokens_in(self.pool), self.demand.architecture.context or _LONGEST)
        return found // _BLOCK_TOKENS * _BLOCK_TOKENS

    @property
    def pool_tokens(self) -> int | None:
        """Requests at once times their length, as vLLM counts; None if a request takes nothing."""
        if not self.needs_cache:
            return None
        length = self.demand.context or self.largest_context
        return max(0, int(self.pool * length / self.request_bytes(length))) if length else 0

    @property
    def states(self) -> int | None:
        """Requests at once for which there are states; None if the model keeps none.

        vLLM cuts the cache into blocks that hold the states of as many layers as there are layers of
        attention, and wants one block for each request.
        """
        known = self.demand.architecture
        if not known.state_layers:
            return None
        attention = min((cache.layers for cache in self._caches), default=known.state_layers)
        block = min(attention, known.state_layers) * known.state_bytes / self.count
        return max(0, int(self.pool / block))

    @property
    def _caches(self) -> tuple[Cache, ...]:
        return self.demand.architecture.caches or ()

    def _token_bytes(self, cache: Cache) -> float:
        """Of all layers of one kind. A head that all GPUs need is held by each of them."""
        heads = -(-cache.kv_heads // self.count)
        element = _element_bytes(self.demand.kv_cache_dtype, self.demand.architecture.cache_element_bytes)
        return cache.layers * heads * cache.width * element


def _element_bytes(dtype: str, of_model: int) -> float:
    if dtype == "auto":
        return of_model
    if dtype in ("bfloat16", "float16", "half"):
        return 2
    # An unknown type is taken for the smallest there is, so that nothing is refused for it.
    return 1 if dtype.startswith(("fp8", "int8")) else 0.5
