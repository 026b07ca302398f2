"""A run's namespace: whatever happens to its command, nothing of it is left."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lab.node import needs, space

pytestmark = pytest.mark.skipif(bool(needs.missing()), reason=needs.missing())

#: Starts a process that outlives its parent, mounts something, makes a network namespace, and says who it is.
COMMAND = (
    "ip netns add beyond; mkdir -p /run/netns/x; "
    'setsid sleep 3600 </dev/null >/dev/null 2>&1 & echo "$AI_SANDBOX_NODE"; '
)


def start(end: str) -> subprocess.Popen[str]:
    """A run whose command goes on with `end`."""
    script = "import sys; from lab.node import space; sys.exit(space.run(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", script, "sh", "-c", COMMAND + end],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def left(folder: pathlib.Path) -> list[str]:
    """Processes, mounts, folders and control groups of a run."""
    processes = [
        str(entry)
        for entry in pathlib.Path("/proc").glob("[0-9]*/environ")
        if f"{space.VARIABLE}={folder}".encode() in _content(entry)
    ]
    mounts = [
        line
        for line in _content(pathlib.Path("/proc/self/mounts")).decode().splitlines()
        if str(folder) in line
    ]
    groups = pathlib.Path("/sys/fs/cgroup").glob(f"**/{space.control_group(folder)}")
    return [*processes, *mounts, *map(str, groups), *([str(folder)] if folder.exists() else [])]


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def said(process: subprocess.Popen[str]) -> pathlib.Path:
    """The folder of a run."""
    assert process.stdout is not None
    with process.stdout as lines:
        return pathlib.Path(lines.readline().strip())


def test_the_exit_code_is_the_command_s_and_nothing_is_left() -> None:
    process = start("exit 7")
    folder = said(process)
    assert process.wait(timeout=30) == 7
    assert left(folder) == []


def test_terminated_it_ends_everything() -> None:
    process = start("sleep 3600")
    folder = said(process)
    assert left(folder)
    process.terminate()
    process.wait(timeout=30)
    assert left(folder) == []


def test_killed_it_leaves_no_process_and_the_next_run_removes_the_rest() -> None:
    process = start("sleep 3600")
    folder = said(process)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    deadline = time.monotonic() + 10
    while any("environ" in one for one in left(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [one for one in left(folder) if "environ" in one]
    following = start("exit 0")
    assert said(following) != folder
    assert following.wait(timeout=30) == 0
    assert left(folder) == []
