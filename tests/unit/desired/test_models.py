"""Estimates from a model's id, and the spelling of quantities, as tables."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import models, quantity
from unit.desired import samples


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.3", "30Gi"),
        ("Qwen/Qwen3-0.6B", "10Gi"),
        ("openai/gpt-oss-20b", "29Gi"),
        ("someone/Llama-3.3-70B-Instruct", "264Gi"),
        ("someone/Llama-3.3-70B-Instruct-FP8", "134Gi"),
        ("someone/Llama-3.3-70B-Instruct-AWQ", "82Gi"),
        ("someone/Qwen3-30B-A3B", "115Gi"),
        ("someone/mystery", "57Gi"),
        ("7b/mystery", "57Gi"),
    ],
)
def test_size_of_the_model_volume(model: str, size: str) -> None:
    assert models.model_cache_size(samples.sandbox({"model": {"id": model}}).spec) == size


@pytest.mark.parametrize(
    ("asked", "size"),
    [("50Gi", "50Gi"), ("51200Mi", "50Gi"), ("5Gi", "10Gi"), ("20G", "20G"), ("9.5Gi", "10Gi")],
)
def test_asked_size_of_the_model_volume(asked: str, size: str) -> None:
    assert models.model_cache_size(samples.sandbox({"storage": {"modelCacheSize": asked}}).spec) == size


@pytest.mark.parametrize(
    ("model", "parsers"),
    [
        (
            "mistralai/Ministral-3-8B-Instruct-2512",
            {"--tool-call-parser": "mistral", "--load-format": "mistral"},
        ),
        ("Qwen/Qwen3-8B-AWQ", {"--tool-call-parser": "hermes", "--reasoning-parser": "qwen3"}),
        ("Qwen/Qwen3.6-27B-FP8", {"--tool-call-parser": "qwen3_coder", "--reasoning-parser": "qwen3"}),
        ("meta-llama/Llama-3.1-8B-Instruct", {"--tool-call-parser": "llama3_json"}),
        ("openai/gpt-oss-20b", {"--tool-call-parser": "openai"}),
        ("someone/else", {}),
    ],
)
def test_parsers_of_known_families(model: str, parsers: dict[str, str]) -> None:
    flags = list(models.flags(model))
    assert bool(flags) == bool(parsers)
    for flag, value in parsers.items():
        assert flags[flags.index(flag) + 1] == value


def test_a_model_directory_is_one_safe_path_segment_per_commit() -> None:
    ids = ["a/b", "a/B", "a/b.c", "mistralai/Mistral-7B-Instruct-v0.3", "x/" + "y" * 94]
    found = {
        models.model_directory(v1alpha1.ModelSpec(id=model), commit)
        for model in ids
        for commit in ("a" * 40, "b" * 40)
    }
    assert len(found) == 2 * len(ids)
    assert all("/" not in name and not name.startswith(".") and len(name) <= 80 for name in found)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1024Mi", "1Gi"),
        ("1Gi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("0.5Ki", "512"),
        ("2000m", "2"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        ("2", "2"),
        ("1000", "1k"),
        ("10000M", "10G"),
        ("20G", "20G"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("1048576", "1048576"),
        ("1000Mi", "1000Mi"),
        ("0", "0"),
        ("0Gi", "0"),
        ("+5Gi", "5Gi"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_quantities_as_the_server_stores_them(written: str, stored: str) -> None:
    assert quantity.canonical(written) == stored
    assert quantity.canonical(stored) == stored
    assert quantity.value(written) == quantity.value(stored)
