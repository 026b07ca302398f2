"""Every way to fail that a diagnosis tells apart, with the text that it is told by."""

from __future__ import annotations

import math

import pytest

from lab.engine import corpus, failures, plan
from lab.engine.script import Script

#: Substrings of the log by reason.
SIGNATURES: dict[str, tuple[str, ...]] = {
    "ModelNotFound": ("is not a valid model identifier", "Repository Not Found for url"),
    "GatedNoToken": ("gated repo", "401 Client Error"),
    "GatedNotGranted": ("gated repo", "403 Client Error", "not in the authorized list"),
    "BadHFToken": ("Client error '401 Unauthorized'",),
    "HubUnreachable": ("We couldn't connect to",),
    "OfflineCacheMiss": (
        "Cannot find an appropriate cached snapshot folder",
        "outgoing traffic has been disabled",
    ),
    "RevisionNotFound": ("Revision Not Found for url",),
    "DiskFull": ("No space left on device",),
    "TruncatedDownload": ("Consistency check failed: file should be of size",),
    "CorruptWeights": ("Error while deserializing header",),
    "NoWeights": ("Cannot find any model weights with",),
    "UnsupportedModel": ("are not supported for now",),
    "NeedsRemoteCode": ("trust_remote_code=True",),
    "ContextTooLong": ("is greater than the derived max_model_len",),
    "KVCacheTooSmall": (
        "KV cache is needed, which is larger than the available KV cache memory",
        "estimated maximum model length is 48880",
    ),
    "ModelTooBig": ("CUDA out of memory",),
    "GPUBusy": ("on startup is less than desired GPU memory utilization",),
    "BadParallelism": ("must be divisible by tensor parallel size",),
    "GPUTooOld": ("is not supported for the current GPU. Minimum capability",),
    "DriverTooOld": ("NVIDIA driver on your system is too old",),
    "NoGPU": ("Failed to infer device type",),
    "EngineStartTimeout": ("Timed out waiting for engine core processes",),
    "ServiceLinkClash": ("appears to be a URI",),
    "BadFlag": ("unrecognized arguments:",),
    "BadParser": ("invalid tool call parser:",),
    "BadReasoningParser": ("Reasoning parser", "not found"),
    "ProbeKilled": ("KeyboardInterrupt: terminated",),
    "ShmTooSmall": ("Bus error",),
    "NotWritable": ("No usable temporary directory",),
    "HostOOM": (),
    "Killed": (),
}
CODES = {"BadFlag": 2, "HostOOM": 137, "Killed": 137}


def made(script: Script, *flags: str, environment: dict[str, str] | None = None) -> plan.Plan:
    return plan.make(("/models/m", *flags), environment or {}, script, total=10, began=0)


def test_every_failure_has_a_signature_here() -> None:
    assert SIGNATURES.keys() == set(failures.NAMES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_start_fails_with_the_words_and_the_code_of_its_reason(name: str) -> None:
    failing = made(Script(fail=name))
    assert failing.up is None
    assert failing.failure is not None
    assert failing.failure.exit_code == CODES.get(name, 1)
    text = "\n".join(failing.log(math.inf))
    for signature in SIGNATURES[name]:
        assert signature in text
    assert "Application startup complete." not in text


@pytest.mark.parametrize("name", [n for n, f in failures.FAILURES.items() if f.where == failures.ENGINE])
def test_what_the_engine_process_finds_is_followed_by_the_servers_own_failure(name: str) -> None:
    lines = made(Script(fail=name)).log(math.inf)
    assert lines[-1].startswith("RuntimeError: Engine core initialization failed. See root cause above.")
    cause = failures.FAILURES[name].cause[-1][:20]
    assert any(cause in line for line in lines[:-5])


@pytest.mark.parametrize(
    ("flags", "environment", "name"),
    [
        (("--max-model-len", "40000"), {}, "ContextTooLong"),
        (("--max-model-len", "16384"), {}, "KVCacheTooSmall"),
        ((), {}, "KVCacheTooSmall"),
        (("--tensor-parallel-size", "3"), {}, "BadParallelism"),
        (("--enable-auto-tool-choice", "--tool-call-parser", "qwen3"), {}, "BadParser"),
        (("--reasoning-parser", "none", "--max-model-len", "auto"), {}, "BadReasoningParser"),
        ((), {"VLLM_PORT": "tcp://10.0.0.1:8000"}, "ServiceLinkClash"),
        (("--no-such-flag",), {}, "BadFlag"),
    ],
)
def test_what_the_arguments_make_impossible_fails_by_itself(
    flags: tuple[str, ...], environment: dict[str, str], name: str
) -> None:
    failing = made(Script(kv_tokens=9000), *flags, environment=environment)
    text = "\n".join(failing.log(math.inf))
    assert SIGNATURES[name][0] in text


def test_what_fits_does_not_fail() -> None:
    flags = ("--max-model-len", "8192", "--tensor-parallel-size", "2", "--tool-call-parser", "mistral")
    found = made(Script(kv_tokens=9000), *flags, "--enable-auto-tool-choice", "--reasoning-parser", "qwen3")
    assert found.failure is None
    assert found.up == pytest.approx(10)


def test_the_estimate_of_a_small_cache_is_one_that_then_starts() -> None:
    script = Script(kv_tokens=9000)
    text = "\n".join(made(script).log(math.inf))
    estimate = text.split("estimated maximum model length is ")[1].split(".")[0]
    assert made(script, "--max-model-len", estimate).failure is None


@pytest.mark.parametrize("name", corpus.names())
def test_every_log_of_the_corpus_can_be_a_failure(name: str) -> None:
    failing = made(Script(fail=name))
    recorded = corpus.find(name)
    assert recorded is not None
    assert failing.failure is not None
    assert failing.log(math.inf) == list(recorded.lines)
    assert failing.failure.exit_code == recorded.exit_code


def test_a_corpus_was_found() -> None:
    assert len(corpus.names()) > 20
