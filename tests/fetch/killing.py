"""A fetch that kills itself with SIGKILL at its n-th step on the volume.

A step is an operation that Python's audit events name (open, rename, remove, mkdir, rmdir, flock) on a path
below the volume. `python -m fetch.killing N VOLUME FILE fetch ...`; with N = 0 nothing is killed and FILE
gets the number of steps.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys

from ai_sandbox_operator import cli

EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock", "os.scandir"})


def main() -> int:
    last, volume, count = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    steps = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event not in EVENTS:
            return
        if event != "fcntl.flock" and not str(arguments[0]).startswith(volume):
            return
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = cli.main(sys.argv[4:])
    count.write_text(str(steps))
    return code


if __name__ == "__main__":
    sys.exit(main())
