"""How starts fail: the lines that name the cause, where they stand, and the exit code. Pure.

A cause is never the end of the log: below it stand the traceback's frames and, if the engine process
found it, the failure of the server that waited for it. Rows: vLLM's own messages, those of its libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lab.engine import parsers, startup
from lab.engine.arguments import Arguments
from lab.engine.script import Script

#: The process that fails: the one that listens, or the one that it waits for.
SERVER, ENGINE = "server", "engine"
_FRAMES = (
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/cli/serve.py", line 156, in cmd',
    "    uvloop.run(run_server(args))",
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/launchers/api_server/entry.py", line 177, '
    "in run_server",
    "    await run_server_worker(listen_address, sock, args, **uvicorn_kwargs)",
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/launchers/api_server/entry.py", line 83, '
    "in build_async_engine_client_from_engine_args",
)
_CORE_FRAMES = (
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1477, in run_engine_core',
    "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 154, in __init__',
    "    self.model_executor = executor_class(vllm_config)",
)
_WRAPPER = (
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/utils.py", line 1201, in wait_for_engine_startup',
    "    raise RuntimeError(",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
)


@dataclass(frozen=True)
class Failure:
    """One way to fail.

    Attributes:
        phase: in which the start ends.
        where: the process that fails: the server itself, or the engine that it waits for.
        cause: the last lines of the traceback.
        exit_code: of the container.
        reason: as the container runtime says it.
    """

    phase: str
    where: str
    cause: tuple[str, ...]
    exit_code: int = 1
    reason: str = "Error"


def _server(*cause: str, phase: str = "config") -> Failure:
    return Failure(phase, SERVER, cause)


def _engine(*cause: str, phase: str = "load") -> Failure:
    return Failure(phase, ENGINE, cause)


_HUB = "https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.3/resolve/main/config.json"
_GATED = "OSError: You are trying to access a gated repo."
_DOC = "    For further information visit https://errors.pydantic.dev/2.14/v/value_error"
#: By the reason that they are.
FAILURES: Mapping[str, Failure] = {
    "ModelNotFound": _server(
        f"huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. Repository Not Found for url: {_HUB}.",
        "OSError: nobody/nothing is not a local folder and is not a valid model identifier listed on the hub",
    ),
    "GatedNoToken": _server(
        f"{_GATED}\nMake sure to have access to it. 401 Client Error. Access to model is restricted. You must "
        "have access to it and be authenticated to access it. Please log in."
    ),
    "GatedNotGranted": _server(
        f"{_GATED}\n403 Client Error. Access to model is restricted and you are not in the authorized list. "
        "Visit the model's page to ask for access."
    ),
    "BadHFToken": _server(f"httpx.HTTPStatusError: Client error '401 Unauthorized' for url '{_HUB}'"),
    "HubUnreachable": _server(
        "OSError: We couldn't connect to the hub to load the files, and couldn't find them in the cached files."
    ),
    "OfflineCacheMiss": _server(
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the "
        "specified revision on the local disk and outgoing traffic has been disabled."
    ),
    "RevisionNotFound": _server(
        f"huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for url: {_HUB}."
    ),
    "DiskFull": _engine("OSError: [Errno 28] No space left on device"),
    "TruncatedDownload": _engine(
        "OSError: Consistency check failed: file should be of size 4949453792 but has size 4194304 "
        "(model-00001-of-00003.safetensors)."
    ),
    "CorruptWeights": _engine(
        "safetensors_rust.SafetensorError: Error while deserializing header: header too small"
    ),
    "NoWeights": _engine("RuntimeError: Cannot find any model weights with `/models/model`"),
    "UnsupportedModel": _server(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, Model architectures ['NovelForCausalLM'] are not supported for now. Supported architectures: "
        "dict_keys(['LlamaForCausalLM', 'MistralForCausalLM'])",
        _DOC,
    ),
    "NeedsRemoteCode": _server(
        "ValueError: The repository contains custom code which must be executed to correctly load the model. "
        "You can inspect the repository content. Please pass the argument `trust_remote_code=True` to allow it."
    ),
    "ContextTooLong": _server(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
        "(max_position_embeddings={context}.0 or model_max_length=None in model's config.json). To allow overriding "
        "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used "
        "with extreme caution. If the model uses relative position encoding (RoPE), positions exceeding "
        "derived_max_model_len lead to nan. If the model uses absolute position encoding, positions exceeding "
        "derived_max_model_len will cause a CUDA array out-of-bounds error.",
        _DOC,
    ),
    "KVCacheTooSmall": _engine(
        "ValueError: To serve at least one request with the model's max seq len ({max_model_len}), {needed} GiB KV "
        "cache is needed, which is larger than the available KV cache memory ({memory} GiB). Based on the available "
        "memory, the estimated maximum model length is {kv_tokens}. Try increasing `gpu_memory_utilization` or "
        "decreasing `max_model_len` when initializing the engine.",
        phase="profile",
    ),
    "ModelTooBig": _engine(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of "
        "19.50 GiB of which 101.38 MiB is free."
    ),
    "GPUBusy": _engine(
        "ValueError: Free memory on device cuda:0 (3.11/19.5 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 17.94 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    ),
    "BadParallelism": _server(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
        "  Value error, Total number of attention heads ({heads}) must be divisible by tensor parallel size "
        "({tensor_parallel_size}).",
        _DOC,
    ),
    "GPUTooOld": _engine(
        "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. "
        "Current capability: 75."
    ),
    "DriverTooOld": _engine(
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver"
    ),
    "NoGPU": _server(
        "RuntimeError: Failed to infer device type, please set the environment variable", phase="import"
    ),
    "EngineStartTimeout": Failure(
        "compile",
        SERVER,
        (
            "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight "
            "loading for large models.",
        ),
    ),
    "ServiceLinkClash": _server(
        "ValueError: VLLM_PORT 'tcp://10.0.0.1:8000' appears to be a URI. This may be caused by a Kubernetes service "
        "discovery issue, check the warning in: https://docs.vllm.ai/en/stable/serving/env_vars.html",
        phase="import",
    ),
    "BadParser": _server(
        "KeyError: 'invalid tool call parser: {tool_call_parser} (chose from {{ "
        + ",".join(parsers.TOOL)
        + " })'",
        phase="import",
    ),
    "BadReasoningParser": _server(
        "KeyError: \"Reasoning parser '{reasoning_parser}' not found. Available parsers: "
        + ", ".join(parsers.REASONING)
        + '"'
    ),
    "ProbeKilled": Failure("load", SERVER, ("KeyboardInterrupt: terminated",)),
    "ShmTooSmall": _engine("Fatal Python error: Bus error"),
    "NotWritable": _server(
        "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']",
        phase="import",
    ),
    "HostOOM": Failure("load", "", (), 137, "OOMKilled"),
    "Killed": Failure("load", "", (), 137),
}
NAMES = (*FAILURES, "BadFlag")


def inherent(arguments: Arguments, script: Script, environment: Mapping[str, str]) -> str | None:
    """The failure that follows from the arguments, the model and the environment."""
    wanted, parallel = arguments.max_model_len, arguments.tensor_parallel_size
    checks: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("ServiceLinkClash", lambda: "://" in environment.get("VLLM_PORT", "")),
        (
            "BadParser",
            lambda: arguments.auto_tool_choice and arguments.tool_call_parser not in parsers.TOOL,
        ),
        ("ContextTooLong", lambda: wanted is not None and wanted > script.context),
        ("BadParallelism", lambda: script.heads % parallel != 0),
        (
            "BadReasoningParser",
            lambda: bool(arguments.reasoning_parser) and arguments.reasoning_parser not in parsers.REASONING,
        ),
        ("KVCacheTooSmall", lambda: wanted != -1 and (wanted or script.context) > script.kv_tokens),
    )
    return next((name for name, holds in checks if holds()), None)


def lines(failure: Failure, arguments: Arguments, script: Script, moment: float) -> list[str]:
    """What follows the start's log; `moment` in seconds since 1970."""
    wanted = arguments.max_model_len
    limit = script.context if wanted in (None, -1) else wanted
    values = {
        "max_model_len": limit,
        "context": script.context,
        "heads": script.heads,
        "tensor_parallel_size": arguments.tensor_parallel_size,
        "tool_call_parser": arguments.tool_call_parser,
        "reasoning_parser": arguments.reasoning_parser,
        "needed": round((limit or 0) / 8192, 2),
        "memory": round(script.kv_tokens / 8192, 2),
        "kv_tokens": script.kv_tokens // 16 * 16,
    }
    cause = [line for text in failure.cause for line in _filled(text, values).split("\n")]
    return list(_tell(failure, cause, moment))


def _filled(text: str, values: Mapping[str, object]) -> str:
    """The text with the values that it names; other braces stay."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _tell(failure: Failure, cause: list[str], moment: float) -> Iterator[str]:
    """The engine process tells its cause twice, as a record and as Python does; then the server gives up."""
    ending = cause
    if failure.where == ENGINE:
        trace = ("Traceback (most recent call last):", *_CORE_FRAMES, *cause)
        for line in ("EngineCore failed to start.", *trace):
            yield startup.record(moment, startup.CORE, "core.py:1510", line, "ERROR")
        yield from ("Process EngineCore:", *trace)
        text = "[shutdown] Process manager: send sigterm to process EngineCore"
        yield startup.record(moment, startup.API, "utils.py:628", text)
        ending = list(_WRAPPER)
    if failure.where:
        yield from ("Traceback (most recent call last):", *_FRAMES, *ending)
