"""Which layers of a model keep what, from the many ways in which configurations say it. Pure.

Sources: configuration classes in Transformers; vLLM vllm/model_executor/layers/mamba/mamba_utils.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: Deepest model that is believed.
MOST = 1024


class Kind(enum.Enum):
    """What a layer keeps of a sequence."""

    FULL = "a key and a value of every token"
    SLIDING = "keys and values of the last tokens"
    STATE = "a state of one size"
    NOTHING = "nothing"


_WORDS = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "global_attention": Kind.FULL,
    "sliding_attention": Kind.SLIDING,
    "chunked_attention": Kind.SLIDING,
    "local_attention": Kind.SLIDING,
    "linear_attention": Kind.STATE,
    "mamba": Kind.STATE,
    "mamba2": Kind.STATE,
    "mlp": Kind.NOTHING,
    "moe": Kind.NOTHING,
}
#: Nemotron-H: Mamba, attention, feed-forward, experts.
_LETTERS = {"M": Kind.STATE, "*": Kind.FULL, "-": Kind.NOTHING, "E": Kind.NOTHING}


class StateShape(NamedTuple):
    """Elements that one layer keeps of one sequence, over all GPUs."""

    recurrent: int
    convolution: int


def kinds(values: Mapping[str, Any], count: int) -> tuple[Kind, ...] | None:
    """The kind of each of `count` layers; None if it is said in an unknown way."""
    for name in ("layer_types", "layers_block_type", "block_types"):
        if name in values:
            return _named(values[name], count)
    if "hybrid_override_pattern" in values:
        return _lettered(values["hybrid_override_pattern"], count)
    if isinstance(values.get("linear_attn_config"), Mapping):
        return None
    interval = _small(values.get("full_attention_interval"))
    if interval is not None:
        return _every(interval, count, Kind.STATE)
    windowed = (
        _small(values.get("sliding_window")) is not None and values.get("use_sliding_window") is not False
    )
    if not windowed:
        return (Kind.FULL,) * count
    pattern = values.get("sliding_window_pattern", values.get("_sliding_window_pattern"))
    if isinstance(pattern, str):
        return _repeated(pattern, count)
    if pattern is not None:
        interval = _small(pattern)
        return None if interval is None else _every(interval, count, Kind.SLIDING)
    # Qwen2 slides from this layer on; elsewhere all layers do.
    first = _small(values.get("max_window_layers")) if values.get("use_sliding_window") is True else None
    first = min(first or 0, count)
    return (Kind.FULL,) * first + (Kind.SLIDING,) * (count - first)


def state_shape(values: Mapping[str, Any], integer: Callable[..., int | None]) -> StateShape | None:
    """Shape of a linear-attention or Mamba layer; None if a dimension is missing.

    Args:
        values: the configuration.
        integer: reads the first of some names as a bounded number.
    """
    if "linear_num_value_heads" in values:
        keys, key = integer("linear_num_key_heads"), integer("linear_key_head_dim")
        heads, value = integer("linear_num_value_heads"), integer("linear_value_head_dim")
        kernel = integer("linear_conv_kernel_dim")
        if keys is None or key is None or heads is None or value is None or kernel is None:
            return None
        return StateShape(heads * key * value, (2 * keys * key + heads * value) * (kernel - 1))
    heads, width = integer("mamba_n_heads", "mamba_num_heads"), integer("mamba_d_head", "mamba_head_dim")
    size, kernel = integer("mamba_d_state", "ssm_state_size"), integer("mamba_d_conv", "conv_kernel")
    groups = integer("mamba_n_groups", "n_groups")
    if heads is None or width is None or size is None or kernel is None or groups is None:
        return None
    return StateShape(heads * width * size, (heads * width + 2 * groups * size) * (kernel - 1))


def _named(words: Any, count: int) -> tuple[Kind, ...] | None:
    if not isinstance(words, list) or not words or len(words) > MOST:
        return None
    found = [_WORDS.get(word) if isinstance(word, str) else None for word in words]
    known = tuple(kind for kind in found if kind is not None)
    if len(known) < len(found):
        return None
    # RecurrentGemma's list is one period.
    return (known * (count // len(known) + 1))[:count]


def _lettered(pattern: Any, count: int) -> tuple[Kind, ...] | None:
    if not isinstance(pattern, str) or len(pattern) != count:
        return None
    found = tuple(_LETTERS[letter] for letter in pattern if letter in _LETTERS)
    return found if len(found) == count else None


def _repeated(pattern: str, count: int) -> tuple[Kind, ...] | None:
    """Of local and global layers, such as LLLG."""
    if not 0 < len(pattern) <= MOST or set(pattern) - {"L", "G"}:
        return None
    period = [Kind.SLIDING if letter == "L" else Kind.FULL for letter in pattern]
    return tuple(period[index % len(period)] for index in range(count))


def _every(interval: int, count: int, other: Kind) -> tuple[Kind, ...]:
    """Each `interval`-th layer keeps everything."""
    return tuple(other if (index + 1) % interval else Kind.FULL for index in range(count))


def _small(value: Any) -> int | None:
    return value if type(value) is int and 1 <= value <= 100_000_000 else None
