"""The fit check against figures worked out by hand, and what it says.

Expected tokens are thousands, from (0.92 x card - 1.02 W - 2.3 GiB - 0.05 W) / KiB per token, with 19.5 and
94.9 GiB for a card. Weights are the sizes of the files, to about one percent.
"""

from __future__ import annotations

import pathlib
from decimal import Decimal

import pytest

from ai_sandbox_operator.desired import architecture, fit, plans
from ai_sandbox_operator.desired.architecture import Architecture, Cache
from ai_sandbox_operator.desired.fit import Cause, Verdict
from unit.desired.test_architecture import document, read

GIB = 2**30
PAGE = pathlib.Path(__file__).parents[3] / "docs" / "models.md"
ADA, BLACKWELL = plans.SIZES[0].cards, plans.SIZES[3].cards
PLACES = ((ADA, 1), (ADA, 2), (ADA, 4), (BLACKWELL, 1), (BLACKWELL, 4))
F, T, B = Verdict.Fits, Verdict.Tight, Verdict.TooBig


def judge(
    name: str,
    cards: plans.Cards | None = ADA,
    count: int = 1,
    *,
    utilization: str = "0.92",
    context: int | None = None,
    kv_cache_dtype: str = "auto",
    max_num_seqs: int = 8,
    certain: bool = True,
) -> fit.Fit:
    return fit.judge(
        read(name),
        document(name)["_weight_bytes"],
        cards,
        count=count,
        utilization=Decimal(utilization),
        context=context,
        kv_cache_dtype=kv_cache_dtype,
        max_num_seqs=max_num_seqs,
        certain=certain,
    )


#: Name, KiB per token on one GPU, verdicts and thousands of tokens on 1x20, 2x20, 4x20, 1x96 and 4x96 GB,
#: smallest plan by number of cards and gigabytes. None: not worked out.
BY_HAND: list[tuple[str, float, str, tuple[int | None, ...], str]] = [
    ("mistral-7b-instruct-v0.3", 128, "FFFFF", (9, 137, 394, 578, None), "1x20"),
    ("qwen3-0.6b", 112, "FFFFF", (132, 278, 571, 781, None), "1x20"),
    ("qwen3-4b", 144, "FFFFF", (55, 169, 397, 560, None), "1x20"),
    ("qwen3-8b-awq", 144, "FFFFF", (69, 183, 411, 574, None), "1x20"),
    ("qwen3-14b-fp8", 160, "TFFFF", (0, 97, 302, 449, None), "2x20"),
    ("llama-3.1-8b", 128, "TFFFF", (0, 124, 381, 564, None), "2x20"),
    ("llama-3.3-70b-fp8", 320, "BBTFF", (0, 0, 0, 41, None), "1x96"),
    ("ministral-3-8b", 136, "FFFFF", (40, 161, 402, 575, None), "1x20"),
    ("gpt-oss-120b", 36, "BBTFF", (0, 0, 0, None, None), "1x96"),
    ("mixtral-8x7b", 128, "BBBTF", (0, 0, 0, 0, 2023), "2x96"),
    ("qwen3-30b-a3b", 96, "BBFFF", (0, 0, 18, 264, 3049), "4x20"),
    ("qwen2.5-7b-gptq-int4", 56, "FFFFF", (189, 482, 1067, 1488, None), "1x20"),
    ("qwen3-embedding-0.6b", 112, "FFFFF", (135, 282, 575, 785, None), "1x20"),
    ("deepseek-v2-lite", 30.375, "BTFFF", (0, 0, 270, 1854, 2664), "4x20"),
    ("deepseek-v3", 68.625, "BBBBB", (0, 0, 0, 0, 0), ""),
    ("llama-3.3-70b-nvfp4", 160, "BBFFF", (0, 0, 131, 278, 1950), "4x20"),
    # Sliding windows and states take their share of each request: fewer tokens than the division gives.
    ("qwen3.6-27b-fp8", 64, "BFFFF", (0, None, None, None, None), "2x20"),
    ("gpt-oss-20b", 24, "FFFFF", (None, None, None, None, None), "1x20"),
    ("gemma-3-12b-it", 64, "BFFFF", (0, None, None, None, None), "2x20"),
    ("mistral-7b-v0.1", 0, "FFFFF", (None, None, None, None, None), "1x20"),
    ("qwen3-next-80b-a3b", 24, "BBBBF", (0, 0, 0, 0, None), "2x96"),
    ("granite-4.0-h-small", 16, "BBTFF", (0, 0, 0, None, None), "1x96"),
    ("nemotron-h-8b", 16, "TFFFF", (0, None, None, None, None), "2x20"),
]
VERDICTS = {"F": Verdict.Fits, "T": Verdict.Tight, "B": Verdict.TooBig}


