"""What a model's own configuration says about the memory of its cache.

`read` takes the hub's `config.json`, and Mistral's `params.json` where a repository has one. Both come
from the internet: every number has a bound, and what is missing, of a wrong type or beyond its bound is
listed in `Architecture.unknown` instead of being guessed. Nothing here raises on any JSON document.

Sources: vLLM vllm/transformers_utils/model_arch_config_convertor.py (names of heads and lengths, MLA),
vllm/config/model.py (longest context under rope scaling), vllm/model_executor/layers/mamba/mamba_utils.py
(shapes of states), vllm/utils/torch_utils.py (cache type of ModelOpt checkpoints); defaults of
configuration classes in Transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from . import layers

_LARGEST_CONTEXT = 100_000_000
_LARGEST_WIDTH = 1 << 20
_LARGEST_HEADS = 1 << 14
_LARGEST_TEXT = 64
_HALF, _FULL = 2, 4

#: Where multimodal models keep the configuration of their language model.
_NESTED = ("thinker_config", "text_config", "llm_config", "language_config")
#: Read from the outer configuration if the inner one lacks it.
_OUTER = ("torch_dtype", "dtype", "quantization_config", "compression_config")
#: Values that these families leave out because their configuration class in Transformers has them.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
    },
    "gemma2": {"sliding_window_pattern": 2},
    "cohere2": {"sliding_window_pattern": 4},
}
#: Encoders: every request is computed at once, so nothing is cached.
_ENCODERS = frozenset({"bert", "camembert", "distilbert", "electra", "gte", "modernbert"}) | frozenset(
    {"mpnet", "new", "nomic_bert", "roberta", "xlm-roberta"}
)
#: Names in Mistral's params.json.
_MISTRAL = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "sliding_window": "sliding_window",
    "max_position_embeddings": "max_position_embeddings",
    "kv_lora_rank": "kv_lora_rank",
    "qk_rope_head_dim": "qk_rope_head_dim",
}
#: Dimensions that decide how the cache is laid out in a way that is not modelled here.
_BEYOND = (
    "attn_layer_period",
    "attn_type_list",
    "block_configs",
    "compress_ratios",
    "hybrid_layer_pattern",
    "ssm_cfg",
)
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Attention layers with the same cache.

    A token takes `layers x kv_heads x width` elements. Heads are split over GPUs, down to one. Latent attention
    (MLA) is one head whose key and value are one compressed vector.
    """

    layers: int
    kv_heads: int
    width: int
    """Elements of the key and value of one head."""
    window: int | None = None
    """Tokens that are kept; None keeps all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model as far as its memory is concerned."""

    family: str = ""
    heads: int | None = None
    """Attention heads: what tensor parallelism splits."""
    caches: tuple[Cache, ...] | None = None
    """None: unknown. Empty: nothing is cached."""
    state_layers: int = 0
    """Linear-attention or Mamba layers, whose cache has one size for any context."""
    state_bytes: int = 0
    """Bytes of one such layer's state for one sequence, over all GPUs."""
    context: int | None = None
    """Longest context in tokens that the model was made for; None: unknown."""
    cache_element_bytes: int = _HALF
    """Bytes of a cached element unless the engine is told otherwise."""
    weight_element_bytes: int | None = None
    """Bytes of a stored weight: 4 is loaded as 2. None: not said. Quantised weights count as 2, loaded as stored."""
    quantization: str = ""
    unknown: tuple[str, ...] = ()
    """What could not be read, in words; empty if everything is known."""


