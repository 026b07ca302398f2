"""Ends a group of processes when their owner is gone, however it went.

A test run that is killed with SIGKILL cannot clean up. So the processes of a control plane belong to
this small program, which holds the read end of a pipe whose write end only the owner has: when the
owner dies, the pipe closes, the processes are ended and their folder is removed.

    python -m lab.cluster.keeper FOLDER     orders as JSON lines on stdin, answers on stdout
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

#: The data is thrown away, so nobody needs a long goodbye.
GRACE = 1.0


def main(folder: pathlib.Path) -> int:
    """Obey `{"start": name, "argv": [...]}` and `{"stop": name}` until standard input closes."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        if name := order.get("start"):
            with open(folder / f"{name}.log", "ab") as log:
                running[name] = subprocess.Popen(
                    order["argv"],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **order.get("env", {})},
                )
            answer: Any = running[name].pid
        elif name := order.get("stop"):
            _end([running.pop(name)] if name in running else [])
            answer = None
        else:
            answer = {name: process.poll() for name, process in running.items()}
        print(json.dumps(answer), flush=True)
    _end(list(running.values()))
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM in reverse order of start, SIGKILL for what stays."""
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in reversed(processes):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