@pytest.mark.parametrize(
    ("name", "per_token", "verdicts", "tokens", "smallest"), BY_HAND, ids=[row[0] for row in BY_HAND]
)
def test_a_real_model_is_judged_as_worked_out_by_hand(
    name: str, per_token: float, verdicts: str, tokens: tuple[int | None, ...], smallest: str
) -> None:
    found = [judge(name, cards, count) for cards, count in PLACES]
    assert [fits.verdict for fits in found] == [VERDICTS[letter] for letter in verdicts]
    assert found[0].kv_bytes_per_token == per_token * 1024
    for fits, thousands in zip(found, tokens, strict=True):
        if thousands is not None:
            assert fits.kv_tokens is not None
            assert abs(fits.kv_tokens / 1000 - thousands) <= 1 + 0.01 * thousands
    plan = found[0].smallest_plan
    assert smallest == ("" if plan is None else f"{plan.count}x{20 if plan.cards is ADA else 96}")


def test_the_page_shows_what_is_expected() -> None:
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and "k |" in line]
    ids = {document(row[0])["_source"].partition(":")[0]: row[0] for row in BY_HAND}
    assert len(shown) == 13
    for line in shown:
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        name = ids[cells[0]]
        expected = [f"{document(name)['_weight_bytes'] / GIB:.1f}", f"{(read(name).context or 0) // 1024}k"]
        for cards, count in PLACES[:4]:
            found = judge(name, cards, count, max_num_seqs=64)
            fits = f"{(found.kv_tokens or 0) // 1000:,}k / {(found.largest_context or 0) // 1000}k"
            expected.append({B: "–", T: "tight"}.get(found.verdict, fits))
        assert cells[1:7] == expected


@pytest.mark.parametrize(
    ("name", "cards", "count", "division", "share"),
    [
        # A request of 131072 tokens: 40 layers x 8 KiB x (1023 + 2048) tokens beside 8 layers x 8 KiB x all.
        ("gemma-3-12b-it", ADA, 4, 627, 1 - (40 * 3071) / (40 * 3071 + 8 * 131072)),
        ("gemma-3-12b-it", BLACKWELL, 1, 994, 1 - (40 * 9215) / (40 * 9215 + 8 * 131072)),
        ("gpt-oss-20b", ADA, 4, 2134, 1 - 2175 / (2175 + 131072)),
        # Two states of 48 x 3.2 MB beside 262144 x 64 KiB.
        ("qwen3.6-27b-fp8", ADA, 4, 520, 1 - 308 / (308 + 17180)),
    ],
)
def test_windows_and_states_take_their_share_of_the_cache(
    name: str, cards: plans.Cards, count: int, division: int, share: float
) -> None:
    found = judge(name, cards, count).kv_tokens
    assert found is not None
    assert found / 1000 == pytest.approx(division * share, rel=0.01)


@pytest.mark.parametrize(
    ("name", "count", "possible"),
    [("qwen2.5-7b-gptq-int4", 8, "1 or 2 or 4"), ("qwen3-14b-fp8", 3, "1 or 2 or 4 or 8")],
)
def test_heads_that_cannot_be_split_are_refused_before_memory_is_looked_at(
    name: str, count: int, possible: str
) -> None:
    found = judge(name, None, count)
    assert found.verdict is Verdict.BadParallelism
    assert f"spec.gpu.count {count}. Set it to {possible}." in found.message


def test_key_value_heads_must_divide_unless_they_are_compressed() -> None:
    uneven = Architecture(heads=40, caches=(Cache(layers=2, kv_heads=10, width=256),))
    judged = {count: _verdict(uneven, count) for count in (1, 2, 4)}
    assert [verdict is Verdict.BadParallelism for verdict in judged.values()] == [False, False, True]
    assert judge("deepseek-v2-lite", ADA, 4).verdict is Verdict.Fits


