"""Python environments for programs that want other packages than the project does, made once in the lab's cache."""

from __future__ import annotations

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
import sys

from lab.cluster import binaries


class NotInstalled(Exception):
    """The environment could not be made; the message is what was said."""


def interpreter(name: str, lock: pathlib.Path) -> pathlib.Path:
    """The Python with the packages of a lock file; installs them if need be (seconds, from the package index).

    Raises:
        NotInstalled: a step failed.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = binaries.cache_root() / f"{name}-{version}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the tests run in several processes
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)])
            ready.touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
