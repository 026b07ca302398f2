"""What must hold of the fit check for any model, any cards and any document of the hub."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import hypothesis
import hypothesis.strategies as st

from ai_sandbox_operator.desired import architecture, fit, plans
from ai_sandbox_operator.desired.fit import Verdict
from unit.desired.test_architecture import JSON, READ, read

GIB = 2**30
ADA, BLACKWELL = plans.SIZES[0].cards, plans.SIZES[3].cards
#: Splitting heads has nothing to do with memory.
ORDER = [Verdict.Fits, Verdict.Unknown, Verdict.Tight, Verdict.TooBig]
MODELS = st.sampled_from([row[0] for row in READ if (read(row[0]).heads or 0) % 8 == 0])


@hypothesis.given(
    name=MODELS,
    weights=st.integers(1, 200 * GIB),
    count=st.sampled_from([1, 2, 4]),
    percent=st.integers(10, 98),
    context=st.none() | st.integers(256, 300_000),
    sequences=st.integers(1, 1024),
    data=st.data(),
)
@hypothesis.settings(max_examples=400, deadline=None)
def test_more_gpus_and_memory_never_make_it_worse_and_a_longer_context_never_better(
    name: str, weights: int, count: int, percent: int, context: int | None, sequences: int, data: Any
) -> None:
    known = read(name)

    def rank(count: int, percent: int, context: int | None, cards: plans.Cards = ADA) -> int:
        found = fit.judge(
            known,
            weights,
            cards,
            count=count,
            utilization=Decimal(percent) / 100,
            context=context,
            max_num_seqs=sequences,
        )
        assert len(found.message) < 600
        return ORDER.index(found.verdict)

    base = rank(count, percent, context)
    assert rank(2 * count, percent, context) <= base
    assert rank(count, data.draw(st.integers(percent, 99)), context) <= base
    assert rank(count, percent, context, plans.Cards("GPU", ADA.memory + GIB)) <= base
    if context is not None:
        assert rank(count, percent, data.draw(st.integers(context, 400_000))) >= base
        assert rank(count, percent, None) <= base


@hypothesis.given(
    config=JSON,
    weights=st.integers(-1, 1 << 60),
    count=st.integers(1, 8),
    context=st.none() | st.integers(0, 1 << 40),
    dtype=st.sampled_from(["auto", "fp8", "nvfp4", ""]),
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_no_document_of_the_hub_breaks_the_judgement(
    config: Any, weights: int, count: int, context: int | None, dtype: str
) -> None:
    known = architecture.read(config)
    for cards in (ADA, BLACKWELL, None):
        found = fit.judge(
            known,
            weights,
            cards,
            count=count,
            utilization=Decimal("0.92"),
            context=context,
            kv_cache_dtype=dtype,
            max_num_seqs=64,
        )
        assert found.message
        assert found.kv_tokens is None or found.kv_tokens >= 0