def _verdict(
    known: Architecture | None, count: int = 1, weights: int = GIB, utilization: str = "0.92"
) -> Verdict:
    share = Decimal(utilization)
    return fit.judge(
        known, weights, ADA, count=count, utilization=share, context=None, max_num_seqs=8
    ).verdict


def test_more_gpus_than_key_value_heads_do_not_make_the_cache_of_one_smaller() -> None:
    per_token = [judge("qwen3-30b-a3b", BLACKWELL, count).kv_bytes_per_token for count in (1, 2, 4, 8)]
    assert per_token == [96 * 1024, 48 * 1024, 24 * 1024, 24 * 1024]
    assert {judge("deepseek-v3", ADA, count).kv_bytes_per_token for count in (1, 8)} == {70272}


@pytest.mark.parametrize(
    ("context", "verdict", "cause", "said"),
    [
        (8192, F, Cause.Nothing, "one request at once"),
        # More than is expected, less than the most that overhead could leave: 4.3 GiB, 35k tokens.
        (32768, T, Cause.Context, "may not fit"),
        (32769, B, Cause.Model, "more than the model was made for. Set it to at most 32768"),
    ],
)
def test_an_asked_context_is_compared_with_what_fits(
    context: int, verdict: Verdict, cause: Cause, said: str
) -> None:
    found = judge("mistral-7b-instruct-v0.3", context=context)
    assert (found.verdict, found.cause, said in found.message) == (verdict, cause, True)
    assert "spec.model.maxContextTokens" in found.message or verdict is F


def test_a_context_that_surely_does_not_fit_names_the_largest_and_the_plan() -> None:
    found = judge("qwen3-8b-awq", context=40960)
    assert found.verdict is F
    found = judge("llama-3.1-8b", context=131072)
    assert (found.verdict, found.largest_context) == (B, 0)
    assert "spec.model.maxContextTokens 131072 does not fit" in found.message
    assert "spec.gpu.plan g2-gpu-rtx4000a4-s with spec.gpu.count 4" in found.message
    found = judge("ministral-3-8b", context=262144)
    assert f"Set it to at most {found.largest_context}" in found.message


def test_a_model_that_is_too_big_names_the_plan_that_fits() -> None:
    found = judge("qwen3-30b-a3b", ADA, 1)
    assert found.message == (
        "The model is too big. The weights take 56.9 GiB of 19.5 GiB on the RTX 4000 Ada (20 GB), and the engine "
        "needs at least 1 GiB more. The smallest plan that fits is spec.gpu.plan g2-gpu-rtx4000a4-s with "
        "spec.gpu.count 4."
    )
    assert "No plan of Linode fits this" in judge("deepseek-v3", BLACKWELL, 4).message


def test_the_edge_of_too_big_is_where_it_is_certain() -> None:
    edge = int((Decimal("0.95") * ADA.memory - GIB) / Decimal("1.02"))
    known = read("mistral-7b-instruct-v0.3")
    assert _verdict(known, weights=edge - 1000) is T
    assert _verdict(known, weights=edge + 1000) is B
    assert _verdict(None, weights=edge - 1000) is T
    # Who gives the engine more of the card than that may have it.
    assert _verdict(known, weights=edge + 1000, utilization="0.99") is T


def test_a_small_share_of_the_card_is_refused_by_its_own_name() -> None:
    found = judge("mistral-7b-instruct-v0.3", utilization="0.5")
    assert found.verdict is B
    assert "spec.engine.gpuMemoryUtilizationPercent 50 leaves 9.8 GiB" in found.message


def test_few_tokens_are_a_warning() -> None:
    # 17.94 - 1.07 x 14.48 - 2.3 GiB leave 0.15 GiB, which is 1.2k tokens of 128 KiB.
    found = _verdict(read("mistral-7b-instruct-v0.3"), weights=round(14.48 * GIB))
    assert found is T
    assert _verdict(read("mistral-7b-instruct-v0.3"), weights=round(14.3 * GIB)) is F


def test_more_requests_at_once_than_states_are_a_warning_with_the_flag() -> None:
    found = judge("qwen3.6-27b-fp8", ADA, 2, max_num_seqs=64)
    assert found.verdict is T
    assert "Add --max-num-seqs 9 to spec.engine.extraArgs." in found.message
    assert judge("qwen3.6-27b-fp8", ADA, 4, max_num_seqs=64).verdict is F
    assert judge("qwen3-30b-a3b", ADA, 4, max_num_seqs=9999).verdict is F


