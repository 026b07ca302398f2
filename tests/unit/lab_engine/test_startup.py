from __future__ import annotations

import math

import pytest

from lab.engine import plan, startup
from lab.engine.script import HEALTHY, PHASES, Script

FLAGS = ("/models/m", "--served-model-name", "m", "--max-model-len", "auto", "--port", "8000")
#: A text by which each phase is known, in order.
BEGINNINGS = {
    "import": "non-default args:",
    "config": "Resolved architecture:",
    "load": "Loading safetensors checkpoint shards:",
    "compile": "torch.compile took",
    "profile": "GPU KV cache size:",
    "graphs": "Graph capturing finished in",
    "serve": "Starting vLLM server on http://0.0.0.0:8000",
}


def made(script: Script = HEALTHY, total: float = 140.0, flags: tuple[str, ...] = FLAGS) -> plan.Plan:
    return plan.make(flags, {}, script, total=total, began=1_700_000_000)


def test_a_start_goes_through_all_phases_in_order() -> None:
    text = "\n".join(made().log(math.inf))
    places = [text.index(marker) for marker in BEGINNINGS.values()]
    assert places == sorted(places)
    assert text.endswith("Application startup complete.")


@pytest.mark.parametrize("phase", PHASES)
def test_the_log_of_a_phase_ends_before_the_next_one_begins(phase: str) -> None:
    begins = Script().begins(140)
    later = list(begins)[list(begins).index(phase) + 1]
    text = "\n".join(made().log(begins[later] - 0.01))
    following = list(BEGINNINGS)[list(PHASES).index(phase) + 1 :]
    assert not [marker for name in following if (marker := BEGINNINGS[name]) in text]
    assert BEGINNINGS["import"] in text


@pytest.mark.parametrize("phase", PHASES)
def test_a_start_that_hangs_in_a_phase_says_no_more(phase: str) -> None:
    hanging = made(Script(hang=phase))
    assert hanging.up is None
    text = "\n".join(hanging.log(math.inf))
    following = list(BEGINNINGS)[list(PHASES).index(phase) + 1 :]
    assert not [marker for name in following if (marker := BEGINNINGS[name]) in text]


def test_phases_take_the_seconds_that_they_are_given_and_share_the_rest() -> None:
    seconds = Script(phases={"load": 100, "compile": 0}).seconds(150)
    assert (seconds["load"], seconds["compile"]) == (100, 0)
    assert sum(seconds.values()) == pytest.approx(150)
    assert seconds["import"] / seconds["graphs"] == pytest.approx(PHASES["import"] / PHASES["graphs"])


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown phases sleep"):
        Script(hang="sleep")
    with pytest.raises(ValueError, match="unknown fields of an engine's script: colour"):
        Script.parse({"colour": 1})


@pytest.mark.parametrize(
    ("flag", "kv_tokens", "limit", "said"),
    [
        ("auto", 48_880, 32_768, "full model context length 32768 fits in available KV cache memory"),
        ("auto", 9_000, 8_992, "reduced from 32768 to 8992 to fit in available KV cache memory"),
        ("-1", 9_000, 8_992, "reduced from 32768 to 8992"),
        ("4096", 9_000, 4_096, "Maximum concurrency for 4,096 tokens per request: 2.20x"),
    ],
)
def test_the_longest_request_is_what_fits_or_what_was_asked_for(
    flag: str, kv_tokens: int, limit: int, said: str
) -> None:
    found = made(Script(kv_tokens=kv_tokens), flags=("m", "--max-model-len", flag))
    assert found.arguments is not None
    assert startup.effective(found.arguments, Script(kv_tokens=kv_tokens)) == limit
    assert said in "\n".join(found.log(math.inf))


def test_a_key_is_never_logged() -> None:
    text = "\n".join(made(flags=("m", "--api-key", "sk-secret")).log(math.inf))
    assert "'api_key': '***'" in text
    assert "sk-secret" not in text
