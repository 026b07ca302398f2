"""Builds the control plane's programs from Go modules, once, and keeps them outside the checkout.

The module `tests/lab/tools` pins every version; its files and the Go version name the cache folder,
so a fresh clone builds nothing and a changed pin builds anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

TOOLS_MODULE = pathlib.Path(__file__).resolve().parents[1] / "tools"
KUBERNETES_VERSION = "1.37.2"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_LDFLAGS = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion=v{KUBERNETES_VERSION} "
    f"-X {_VERSION_PACKAGE}.gitMajor=1 -X {_VERSION_PACKAGE}.gitMinor=37"
)


class BuildError(Exception):
    """A program could not be built; the message ends with the compiler's own words."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program to build: `package` within the Go module at `module`."""

    name: str
    package: str
    module: pathlib.Path = TOOLS_MODULE


CONTROL_PLANE = tuple(
    Tool(name, f"./cmd/{name}")
    for name in ("etcd", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
)


def cache_root() -> pathlib.Path:
    """Folder of everything that is kept between checkouts."""
    if chosen := os.environ.get("AI_SANDBOX_LAB_CACHE"):
        return pathlib.Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "ai-sandbox-lab"


def ensure(tools: Sequence[Tool] = CONTROL_PLANE) -> pathlib.Path:
    """The folder with the built programs; builds what is missing and says how far it is.

    Raises:
        BuildError: there is no Go, or the compiler failed.
    """
    folder = cache_root() / f"bin-{_fingerprint(tools)}"
    if all((folder / tool.name).exists() for tool in tools):
        return folder
    if shutil.which("go") is None:
        raise BuildError("Go is needed to build the control plane once; install Go 1.26 or newer")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        missing = [tool for tool in tools if not (folder / tool.name).exists()]
        if missing:
            _say(
                f"building {len(missing)} programs into {folder}: about 8 minutes the first time, on two cores"
            )
        began = time.monotonic()
        for index, tool in enumerate(missing, 1):
            _build(tool, folder, f"{index}/{len(missing)}", began)
    return folder


def _fingerprint(tools: Sequence[Tool]) -> str:
    digest = hashlib.sha256(_LDFLAGS.encode())
    for module in sorted({tool.module for tool in tools}):
        sources = sorted(p for p in module.rglob("*") if p.suffix in {".mod", ".sum", ".go"})
        for path in sources:
            digest.update(str(path.relative_to(module)).encode() + b"\0" + path.read_bytes() + b"\0")
    version = (
        subprocess.run(["go", "version"], capture_output=True, text=True, check=False) if _go() else None
    )
    digest.update((version.stdout if version else "").encode())
    return digest.hexdigest()[:16]


def _go() -> bool:
    return shutil.which("go") is not None


def _build(tool: Tool, folder: pathlib.Path, position: str, began: float) -> None:
    """Build into a temporary name and rename: a killed build leaves nothing that looks finished."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        target = pathlib.Path(temporary) / tool.name
        with open(pathlib.Path(temporary) / "log", "w+b") as log:
            process = subprocess.Popen(
                ["go", "build", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(target), tool.package],
                cwd=tool.module,
                env={**os.environ, "CGO_ENABLED": "0"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
                    break
                _say(f"building {tool.name} ({position}), {_clock(began)} so far")
            if process.returncode != 0:
                log.seek(0)
                raise BuildError(f"{tool.name}: {log.read().decode(errors='replace')[-2000:]}")
        target.rename(folder / tool.name)
    _say(f"built {tool.name} ({position}), {_clock(began)} so far")


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """One builder at a time; others wait and then find everything built."""
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 60}:{seconds % 60:02}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