def test_eight_bits_halve_the_cache_of_a_token() -> None:
    plain, half = (judge("qwen3-4b", kv_cache_dtype=dtype) for dtype in ("auto", "fp8_e4m3"))
    assert plain.kv_bytes_per_token == 2 * (half.kv_bytes_per_token or 0)
    checkpoint = [judge("llama-3.3-70b-nvfp4", kv_cache_dtype=dtype) for dtype in ("auto", "bfloat16")]
    assert [found.kv_bytes_per_token for found in checkpoint] == [160 * 1024, 320 * 1024]


def test_an_encoder_needs_no_cache_and_loads_half_of_its_32_bits() -> None:
    found = judge("bge-m3")
    assert (found.verdict, found.kv_bytes_per_token, found.kv_tokens) == (F, 0, None)
    assert "The weights take 1.1 GiB" in found.message


@pytest.mark.parametrize(
    "known", [None, architecture.read({}), architecture.read({"num_hidden_layers": "x"})]
)
def test_an_unknown_model_is_judged_on_bytes_alone(known: Architecture | None) -> None:
    assert _verdict(known, weights=8 * GIB) is Verdict.Unknown
    # Nobody said that the files are not of 32 bits: half of them would fit.
    assert _verdict(known, weights=30 * GIB) is T
    assert _verdict(known, weights=40 * GIB) is B


def test_without_a_known_plan_nothing_is_refused_and_a_plan_is_named() -> None:
    found = judge("llama-3.3-70b-fp8", None)
    assert found.verdict is Verdict.Unknown
    assert "spec.gpu.plan g3-gpu-rtxpro6000-blackwell-1 with spec.gpu.count 1" in found.message
    assert _verdict(read("qwen3-4b"), weights=0) is Verdict.Unknown


def test_flags_that_override_the_configuration_turn_refusals_into_warnings() -> None:
    assert judge("deepseek-v3", certain=False).verdict is T
    assert judge("qwen3-4b", context=99999, certain=False).verdict is T
    assert judge("qwen3-14b-fp8", count=3, certain=False).verdict is T
    assert judge("qwen3-4b", certain=False).verdict is F


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], ("auto", 64, True)),
        (["--kv-cache-dtype", "fp8", "--max-num-seqs=8"], ("fp8", 8, True)),
        (["--kv_cache_dtype=fp8", "--max-num-seqs", "8", "--max-num-seqs", "4"], ("fp8", 4, True)),
        (["--max-num-seqs", "many", "--enforce-eager"], ("auto", 64, True)),
        (["--hf-overrides.rope_scaling.factor", "2"], ("auto", 64, False)),
        (["-q", "fp8"], ("auto", 64, False)),
        (["--quant=fp8"], ("auto", 64, False)),
        (["--cpu_offload_gb", "4"], ("auto", 64, False)),
        (["--max-num-seqs"], ("auto", 64, True)),
    ],
)
def test_flags_that_matter_are_read(arguments: list[str], settings: tuple[str, int, bool]) -> None:
    found = fit.settings(arguments, 64)
    assert (found.kv_cache_dtype, found.max_num_seqs, found.certain) == settings


def test_plans_are_found_by_name_and_ordered_by_memory() -> None:
    sizes = [plan.count * plan.cards.memory for plan in plans.SIZES]
    assert sizes == sorted(sizes)
    assert {plan.name for plan in plans.SIZES} <= set(plans.GPU_PLANS)
    assert all(plans.find(plan.name) == plan for plan in plans.SIZES)
    counts = {name: found.count for name in plans.GPU_PLANS if (found := plans.find(name))}
    assert counts.keys() == set(plans.GPU_PLANS)
    assert [counts[f"g2-gpu-rtx4000a{count}-s"] for count in (1, 2, 4)] == [1, 2, 4]
    assert plans.cards("g2-gpu-rtx4000a2-hs") is ADA
    assert plans.cards("g3-gpu-rtxpro6000-blackwell-16") is None
    assert plans.cards("") is plans.cards("g1-gpu-rtx6000-1") is None
