"""A namespace of its own for one run: network, mounts and processes, all gone when its command ends.

The command runs as a child of process 1 of a new process namespace. When process 1 ends, for whatever reason,
the kernel ends everything in it: containers, shims, kubelet. Mounts and interfaces go with the last process. What
is left is a folder and control groups, which `run` removes, also those of runs that were killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from lab.node import needs

#: Set inside: the run's folder.
VARIABLE = "AI_SANDBOX_NODE"
ADDRESS = "10.250.0.1"
BRIDGE = "node0"
_FOLDERS = pathlib.Path("/var/tmp/ai-sandbox-node")  # containers need a file system that overlays may lie on
_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_TESTS = pathlib.Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1


def folder() -> pathlib.Path | None:
    """The folder of the run that this process is part of; None outside."""
    found = os.environ.get(VARIABLE)
    return pathlib.Path(found) if found else None


def run(command: Sequence[str]) -> int:
    """Run a command in a new namespace; its exit code.

    Raises:
        needs.Unavailable: this machine has not what it takes.
    """
    needs.require()
    _sweep()
    with _own_folder() as own:
        entry = [sys.executable, "-m", "lab.node.inside", *command]
        flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            ["unshare", *flags, *entry],
            env={**os.environ, VARIABLE: str(own), "PYTHONPATH": f"{_TESTS.parent / 'operator'}:{_TESTS}"},
            preexec_fn=_end_with_parent,
        )
        previous = signal.signal(signal.SIGTERM, lambda *_: process.kill())
        try:
            while True:
                with contextlib.suppress(KeyboardInterrupt):  # the command gets it as well, and ends
                    return process.wait()
        finally:
            process.kill()
            process.wait()
            signal.signal(signal.SIGTERM, previous)


def control_group(own: pathlib.Path) -> str:
    """Name of the control group of a run."""
    return f"ai-sandbox-node-{own.name}"


@contextlib.contextmanager
def _own_folder() -> Iterator[pathlib.Path]:
    with contextlib.ExitStack() as stack:
        with _alone():
            own = pathlib.Path(tempfile.mkdtemp(prefix="", dir=_FOLDERS))
            handle = stack.enter_context(open(own / "lock", "w"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        own.chmod(0o755)
        try:
            _make_control_groups(own)
            yield own
        finally:
            _remove(own)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Nobody else makes or sweeps folders meanwhile."""
    _FOLDERS.mkdir(parents=True, exist_ok=True)
    with open(_FOLDERS / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _hierarchies() -> list[pathlib.Path]:
    """With cgroup v2 one, with v1 one per controller."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_control_groups(own: pathlib.Path) -> None:
    for hierarchy in _hierarchies():
        group = hierarchy / control_group(own)
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # with v1 a new group has none
            if (group / name).exists() and (hierarchy / "cgroup.clone_children").exists():
                (group / name).write_text((hierarchy / name).read_text())


def _sweep() -> None:
    """Remove what killed runs have left: folders whose lock nobody holds."""
    with _alone():
        for own in _FOLDERS.iterdir():
            with contextlib.suppress(OSError), open(own / "lock", "a") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(own)


def _remove(own: pathlib.Path) -> None:
    deadline = time.monotonic() + 10
    for group in [path / control_group(own) for path in _hierarchies()]:
        while group.is_dir():
            for inner in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    inner.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()
            if time.monotonic() > deadline:
                print(f"left behind: {group}", file=sys.stderr)
                break
            time.sleep(0.05)
    shutil.rmtree(own, ignore_errors=True)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
