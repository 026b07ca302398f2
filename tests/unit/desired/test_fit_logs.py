"""The arithmetic of the fit check against what real engines logged when they started.

docs/models.md names the sources and shows the same table.
"""

from __future__ import annotations

import dataclasses
import pathlib
from decimal import Decimal

import pytest

from ai_sandbox_operator.desired import fit, memory, plans
from ai_sandbox_operator.desired.fit import Verdict
from unit.desired.test_architecture import read

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Log:
    """What a real engine logged. Memory in GiB on one GPU; the sources are in docs/models.md."""

    name: str
    card: float
    count: int
    utilization: str
    weights: float
    """Of the files, on all GPUs."""
    available: float
    """Available KV cache memory."""
    context: int = 131072
    tokens: int | None = None
    """GPU KV cache size."""
    states: int | None = None
    """Available Mamba cache blocks."""
    dtype: str = "auto"


LOGS = [
    Log("llama-3.1-8b", 79.25, 1, "0.92", 14.96, 56.21, 131072, 460_496),
    Log("llama-3.1-8b", 39.49, 1, "0.9", 14.96, 19.28, 131072, 157_936),
    Log("gpt-oss-20b", 79.25, 1, "0.65", 12.8, 36.56),
    Log("qwen3.6-27b-fp8", 44.5, 1, "0.9", 28.75, 8.82, 131072, 141_036, 184),
    Log("qwen3.6-27b-fp8", 44.5, 1, "0.9", 28.75, 9.75, 131072, 155_600),
    Log("qwen3.6-27b-fp8", 44.5, 1, "0.86", 28.75, 7.04, 112_896, 112_896),
    Log("qwen3-235b-a22b-fp8", 79.2, 4, "0.9", 220.2, 8.11, 40960, 178_880),
]
#: Of these only what the pool holds is known.
POOLS = [
    *LOGS,
    Log("qwen3.6-35b-a3b-nvfp4", 31.4, 1, "0.92", 22, 6.01, 131072, 569_878, dtype="fp8"),
    Log("qwen3.6-27b-fp8", 23.6, 2, "0.88", 28.75, 9.84, 262144, 619_202, dtype="fp8"),
    Log("qwen3.6-27b-fp8", 80.0, 1, "0.92", 51.75, 19.54, 262144, 313_650),
]


def estimate(log: Log) -> memory.Estimate:
    demand = memory.Demand(
        architecture=read(log.name),
        weight_bytes=round(log.weights * GIB),
        utilization=float(log.utilization),
        context=log.context,
        kv_cache_dtype=log.dtype,
        max_num_seqs=8,
    )
    return memory.Estimate(demand=demand, cards=plans.Cards("GPU", round(log.card * GIB)), count=log.count)


@pytest.mark.parametrize("log", [log for log in POOLS if log.tokens])
def test_a_cache_of_known_size_holds_what_the_engine_logged(log: Log) -> None:
    tokens = log.available * GIB * log.context / estimate(log).request_bytes(log.context)
    assert tokens == pytest.approx(log.tokens, rel=0.03)


@pytest.mark.parametrize("log", LOGS)
def test_the_expected_cache_is_about_what_the_engine_found(log: Log) -> None:
    assert -0.3 < estimate(log).pool / (log.available * GIB) - 1 < 0.25


@pytest.mark.parametrize("log", LOGS)
def test_what_ran_is_never_refused(log: Log) -> None:
    found = fit.judge(
        read(log.name),
        round(log.weights * GIB),
        plans.Cards("GPU", round(log.card * GIB)),
        count=log.count,
        utilization=Decimal(log.utilization),
        context=min(log.context, read(log.name).context or 0),
        max_num_seqs=8,
    )
    assert found.verdict in (Verdict.Fits, Verdict.Tight)
    assert log.available * GIB < estimate(log).largest_pool


def test_the_states_are_as_many_as_the_engine_counted() -> None:
    (log,) = [log for log in LOGS if log.states]
    scale = log.available * GIB / estimate(log).pool
    states = estimate(log).states
    assert states is not None
    assert states * scale == pytest.approx(log.states, rel=0.02)


def _error(computed: float, logged: float) -> str:
    return f"{round(100 * (computed / logged - 1), 1) + 0.0:+.1f} %"


def test_the_page_shows_every_comparison() -> None:
    page = (pathlib.Path(__file__).parents[3] / "docs" / "models.md").read_text()
    rows = []
    for log in LOGS:
        expected = estimate(log).pool / GIB
        rows.append(f"| {log.available:.2f} GiB | {expected:.2f} GiB | {_error(expected, log.available)} |")
    for log in POOLS:
        if log.tokens:
            tokens = int(log.available * GIB * log.context / estimate(log).request_bytes(log.context))
            rows.append(
                f"| {log.available} GiB | {log.tokens:,} | {tokens:,} | {_error(tokens, log.tokens)} |"
            )
    assert [row for row in rows if row not in page] == []