def read(config: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture that `config.json` describes, with `params.json` on top where it is given."""
    values = _values(config, params)
    family = _text(values.get("model_type"))
    values = {**_DEFAULTS.get(family, {}), **values}
    heads = _integer(values, "num_attention_heads", "n_head", "n_heads", most=_LARGEST_HEADS)
    context = _context(values, family)
    quantization, cache_bytes = _quantization(values)
    common: dict[str, Any] = {
        "family": family,
        "heads": heads,
        "context": context,
        "quantization": quantization,
        "cache_element_bytes": cache_bytes,
        "weight_element_bytes": _HALF if quantization or params is not None else _stored_bytes(values),
    }
    unknown = () if context is not None else ("longest context",)
    if family in _ENCODERS:
        return Architecture(caches=(), unknown=unknown, **common)
    caches, kinds, why = _caches(values, heads)
    states = 0 if kinds is None else sum(kind is layers.Kind.STATE for kind in kinds)
    state_bytes = _state_bytes(values, states)
    if state_bytes is None:
        caches, state_bytes, why = None, 0, "size of the states"
    return Architecture(
        caches=caches,
        state_layers=states,
        state_bytes=state_bytes,
        unknown=(*unknown, why) if why else unknown,
        **common,
    )


def _values(config: Mapping[str, Any], params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The language model's part, in Hugging Face's names."""
    inner: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    outer: dict[str, Any] = {}
    for name in _NESTED:
        if isinstance(inner.get(name), Mapping):
            outer |= {key: inner[key] for key in _OUTER if inner.get(key) is not None}
            inner = inner[name]
    values = {**outer, **{key: value for key, value in inner.items() if value is not None}}
    if not isinstance(params, Mapping):
        return values
    values |= {ours: params[theirs] for theirs, ours in _MISTRAL.items() if params.get(theirs) is not None}
    if isinstance(params.get("yarn"), Mapping):
        values["rope_scaling"] = {**params["yarn"], "rope_type": "yarn"}
        values.pop("rope_parameters", None)
    if isinstance(params.get("quantization"), Mapping):
        values.setdefault(
            "quantization_config", {"quant_method": params["quantization"].get("qformat_weight")}
        )
    return values


def _caches(
    values: Mapping[str, Any], heads: int | None
) -> tuple[tuple[Cache, ...] | None, tuple[layers.Kind, ...] | None, str]:
    """(caches, kind of each layer, what is unknown)."""
    count = _integer(values, "num_hidden_layers", "n_layer", "num_layers", "n_layers", most=layers.MOST)
    if count is None:
        return None, None, "number of layers"
    kinds = None if _beyond(values) else layers.kinds(values, count)
    if kinds is None:
        return None, None, "kinds of the layers"
    window = _integer(values, "sliding_window", "attention_chunk_size", most=_LARGEST_CONTEXT)
    shared = _integer(values, "num_kv_shared_layers", most=count) or 0
    own = kinds[: count - shared]
    full, sliding = own.count(layers.Kind.FULL), own.count(layers.Kind.SLIDING)
    if sliding and window is None:
        return None, kinds, "size of the sliding window"
    latent = _integer(values, "kv_lora_rank", most=_LARGEST_WIDTH)
    if latent is not None:
        rope = _integer(values, "qk_rope_head_dim", most=_LARGEST_WIDTH)
        if rope is None or values.get("model_type") == "minicpm3":
            return None, kinds, "width of the compressed cache"
        wide = narrow = (1, latent + rope)
    else:
        found = _heads(values, heads)
        if found is None:
            return None, kinds, "size of the attention heads"
        kv_heads, dimension = found
        narrow = (kv_heads, 2 * dimension)
        wide = (
            _integer(values, "num_global_key_value_heads", most=_LARGEST_HEADS) or kv_heads,
            2 * (_integer(values, "global_head_dim", most=_LARGEST_WIDTH) or dimension),
        )
    caches = []
    if full:
        caches.append(Cache(layers=full, kv_heads=wide[0], width=wide[1]))
    if sliding:
        caches.append(Cache(layers=sliding, kv_heads=narrow[0], width=narrow[1], window=window))
    return tuple(caches), kinds, ""


def _beyond(values: Mapping[str, Any]) -> bool:
    return bool(values.get("is_encoder_decoder")) or any(values.get(name) for name in _BEYOND)


def _heads(values: Mapping[str, Any], heads: int | None) -> tuple[int, int] | None:
    """(key-value heads, elements of a head)."""
    names = (
        "n_head_kv",
        "num_kv_heads",
        "num_key_value_heads",
        "multi_query_group_num",
        "num_attention_groups",
    )
    kv_heads = _integer(values, *names, most=_LARGEST_HEADS)
    if kv_heads is None and any(values.get(name) is not None for name in names):
        return None
    if kv_heads is None:
        kv_heads = 1 if values.get("multi_query") is True else heads
    dimension = _integer(
        values, "head_dim", "attention_head_dim", "hidden_size_per_head", "kv_channels", most=_LARGEST_WIDTH
    )
    if dimension is None and heads is not None:
        hidden = _integer(values, "hidden_size", "n_embd", "d_model", most=_LARGEST_WIDTH)
        dimension = hidden // heads if hidden is not None else None
    return (kv_heads, dimension) if kv_heads and dimension else None


def _state_bytes(values: Mapping[str, Any], states: int) -> int | None:
    """Bytes of one linear-attention or Mamba layer for one sequence; None if its shape is unknown.

    The recurrent state is kept in the type that the configuration names, else in the model's; the
    convolution's last inputs in the model's.
    """
    if not states:
        return 0
    shape = layers.state_shape(values, lambda *names: _integer(values, *names, most=_LARGEST_WIDTH))
    if shape is None:
        return None
    wanted = _text(values.get("mamba_ssm_dtype") or values.get("mamba_ssm_cache_dtype"))
    return shape.recurrent * (_FULL if wanted == "float32" else _HALF) + shape.convolution * _HALF


def _context(values: Mapping[str, Any], family: str) -> int | None:
    """The length that the engine derives: the shortest that is named, times the factor of rope scaling."""
    lengths = [found for name in _LENGTHS if (found := _integer(values, name, most=_LARGEST_CONTEXT))]
    length = _integer(values, "model_max_length", most=_LARGEST_CONTEXT) or min(lengths, default=None)
    if "gemma3" in family:
        # Its length already includes the factor.
        return length
    for rope in _ropes(values):
        kind = _text(rope.get("rope_type") or rope.get("type"))
        factor = _factor(rope)
        if kind in ("su", "longrope", "llama3") or factor is None:
            continue
        if kind == "yarn":
            length = _integer(rope, "original_max_position_embeddings", most=_LARGEST_CONTEXT) or length
        length = None if length is None else min(int(length * factor), _LARGEST_CONTEXT)
        break
    return length


def _ropes(values: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Rope settings: one for all layers, or one for each kind of layer."""
    rope = values.get("rope_parameters") or values.get("rope_scaling")
    if not isinstance(rope, Mapping):
        return []
    nested = [value for value in list(rope.values())[:8] if isinstance(value, Mapping)]
    return nested or [rope]


def _quantization(values: Mapping[str, Any]) -> tuple[str, int]:
    """(method, bytes of a cached element): ModelOpt checkpoints may ask for a cache of 8 bits."""
    found = values.get("quantization_config") or values.get("compression_config")
    if not isinstance(found, Mapping):
        return "", _HALF
    inner, producer = _mapping(found, "quantization"), _mapping(found, "producer")
    method = _text(found.get("quant_method") or producer.get("name")) or "unnamed"
    algorithm = found.get("kv_cache_quant_algo") or inner.get("kv_cache_quant_algo")
    eight = method.startswith("modelopt") and _text(algorithm) == "fp8"
    return method.replace("compressed_tensors", "compressed-tensors"), 1 if eight else _HALF


def _stored_bytes(values: Mapping[str, Any]) -> int | None:
    return {"float32": _FULL, "float16": _HALF, "bfloat16": _HALF}.get(
        _text(values.get("dtype") or values.get("torch_dtype")).removeprefix("torch.")
    )


def _integer(values: Mapping[str, Any], *names: str, most: int) -> int | None:
    """The first of `names` that is given, if it is a whole number from 1 to `most`."""
    for name in names:
        value = values.get(name)
        if value is not None:
            return value if type(value) is int and 1 <= value <= most else None
    return None


def _factor(rope: Mapping[str, Any]) -> float | None:
    value = rope.get("factor")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 10_000:
        return None
    return float(value)


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _text(value: Any) -> str:
    return value[:_LARGEST_TEXT].lower() if isinstance(value, str) else ""
