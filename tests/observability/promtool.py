"""Prometheus' own tool, which reads and evaluates rules; built once into the lab's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import subprocess
import tempfile

from lab.cluster import binaries

_MODULE = pathlib.Path(__file__).resolve().parent / "tools"
_PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"
#: Service discovery is most of the program, and rules need none of it.
_FLAGS = ("-trimpath", "-tags", "remove_all_sd", "-ldflags", "-s -w", "-p", "2")


def ensure() -> pathlib.Path:
    """The program.

    Raises:
        binaries.BuildError: there is no Go, or the compiler failed.
    """
    digest = hashlib.sha256(" ".join(_FLAGS).encode() + (_MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    folder = binaries.cache_root() / "promtool"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"promtool-{digest}"
    with open(folder / ".lock", "w") as handle, tempfile.TemporaryDirectory(dir=folder) as temporary:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if program.exists():
            return program
        fresh = pathlib.Path(temporary) / "promtool"
        command = ["go", "build", *_FLAGS, "-o", str(fresh), _PACKAGE]
        try:
            done = subprocess.run(
                command,
                cwd=_MODULE,
                env={**os.environ, "CGO_ENABLED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise binaries.BuildError("Go is needed to build promtool once") from None
        if done.returncode != 0:
            raise binaries.BuildError(f"promtool: {done.stderr[-2000:]}")
        fresh.rename(program)
    return program


def run(program: pathlib.Path, *arguments: str, folder: pathlib.Path) -> tuple[bool, str]:
    """Whether it was content, and what it said."""
    done = subprocess.run(
        [str(program), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode == 0, done.stdout + done.stderr
