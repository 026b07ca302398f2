"""Which files are fetched, from listings of the kinds of repositories that exist."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.desired import models
from ai_sandbox_operator.fetch import choose
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

SIDE = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]


def files(*paths: str) -> list[choose.RemoteFile]:
    return [choose.RemoteFile(path=path, size=10) for path in paths]


MISTRAL = files(
    ".gitattributes", "README.md", "params.json", "tokenizer.model", "tokenizer.model.v3", *SIDE,
    "consolidated.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)  # fmt: skip
SHARDS = frozenset({"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})
LLAMA = files(
    *SIDE, "LICENSE", "original/consolidated.00.pth", "original/params.json", "original/tokenizer.model",
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
)  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "listing", "consolidated", "indexed", "expected"),
    [
        (
            "both weight sets, the engine loads Mistral's format",
            MISTRAL,
            True,
            None,
            ["consolidated.safetensors", *SIDE, "params.json", "tokenizer.model", "tokenizer.model.v3"],
        ),
        (
            "both weight sets, the engine loads the other format: without params.json, which would switch it",
            MISTRAL,
            False,
            SHARDS,
            [*SIDE, *SHARDS, "model.safetensors.index.json", "tokenizer.model", "tokenizer.model.v3"],
        ),
        (
            "only consolidated weights are taken whatever is preferred",
            files(
                "params.json",
                "tekken.json",
                "consolidated-00001-of-00002.safetensors",
                "consolidated-00002-of-00002.safetensors",
                "consolidated.safetensors.index.json",
            ),
            False,
            None,
            [
                "consolidated-00001-of-00002.safetensors",
                "consolidated-00002-of-00002.safetensors",
                "consolidated.safetensors.index.json",
                "params.json",
                "tekken.json",
            ],
        ),
        (
            "original/ is a second copy",
            LLAMA,
            False,
            SHARDS,
            [*SIDE, *SHARDS, "model.safetensors.index.json"],
        ),
        (
            "the index decides, not the names",
            files(*SIDE, "a.safetensors", "adapter.safetensors", "model.safetensors.index.json"),
            False,
            frozenset({"a.safetensors"}),
            [*SIDE, "a.safetensors", "model.safetensors.index.json"],
        ),
        (
            "one file, no index; pickles and other runtimes are left",
            files(
                *SIDE,
                "model.safetensors",
                "pytorch_model.bin",
                "model.pt",
                "q4.gguf",
                "onnx/model.safetensors",
            ),
            False,
            None,
            [*SIDE, "model.safetensors"],
        ),
        (
            "Mistral's format is preferred but not there",
            files(*SIDE, "model.safetensors"),
            True,
            None,
            [*SIDE, "model.safetensors"],
        ),
        (
            "templates and code beside the weights",
            files(
                "chat_template.jinja",
                "modeling_x.py",
                "merges.txt",
                "qwen.tiktoken",
                "1_Pooling/config.json",
                "model.safetensors",
            ),
            False,
            None,
            [
                "chat_template.jinja",
                "modeling_x.py",
                "merges.txt",
                "qwen.tiktoken",
                "1_Pooling/config.json",
                "model.safetensors",
            ],
        ),
        (
            "paths that leave the directory are not followed",
            files(
                "../../etc/passwd.json", "/etc/x.json", "a/../../x.json", "a\\..\\x.json", "model.safetensors"
            ),
            False,
            None,
            ["model.safetensors"],
        ),
        (
            "a data set as JSON is not configuration",
            [choose.RemoteFile(path="train.json", size=10**9), *files("config.json", "model.safetensors")],
            False,
            None,
            ["config.json", "model.safetensors"],
        ),
    ],
)
def test_choose(
    sentence: str,
    listing: list[choose.RemoteFile],
    consolidated: bool,
    indexed: frozenset[str] | None,
    expected: list[str],
) -> None:
    chosen = choose.choose(listing, consolidated=consolidated, indexed=indexed)
    assert [file.path for file in chosen.files] == sorted(expected), sentence
    again = choose.choose(list(reversed(listing)), consolidated=consolidated, indexed=indexed)
    assert again == chosen


@pytest.mark.parametrize(
    ("sentence", "listing", "indexed", "words"),
    [
        (
            "pickles only",
            files("config.json", "pytorch_model.bin", "x.gguf"),
            None,
            "only there as .bin, .gguf",
        ),
        ("nothing", files("README.md"), None, "holds no weights"),
        ("an index of files that are missing", LLAMA, frozenset({"gone.safetensors"}), "gone.safetensors"),
        ("an empty index", LLAMA, frozenset(), "no files"),
        ("an index that names a pickle", files("a.bin", "config.json"), frozenset({"a.bin"}), "a.bin"),
        ("an index that leaves the directory", LLAMA, frozenset({"../x.safetensors"}), "../x"),
    ],
)
def test_without_weights_there_is_nothing_to_fetch(
    sentence: str, listing: list[choose.RemoteFile], indexed: frozenset[str] | None, words: str
) -> None:
    with pytest.raises(FetchError) as caught:
        choose.choose(listing, consolidated=False, indexed=indexed)
    assert caught.value.failure == FetchFailure.NoWeights, sentence
    assert words in str(caught.value)


def test_the_index_is_only_needed_where_it_decides() -> None:
    assert choose.needs_index(MISTRAL, consolidated=True) is None
    assert choose.needs_index(MISTRAL, consolidated=False) == choose.RemoteFile(path=choose.INDEX, size=10)
    assert choose.needs_index(files("model.safetensors"), consolidated=False) is None


@pytest.mark.parametrize(
    ("model", "consolidated"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.3", True),
        ("Qwen/Qwen3-4B", False),
        ("meta-llama/Llama-3.1-8B-Instruct", False),
        ("someone/mistral-finetune", False),
    ],
)
def test_the_format_is_the_one_that_the_engines_flags_name(model: str, consolidated: bool) -> None:
    assert models.loads_consolidated(model) == consolidated
