"""Real configurations are read as their models are built, and nothing that comes from the hub breaks the reader.

The files in model_configs/ hold the fields that matter of the repository that `_source` names. Expected
values were worked out from the models' papers and cards, in elements: layers x heads x (key + value).
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from ai_sandbox_operator.desired import architecture
from ai_sandbox_operator.desired.architecture import Cache

CONFIGS = pathlib.Path(__file__).parent / "model_configs"


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return found


def read(name: str) -> architecture.Architecture:
    found = document(name)
    return architecture.read(found["config"], found.get("params"))


def full(layers: int, kv_heads: int, width: int) -> Cache:
    return Cache(layers=layers, kv_heads=kv_heads, width=width)


def sliding(layers: int, kv_heads: int, width: int, window: int) -> Cache:
    return Cache(layers=layers, kv_heads=kv_heads, width=width, window=window)


#: Name, heads, caches, context, quantisation.
READ: list[tuple[str, int, tuple[Cache, ...], int, str]] = [
    ("mistral-7b-instruct-v0.3", 32, (full(32, 8, 256),), 32768, ""),
    ("mistral-7b-v0.1", 32, (sliding(32, 8, 256, 4096),), 32768, ""),
    ("qwen3-0.6b", 16, (full(28, 8, 256),), 40960, ""),
    ("qwen3-4b", 32, (full(36, 8, 256),), 40960, ""),
    ("qwen3-8b-awq", 32, (full(36, 8, 256),), 40960, "awq"),
    ("qwen3-14b-fp8", 40, (full(40, 8, 256),), 40960, "fp8"),
    ("qwen3.6-27b-fp8", 24, (full(16, 4, 512),), 262144, "fp8"),
    ("qwen3.6-35b-a3b-nvfp4", 16, (full(10, 2, 512),), 262144, "modelopt"),
    ("qwen3-next-80b-a3b", 16, (full(12, 2, 512),), 262144, ""),
    ("qwen3-235b-a22b-fp8", 64, (full(94, 4, 256),), 40960, "fp8"),
    ("llama-3.1-8b", 32, (full(32, 8, 256),), 131072, ""),
    ("llama-3.3-70b-fp8", 64, (full(80, 8, 256),), 131072, "compressed-tensors"),
    ("llama-3.3-70b-nvfp4", 64, (full(80, 8, 256),), 131072, "modelopt"),
    ("ministral-3-8b", 32, (full(34, 8, 256),), 262144, "fp8"),
    ("gpt-oss-20b", 64, (full(12, 8, 128), sliding(12, 8, 128, 128)), 131072, "mxfp4"),
    ("gpt-oss-120b", 64, (full(18, 8, 128), sliding(18, 8, 128, 128)), 131072, "mxfp4"),
    ("gemma-3-12b-it", 16, (full(8, 8, 512), sliding(40, 8, 512, 1024)), 131072, ""),
    ("mixtral-8x7b", 32, (full(32, 8, 256),), 32768, ""),
    ("qwen3-30b-a3b", 32, (full(48, 4, 256),), 40960, ""),
    ("deepseek-v2-lite", 16, (full(27, 1, 576),), 163840, ""),
    ("deepseek-v3", 128, (full(61, 1, 576),), 163840, "fp8"),
    ("granite-4.0-h-small", 32, (full(4, 8, 256),), 131072, ""),
    ("nemotron-h-8b", 32, (full(4, 8, 256),), 8192, ""),
    ("qwen2.5-7b-gptq-int4", 28, (full(28, 4, 256),), 32768, "gptq"),
    ("qwen3-embedding-0.6b", 16, (full(28, 8, 256),), 32768, ""),
    ("bge-m3", 16, (), 8194, ""),
]


def test_every_configuration_is_in_the_table() -> None:
    assert {row[0] for row in READ} == {path.stem for path in CONFIGS.glob("*.json")}
    assert all(document(name)["_source"] for name, *_ in READ)


@pytest.mark.parametrize(
    ("name", "heads", "caches", "context", "quantization"), READ, ids=[row[0] for row in READ]
)
def test_a_real_configuration_is_read_as_the_model_is_built(
    name: str, heads: int, caches: tuple[Cache, ...], context: int, quantization: str
) -> None:
    found = read(name)
    assert (found.heads, found.caches, found.context) == (heads, caches, context)
    assert (found.quantization, found.unknown) == (quantization, ())


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        # 48 heads x 128 x 128 in 32 bits, and three inputs of 2 x 16 x 128 + 48 x 128 channels in 16.
        ("qwen3.6-27b-fp8", 48, 48 * 128 * 128 * 4 + 3 * 10240 * 2),
        ("qwen3.6-35b-a3b-nvfp4", 30, 32 * 128 * 128 * 4 + 3 * 8192 * 2),
        ("qwen3-next-80b-a3b", 36, 32 * 128 * 128 * 2 + 3 * 8192 * 2),
        # 128 heads x 64 x 128, and three inputs of 128 x 64 + 2 x groups x 128 channels.
        ("granite-4.0-h-small", 36, 128 * 64 * 128 * 2 + 3 * (8192 + 256) * 2),
        ("nemotron-h-8b", 24, 128 * 64 * 128 * 2 + 3 * (8192 + 2048) * 2),
        ("llama-3.1-8b", 0, 0),
    ],
)
def test_linear_attention_and_mamba_layers_keep_a_state_of_one_size(
    name: str, layers: int, size: int
) -> None:
    found = read(name)
    assert (found.state_layers, found.state_bytes) == (layers, size)


def test_an_eight_bit_cache_that_the_checkpoint_asks_for_counts() -> None:
    assert [name for name, *_ in READ if read(name).cache_element_bytes == 1] == ["llama-3.3-70b-nvfp4"]
    other = {"quant_method": "fp8", "kv_cache_quant_algo": "FP8"}
    assert architecture.read({**DENSE, "quantization_config": other}).cache_element_bytes == 2


def test_weights_of_32_bits_and_of_unknown_type_are_told_apart() -> None:
    assert read("bge-m3").weight_element_bytes == 4
    assert read("llama-3.1-8b").weight_element_bytes == 2
    assert architecture.read({**DENSE, "torch_dtype": None}).weight_element_bytes is None


DENSE = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1000,
    "torch_dtype": "torch.bfloat16",
}


@pytest.mark.parametrize(
    ("change", "caches"),
    [
        ({"num_key_value_heads": None}, (full(4, 8, 128),)),
        ({"num_key_value_heads": None, "multi_query": True}, (full(4, 1, 128),)),
        ({"head_dim": None, "hidden_size": 256}, (full(4, 2, 64),)),
        ({"sliding_window": 10, "use_sliding_window": False}, (full(4, 2, 128),)),
        ({"sliding_window": 10}, (sliding(4, 2, 128, 10),)),
        ({"sliding_window": 10, "sliding_window_pattern": 2}, (full(2, 2, 128), sliding(2, 2, 128, 10))),
        ({"sliding_window": 10, "sliding_window_pattern": 3}, (full(1, 2, 128), sliding(3, 2, 128, 10))),
        ({"sliding_window": 10, "sliding_window_pattern": "LLLG"}, (full(1, 2, 128), sliding(3, 2, 128, 10))),
        (
            {"sliding_window": 10, "use_sliding_window": True, "max_window_layers": 3},
            (full(3, 2, 128), sliding(1, 2, 128, 10)),
        ),
        ({"num_kv_shared_layers": 3}, (full(1, 2, 128),)),
        (
            {
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "sliding_window": 10,
                "global_head_dim": 128,
                "num_global_key_value_heads": 1,
            },
            (full(2, 1, 256), sliding(2, 2, 128, 10)),
        ),
        ({"layer_types": ["chunked_attention"] * 4, "attention_chunk_size": 10}, (sliding(4, 2, 128, 10),)),
        ({"layers_block_type": ["attention", "moe"] * 2}, (full(2, 2, 128),)),
    ],
)
def test_the_ways_of_saying_what_a_layer_keeps(change: dict[str, Any], caches: tuple[Cache, ...]) -> None:
    assert architecture.read({**DENSE, **change}).caches == caches


@pytest.mark.parametrize(
    ("change", "context"),
    [
        ({}, 1000),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4}}, 4000),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2000),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 1000),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, 1000),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 500}},
            2000,
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2}}}, 2000),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8}}, 1000),
        ({"rope_scaling": {"rope_type": "yarn", "factor": float("nan")}}, 1000),
        ({"rope_scaling": {"rope_type": "yarn", "factor": True}}, 1000),
        ({"seq_length": 800}, 800),
        ({"model_max_length": 5000}, 5000),
    ],
)
def test_the_longest_context_is_derived_as_the_engine_does(change: dict[str, Any], context: int) -> None:
    assert architecture.read({**DENSE, **change}).context == context


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"num_hidden_layers": None}, "number of layers"),
        ({"num_hidden_layers": True}, "number of layers"),
        ({"num_hidden_layers": "4"}, "number of layers"),
        ({"num_hidden_layers": 4.0}, "number of layers"),
        ({"num_hidden_layers": 10**9}, "number of layers"),
        ({"num_hidden_layers": -4}, "number of layers"),
        ({"num_key_value_heads": [2, 2, 4, 4]}, "size of the attention heads"),
        ({"num_attention_heads": None, "num_key_value_heads": None}, "size of the attention heads"),
        ({"head_dim": 10**12}, "size of the attention heads"),
        ({"layer_types": ["full_attention", "something_new"] * 2}, "kinds of the layers"),
        ({"layer_types": "full_attention"}, "kinds of the layers"),
        ({"layer_types": ["full_attention"] * 2000}, "kinds of the layers"),
        ({"hybrid_override_pattern": "M*"}, "kinds of the layers"),
        ({"attn_type_list": [0, 1, 0, 1]}, "kinds of the layers"),
        ({"is_encoder_decoder": True}, "kinds of the layers"),
        ({"layer_types": ["sliding_attention"] * 4}, "size of the sliding window"),
        ({"layer_types": ["linear_attention", "full_attention"] * 2}, "size of the states"),
        ({"kv_lora_rank": 512}, "width of the compressed cache"),
        ({"max_position_embeddings": "long"}, "longest context"),
    ],
)
def test_what_cannot_be_read_is_said_and_not_guessed(change: dict[str, Any], missing: str) -> None:
    found = architecture.read({**DENSE, **change})
    assert found.unknown == (missing,)
    assert (found.caches is None) is (missing != "longest context")


def test_mistral_parameters_count_before_the_other_file() -> None:
    params = {"dim": 1024, "n_layers": 2, "n_heads": 16, "n_kv_heads": 4, "head_dim": 32}
    found = architecture.read(DENSE, params)
    assert (found.heads, found.caches) == (16, (full(2, 4, 64),))
    assert found.context == 1000
    assert architecture.read({}, {**params, "max_position_embeddings": 700}).context == 700


NAMES = [
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"),
    *("layer_types", "layers_block_type", "hybrid_override_pattern", "full_attention_interval"),
    *("sliding_window", "sliding_window_pattern", "use_sliding_window", "max_window_layers"),
    *("kv_lora_rank", "qk_rope_head_dim", "rope_scaling", "rope_parameters", "rope_type", "factor"),
    *("text_config", "thinker_config", "quantization_config", "quant_method", "quantization", "producer"),
    *("max_position_embeddings", "model_max_length", "torch_dtype", "model_type", "num_kv_shared_layers"),
    *("linear_num_value_heads", "linear_num_key_heads", "mamba_ssm_dtype", "mamba_n_heads", "yarn", "dim"),
    *("n_layers", "n_heads", "original_max_position_embeddings", "linear_attn_config", "global_head_dim"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["full_attention", "linear_attention", "M*-", "yarn", "modelopt", "fp8", "gemma3_text"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


@hypothesis.given(config=JSON, params=JSON, dense=st.booleans())
@hypothesis.settings(max_examples=500, deadline=None)
def test_no_document_of_the_hub_breaks_the_reader(config: Any, params: Any, dense: bool) -> None:
    if dense and isinstance(config, dict):
        config = {**DENSE, **config}
    found = architecture.read(config, params)
    assert found.heads is None or 1 <= found.heads <= 1 << 14
    assert found.context is None or 1 <= found.context <= 100_000_000
    assert 0 <= found.state_bytes < 1 << 70
    assert all(cache.layers <= 1024 and cache.width <= 1 << 22 for cache in found.caches or ())
    assert found.unknown or (found.caches is not None and found.context is not None)
