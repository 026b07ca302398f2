"""What is known of models by their id alone: size, directory, engine flags.

The hub's answer decides in the end; these estimates only size a volume and a start-up budget, and
choose parsers. Parser names are bound to the pinned vLLM release (vLLM docs/features/tool_calling.md).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re

from ai_sandbox_operator.api import v1alpha1

from . import quantity

#: GiB of the files that are loaded, by lower-case id.
_WEIGHTS_GIB = {
    "mistralai/mistral-7b-instruct-v0.3": 13.5,
    "qwen/qwen3-0.6b": 1.4,
    "qwen/qwen3-4b": 7.5,
    "qwen/qwen3-8b-awq": 5.7,
    "qwen/qwen3-14b-fp8": 15.3,
    "qwen/qwen3.6-27b-fp8": 28.8,
    "meta-llama/llama-3.1-8b-instruct": 15.0,
    "mistralai/ministral-3-8b-instruct-2512": 9.7,
    "openai/gpt-oss-20b": 12.8,
    "openai/gpt-oss-120b": 60.8,
    "google/gemma-3-12b-it": 22.7,
}
#: Without any hint in the id.
_UNKNOWN_GIB = 27.0
_MINIMUM = "10Gi"
#: Bytes per parameter by a mark in the id; the first that occurs counts, else bfloat16.
_BYTES_PER_PARAMETER = (
    (("awq", "gptq", "int4", "4bit", "w4a16", "nvfp4", "mxfp4"), 0.6),
    (("fp8", "int8", "8bit", "w8a8"), 1.0),
)

_TOOLS = "--enable-auto-tool-choice"
_MISTRAL_FORMATS = ("--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral")
#: Flags by the beginning of the lower-case id. The first that fits counts.
_FLAGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # Of these repositories the fetch Job takes the consolidated weights: the formats must match.
    *(
        (f"mistralai/{family}", (*_MISTRAL_FORMATS, _TOOLS, "--tool-call-parser", "mistral"))
        for family in ("mistral-7b-instruct-v0.3", "mistral-nemo", "mistral-small", "ministral", "devstral")
    ),
    ("qwen/qwen3.", (_TOOLS, "--tool-call-parser", "qwen3_coder", "--reasoning-parser", "qwen3")),
    ("qwen/qwen3-coder", (_TOOLS, "--tool-call-parser", "qwen3_coder")),
    ("qwen/qwen3-", (_TOOLS, "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3")),
    ("qwen/qwen2.5-", (_TOOLS, "--tool-call-parser", "hermes")),
    *(
        (
            f"meta-llama/llama-{version}",
            (
                _TOOLS,
                "--tool-call-parser",
                "llama3_json",
                "--chat-template",
                f"/vllm-workspace/examples/tool_chat_template_{template}_json.jinja",
            ),
        )
        for version, template in (("3.1", "llama3.1"), ("3.2", "llama3.2"), ("3.3", "llama3.1"))
    ),
    ("openai/gpt-oss", (_TOOLS, "--tool-call-parser", "openai")),
)


def weights_gib(model_id: str) -> float:
    """Estimated GiB of the weights."""
    known = _WEIGHTS_GIB.get(model_id.lower())
    if known is not None:
        return known
    name = model_id.lower().partition("/")[2]
    parameters = [float(found) for found in re.findall(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name)]
    if not parameters:
        return _UNKNOWN_GIB
    size = next((size for marks, size in _BYTES_PER_PARAMETER if any(mark in name for mark in marks)), 2.0)
    return max(parameters) * 1e9 * size / 2**30


def model_cache_size(spec: v1alpha1.AISandboxSpec, size_bytes: int | None = None) -> str:
    """Size of the model volume.

    Twice the model, so that the next one fits beside the one that serves. Linode's minimum is 10Gi.

    Args:
        size_bytes: of the files that are fetched; None while only the id is known.
    """
    wanted = spec.storage.model_cache_size
    if wanted:
        return quantity.canonical(wanted) if quantity.value(wanted) >= quantity.value(_MINIMUM) else _MINIMUM
    return f"{max(10, math.ceil(2 * _gib(spec.model.id, size_bytes)) + 3)}Gi"


def startup_seconds(model_id: str, size_bytes: int | None = None) -> int:
    """Budget for the engine's start: twice ten minutes plus a minute per 13 GiB, at least half an hour.

    A startup probe cannot be extended on a running pod, so it only ends what is hopeless.
    """
    return max(1800, math.ceil((1200 + 120 * _gib(model_id, size_bytes) / 13) / 60) * 60)


def _gib(model_id: str, size_bytes: int | None) -> float:
    """What the hub says, else what the id lets expect."""
    return weights_gib(model_id) if size_bytes is None else size_bytes / 2**30


def model_directory(model: v1alpha1.ModelSpec, commit: str) -> str:
    """Directory of the model on its volume: readable, and different for each id and commit.

    While the commit is not known (empty) it is one that nobody fetches to and no engine reads.
    """
    slug = re.sub(r"[^a-z0-9.]+", "-", model.id.lower())[:60].strip("-.")
    digest = hashlib.sha256(f"{model.id}@{commit or model.revision}".encode()).hexdigest()[:12]
    return f"{slug}-{digest}"


def served_name(model: v1alpha1.ModelSpec) -> str:
    """Model name that clients send."""
    return model.served_name or model.id


def flags(model_id: str) -> tuple[str, ...]:
    """Engine flags of a known model family."""
    lowered = model_id.lower()
    return next((flags for prefix, flags in _FLAGS if lowered.startswith(prefix)), ())


def loads_consolidated(model_id: str) -> bool:
    """Whether the engine is told to load Mistral's format: what is fetched must match."""
    return ("--load-format", "mistral") in itertools.pairwise(flags(model_id))
