"""A plausible small model: the files of Qwen/Qwen3-0.6B, with weights of the size asked for."""

from __future__ import annotations

import json
from typing import Any

from lab.hub import safetensors
from lab.hub.content import Blob

#: config.json of Qwen/Qwen3-0.6B.
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def small_model(
    size: int = 2_000_000, *, shards: int = 2, seed: str = "", config: dict[str, Any] | None = None
) -> dict[str, bytes | Blob]:
    """Files of a repository.

    Args:
        size: bytes of all weights together, about.
        shards: weight files; with one there is no index.
        seed: weights of another seed are other bytes.
    """
    elements = max(1, size // 2 // shards // 2)
    names = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    )
    tensors = {
        name: {
            f"model.layers.{n}.mlp.up_proj.weight": elements,
            f"model.layers.{n}.mlp.down_proj.weight": elements,
        }
        for n, name in enumerate(names)
    }
    files: dict[str, bytes | Blob] = {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n",
        "config.json": _json(config or CONFIG),
        "generation_config.json": _json({"bos_token_id": 151643, "eos_token_id": [151645, 151643]}),
        "tokenizer.json": _json({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}),
        "tokenizer_config.json": _json(
            {"model_max_length": 131072, "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
        ),
    }
    files |= {name: safetensors.file(one, seed=f"{seed}/{name}") for name, one in tensors.items()}
    if shards > 1:
        files["model.safetensors.index.json"] = safetensors.index(tensors)
    return files


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
