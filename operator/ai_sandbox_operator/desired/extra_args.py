"""Arguments of the engine that a sandbox must not set.

Each of them opens a way around the gateway, reads something that is not the model, runs foreign code,
puts a secret on a command line, or contradicts a field of the spec.
Source: vLLM docs/usage/security.md and docs/cli/serve.md.
"""

from __future__ import annotations

from collections.abc import Iterable

REFUSED = frozenset(
    {
        # Other ways in, or away from the port that probes and policies know.
        "--data-parallel-address",
        "--data-parallel-rpc-port",
        "--enable-scale-out",
        "--grpc",
        "--grpc-port",
        "--headless",
        "--host",
        "--master-addr",
        "--master-port",
        "--port",
        "--root-path",
        "--ssl-ca-certs",
        "--ssl-certfile",
        "--ssl-keyfile",
        "--uds",
        # Foreign code, foreign files, or what nobody outside should read.
        "--allowed-local-media-path",
        "--config",
        "--enable-tokenizer-info-endpoint",
        "--enable-trace-function-call",
        "--logits-processors",
        "--middleware",
        "--profiler-config",
        "--reasoning-parser-plugin",
        "--tool-parser-plugin",
        "--tool-server",
        "--worker-extension-cls",
        # Secrets in arguments are readable for everybody who may read the pod.
        "--api-key",
        "--hf-token",
        # Fields of the spec.
        "--gpu-memory-utilization",
        "--max-model-len",
        "--model",
        "--revision",
        "--served-model-name",
        "--tensor-parallel-size",
        "-tp",
    }
)

#: Flags that are no abbreviation, though a refused flag begins with them.
_WHOLE = frozenset({"--reasoning-parser"})


def refused(arguments: Iterable[str]) -> tuple[str, ...]:
    """Those of `arguments` that a sandbox must not set, as written by the user but without values.

    The parser takes underscores for hyphens, dotted keys for parts of a JSON value, and may take an
    abbreviation for the whole flag; so does this check.
    """
    found = []
    for argument in arguments:
        if not argument.startswith("-"):
            continue
        written = argument.partition("=")[0]
        flag = written.partition(".")[0].replace("_", "-")
        abbreviated = len(flag) > 1 and flag not in _WHOLE and any(name.startswith(flag) for name in REFUSED)
        if flag in REFUSED or abbreviated:
            found.append(written)
    return tuple(found)
