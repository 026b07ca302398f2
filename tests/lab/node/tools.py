"""The node's programs, built once like the control plane's and kept beside them."""

from __future__ import annotations

import pathlib

from lab.cluster import binaries

_LAB = pathlib.Path(__file__).resolve().parents[1]

KUBERNETES = tuple(
    binaries.Tool(name, f"./cmd/{name}", _LAB / "tools-node") for name in ("kubelet", "kube-proxy")
)
COREDNS = (binaries.Tool("coredns", "./cmd/coredns", _LAB / "tools-coredns"),)


def ensure() -> dict[str, pathlib.Path]:
    """Path of each program; builds what is missing (two minutes on two cores beside a built control plane).

    Raises:
        binaries.BuildError: there is no Go, or the compiler failed.
    """
    return {
        tool.name: binaries.ensure(tools) / tool.name for tools in (KUBERNETES, COREDNS) for tool in tools
    }
