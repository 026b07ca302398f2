"""How far a starting engine is, from its log cut off at every line."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.observed import engine_phase
from ai_sandbox_operator.observed.engine_phase import (
    CAPTURING,
    COMPILING,
    CONFIGURING,
    IMPORTING,
    LOADING,
    SERVING,
    SIZING,
)

from .corpus import engine_log

#: In the order in which an engine goes through them.
ORDER = [IMPORTING, CONFIGURING, LOADING, COMPILING, SIZING, CAPTURING, SERVING]


def test_a_start_goes_through_every_phase_in_order() -> None:
    lines = engine_log("mixed-silent-end-while-serving").splitlines()
    met: list[str] = []
    for number in range(1, len(lines) + 1):
        now = engine_phase.phase("\n".join(lines[:number]))
        if now is not None and (not met or met[-1] != now.name):
            met.append(now.name)
    assert met == ORDER


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "Loading safetensors checkpoint shards:  33% Completed | 1/3 [00:13<00:26]",
            "loading the weights (1 of 3 files)",
        ),
        (
            "\rCapturing CUDA graphs (PIECEWISE):  60%|██████    | 21/35 [00:05<00:01, 6.12it/s]",
            "capturing CUDA graphs (21 of 35 graphs)",
        ),
        ("INFO 11-24 09:00:00 [monitor.py:53] torch.compile took 31.27 s in total", "sizing the KV cache"),
        ("INFO 11-24 09:00:00 [core.py:1] Starting to load model /models/m...", "loading the weights"),
    ],
)
def test_a_phase_in_words(log: str, words: str) -> None:
    assert str(engine_phase.phase(log)) == words


def test_a_log_without_markers_tells_no_phase() -> None:
    assert engine_phase.phase("WARNING: something\nelse") is None


def test_silence_is_told_in_steps_and_only_when_long() -> None:
    loading = engine_phase.Phase(LOADING)
    assert engine_phase.describe(loading, silent_seconds=599) == ("it is loading the weights", False)
    words, stalled = engine_phase.describe(loading, silent_seconds=601)
    assert (words.endswith("nothing for 10 minutes"), stalled) == (True, True)
    assert engine_phase.describe(loading, silent_seconds=880)[0] == words
    assert engine_phase.describe(None, silent_seconds=0) == ("it is starting", False)
