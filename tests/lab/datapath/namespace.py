"""Network namespaces that live as long as whoever made them.

Each is held by a process that waits for the end of its standard input: when the maker dies, however it
dies, the pipe closes, the holder ends, and the kernel removes the namespace with its links.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Self

_TOOLS = ("ip", "nsenter", "unshare", "iptables-restore", "ip6tables-restore")
_SETTLE_SECONDS = 5.0


def missing() -> str | None:
    """Why no namespace can be made here; None: it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(absent)} missing: apt-get install iproute2 iptables util-linux" if absent else None


class Place:
    """The network namespace of a running process.

    Attributes:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @classmethod
    def here(cls) -> Self:
        """The namespace of this process."""
        return cls(os.getpid())

    @property
    def path(self) -> pathlib.Path:
        """The namespace as a file."""
        return pathlib.Path(f"/proc/{self.pid}/ns/net")

    def command(self, command: Sequence[str]) -> list[str]:
        """A command line that runs `command` in this namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, command: Sequence[str], text: str = "") -> str:
        """Run in this namespace with `text` as standard input and give what it wrote.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        done = subprocess.run(
            self.command(command), input=text, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of the program `ip` one after another.

        Raises:
            RuntimeError: one failed.
        """
        self.run(["ip", "-batch", "-"], "\n".join(lines) + "\n")


class Namespace(Place):
    """A namespace of its own, with the loopback device up."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        super().__init__(self._holder.pid)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while os.readlink(self.path) == os.readlink("/proc/self/ns/net"):
            assert time.monotonic() < deadline, "unshare made no network namespace"
            time.sleep(0.005)
        self.ip("link set lo up")

    def close(self) -> None:
        """Let the namespace go, with everything in it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)
