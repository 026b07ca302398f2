"""How the engine's failures look in its log: one row per cause. Data, no logic.

Texts: vLLM 0.33, huggingface_hub 2.4, torch; observed on a running server or read in their sources.
They hold no host names, which mirrors change.
"""

from __future__ import annotations

import dataclasses
import re

from ai_sandbox_operator.api.conditions import Reason


@dataclasses.dataclass(frozen=True)
class Signature:
    """One row.

    Attributes:
        name: the row's own name; several rows may lead to one reason.
        texts: any of these in a line is the signature.
        near: each of these stands in the same line or a few lines beside it.
        permanent: the same engine on the same GPU fails again, until somebody changes something.
        weak: also follows a real cause, so it counts only where no other row matches.
        suggestions: what to do, from numbers in the text: pattern, and template for its groups.
    """

    name: str
    reason: Reason
    texts: tuple[str, ...]
    near: tuple[str, ...] = ()
    permanent: bool = True
    weak: bool = False
    suggestions: tuple[tuple[re.Pattern[str], str], ...] = ()


_ESTIMATE = re.compile(r"estimated maximum model length is (\d+)")
_DERIVED = re.compile(r"derived max_model_len \([\w ]*=(\d+)")
_HEADS = re.compile(r"\((\d+)\) must be divisible by tensor parallel size")
_UNKNOWN_FLAG = re.compile(r"unrecognized arguments: (--[\w-]+)")

#: Within one line the first row that matches counts.
SIGNATURES: tuple[Signature, ...] = (
    Signature("ShmTooSmall", Reason.EngineSetupFault, ("Bus error", "unhandled system error", "/psm_")),
    Signature(
        "NotWritable",
        Reason.EngineSetupFault,
        ("No usable temporary directory",),
    ),
    Signature("CacheNotWritable", Reason.EngineSetupFault, ("PermissionError",), near=("flashinfer_cubin",)),
    Signature("ServiceLinkClash", Reason.EngineSetupFault, ("appears to be a URI",)),
    Signature(
        "GatedNoToken",
        Reason.ModelGatedNoToken,
        ("401 Client Error", "Client error '401 Unauthorized'"),
        near=("gated repo",),
    ),
    Signature(
        "GatedNotGranted",
        Reason.ModelGatedNotGranted,
        ("403 Client Error", "Client error '403 Forbidden'"),
        near=("gated repo",),
    ),
    Signature("GatedNotListed", Reason.ModelGatedNotGranted, ("not in the authorized list",)),
    Signature("BadHFToken", Reason.HubTokenInvalid, ("Client error '401 Unauthorized'",)),
    Signature("RevisionNotFound", Reason.RevisionNotFound, ("Revision Not Found for url",)),
    Signature(
        "ModelNotFound",
        Reason.ModelNotFound,
        ("is not a valid model identifier", "Repository Not Found for url"),
    ),
    Signature(
        "OfflineCacheMiss",
        Reason.ModelFilesMissing,
        ("Cannot find an appropriate cached snapshot folder", "outgoing traffic has been disabled"),
    ),
    Signature(
        "HubUnreachable",
        Reason.HubUnreachable,
        ("We couldn't connect to", "429 Too Many Requests"),
        permanent=False,
    ),
    Signature(
        "DiskFull", Reason.DiskFull, ("No space left on device", "Not enough free disk space to download")
    ),
    Signature(
        "TruncatedDownload",
        Reason.DownloadDamaged,
        ("Consistency check failed: file should be of size",),
        permanent=False,
    ),
    Signature("CorruptWeights", Reason.ModelFilesDamaged, ("Error while deserializing header",)),
    Signature("NoWeights", Reason.NoWeights, ("Cannot find any model weights with",)),
    Signature(
        "UnsupportedModel",
        Reason.ModelUnsupported,
        ("are not supported for now", "was supported in vLLM until v", "failed to be inspected"),
    ),
    Signature(
        "NeedsRemoteCode",
        Reason.RemoteCodeRequired,
        ("trust_remote_code=True", "requires you to execute"),
    ),
    Signature(
        "ContextTooLong",
        Reason.ContextTooLong,
        ("is greater than the derived max_model_len",),
        suggestions=((_DERIVED, "Set spec.model.maxContextTokens to at most {}."),),
    ),
    Signature(
        "KVCacheTooSmall",
        Reason.KVCacheTooSmall,
        (
            "KV cache is needed, which is larger than the available KV cache memory",
            "estimated maximum model length is",
        ),
        suggestions=(
            (_ESTIMATE, "Set spec.model.maxContextTokens to at most {}, or use GPUs with more memory."),
        ),
    ),
    Signature(
        "ModelTooBig",
        Reason.ModelTooLarge,
        ("No available memory for the cache blocks", "CUDA out of memory", "Cannot auto-fit max_model_len"),
    ),
    Signature(
        "GPUBusy",
        Reason.GPUBusy,
        ("on startup is less than desired GPU memory utilization",),
        permanent=False,
    ),
    Signature(
        "BadParallelism",
        Reason.GPUCountUnsupported,
        ("must be divisible by tensor parallel size",),
        suggestions=((_HEADS, "Set spec.gpu.count to a number that divides {}."),),
    ),
    Signature(
        "GPUTooOld",
        Reason.GPUTooOld,
        (
            "is not supported for the current GPU. Minimum capability",
            "no kernel image is available for execution",
        ),
    ),
    Signature(
        "DriverTooOld",
        Reason.DriverTooOld,
        (
            "NVIDIA driver on your system is too old",
            "PTX was compiled with an unsupported toolchain",
        ),
    ),
    Signature(
        "NoGPU",
        Reason.GPUNotFound,
        ("Failed to infer device type", "No CUDA GPUs are available"),
        permanent=False,
    ),
    Signature(
        "BadFlag",
        Reason.InvalidEngineArguments,
        ("unrecognized arguments:",),
        suggestions=((_UNKNOWN_FLAG, "Remove {} from spec.engine.extraArgs."),),
    ),
    Signature("BadToolParser", Reason.InvalidEngineArguments, ("invalid tool call parser:",)),
    Signature(
        "BadReasoningParser", Reason.InvalidEngineArguments, ("Reasoning parser",), near=("not found",)
    ),
    Signature("WrongArchitecture", Reason.ImageUnusable, ("exec format error",)),
    Signature(
        "EngineStartTimeout",
        Reason.StartTimeout,
        ("Timed out waiting for engine core processes",),
        permanent=False,
        weak=True,
    ),
    Signature(
        "ProbeKilled",
        Reason.StartTimeout,
        ("KeyboardInterrupt: terminated",),
        permanent=False,
        weak=True,
    ),
    Signature(
        "EngineCrashed",
        Reason.EngineCrashed,
        ("EngineDeadError", "EngineCore encountered an issue", "died unexpectedly"),
        permanent=False,
        weak=True,
    ),
)
