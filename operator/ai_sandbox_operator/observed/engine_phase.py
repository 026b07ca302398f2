"""How far an engine has come that runs and is not ready yet, from the end of its log. Pure.

Markers: vLLM 0.33, in the order in which it prints them.
"""

from __future__ import annotations

import dataclasses
import re

from . import log_lines

#: Silence in seconds after which a start counts as stalled: the longest silent phase, the compilation,
#: takes three minutes.
STALLED_AFTER = 600.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of the start, in words; `steps` as in "3 of 8 files" where the engine counts them."""

    name: str
    steps: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.steps})" if self.steps else self.name


IMPORTING = "importing its libraries"
CONFIGURING = "reading the model's configuration"
LOADING = "loading the weights"
COMPILING = "compiling"
SIZING = "sizing the KV cache"
CAPTURING = "capturing CUDA graphs"
SERVING = "starting its server"

#: The marker tells what goes on after it.
_MARKERS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Application startup complete|Starting vLLM (?:API )?server|init engine \(profile"),
        SERVING,
    ),
    (re.compile(r"Graph capturing finished"), SERVING),
    (re.compile(r"Capturing CUDA graphs"), CAPTURING),
    (re.compile(r"GPU KV cache size:|Available KV cache memory:|Auto-fit max_model_len"), SIZING),
    (re.compile(r"torch\.compile took|torch\.compile takes"), SIZING),
    (
        re.compile(
            r"Dynamo bytecode transform|Compiling a graph|Using cache directory: .*torch_compile_cache"
        ),
        COMPILING,
    ),
    (re.compile(r"Model loading took|Loading weights took"), COMPILING),
    (re.compile(r"Loading (?:safetensors|pt) checkpoint shards|Starting to load model"), LOADING),
    (re.compile(r"Time spent downloading weights"), LOADING),
    (re.compile(r"Initializing a V1 LLM engine|Resolved architecture:|Using max model len"), CONFIGURING),
    (re.compile(r"non-default args:|vLLM API server version"), IMPORTING),
)
_STEPS = re.compile(r"\| *(\d+)/(\d+)\b")
_UNIT = {LOADING: "files", CAPTURING: "graphs"}


def phase(log: str) -> Phase | None:
    """The phase that the last marker in `log` names; None if there is no marker."""
    for line in reversed(log_lines.split(log)):
        for marker, name in _MARKERS:
            if marker.search(line.text):
                count = _STEPS.search(line.text) if name in _UNIT else None
                return Phase(name, f"{count[1]} of {count[2]} {_UNIT[name]}" if count else "")
    return None


def describe(now: Phase | None, *, silent_seconds: float) -> tuple[str, bool]:
    """Words for a message, and whether the start has stalled.

    The silence is told in steps of five minutes, so that it does not change the status all the time.
    """
    words = f"it is {now}" if now else "it is starting"
    if silent_seconds < STALLED_AFTER:
        return words, False
    return f"{words} and has printed nothing for {int(silent_seconds // 300) * 5} minutes", True
