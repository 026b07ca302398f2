from __future__ import annotations

import pytest

from lab.engine import arguments
from lab.engine.arguments import Refused


def test_what_the_operator_renders_is_understood() -> None:
    sandbox_arguments = [
        *("/models/m", "--served-model-name", "mistralai/Mistral-7B-Instruct-v0.3", "--host", "0.0.0.0"),
        *("--port", "8000", "--max-model-len", "auto", "--gpu-memory-utilization", "0.92"),
        *("--tensor-parallel-size", "2", "--disable-fastapi-docs", "--shutdown-timeout", "60"),
        *("--disable-access-log-for-endpoints", "/health,/metrics,/ping", "--max-num-seqs", "64"),
        *("--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "mistral"),
    ]
    found = arguments.parse(sandbox_arguments, {"VLLM_API_KEY": "k"})
    assert (found.model, found.served_names) == ("/models/m", ("mistralai/Mistral-7B-Instruct-v0.3",))
    assert (found.port, found.max_model_len, found.max_num_seqs, found.shutdown_timeout) == (8000, -1, 64, 60)
    assert (found.api_keys, found.docs, found.tensor_parallel_size) == (("k",), False, 2)
    assert found.quiet_paths == {"/health", "/metrics", "/ping"}


def test_without_flags_it_has_the_defaults_of_vllm() -> None:
    found = arguments.parse([])
    assert (found.model, found.served_names) == ("Qwen/Qwen3-0.6B", ("Qwen/Qwen3-0.6B",))
    assert (found.max_model_len, found.max_num_seqs, found.shutdown_timeout) == (None, 256, 0)
    assert found.gpu_memory_utilization == 0.92
    assert found.docs
    assert found.api_keys == ()


@pytest.mark.parametrize(
    ("flags", "limit"),
    [(["--max-model-len", "4k"], 4000), (["--max-model-len", "4K"], 4096), (["--max_model_len=-1"], -1)],
)
def test_sizes_and_underscores_are_read_as_vllm_reads_them(flags: list[str], limit: int) -> None:
    assert arguments.parse(["m", *flags]).max_model_len == limit


def test_of_a_repeated_flag_the_last_one_counts() -> None:
    assert arguments.parse(["m", "--max-num-seqs", "1", "--max-num-seqs", "2"]).max_num_seqs == 2


def test_a_key_on_the_command_line_comes_before_the_variable() -> None:
    assert arguments.parse(["m", "--api-key", "a", "b"], {"VLLM_API_KEY": "c"}).api_keys == ("a", "b")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no-such-flag"], "vllm: error: unrecognized arguments: --no-such-flag"),
        (["--port", "x"], "vllm serve: error: argument --port: invalid int value: 'x'"),
        (["--kv-cache-dtype", "x"], "argument --kv-cache-dtype: invalid choice: 'x'"),
        (["--max-model-len", "long"], "invalid human_readable_int_or_auto value: 'long'"),
        (["--max-num-seqs"], "argument --max-num-seqs: expected one argument"),
    ],
)
def test_what_vllm_refuses_is_refused_with_code_2(flags: list[str], message: str) -> None:
    with pytest.raises(Refused) as refused:
        arguments.parse(["m", *flags])
    assert message in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_question_for_help_ends_with_code_0() -> None:
    with pytest.raises(Refused) as refused:
        arguments.parse(["m", "--help"])
    assert refused.value.exit_code == 0
    assert "--served-model-name" in str(refused.value)
