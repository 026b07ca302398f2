"""A reader of the published directory that never stops looking: nothing, or everything."""

from __future__ import annotations

import pathlib
import threading
from types import TracebackType
from typing import Self

from fetch.rig import published


class Watcher:
    """`with Watcher(target, expected) as watcher:`; afterwards `watcher.partial` is empty."""

    def __init__(self, target: pathlib.Path, *expected: dict[str, bytes]) -> None:
        self._target, self._expected = target, expected
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.partial: list[list[str]] = []
        self.looks = 0

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            self.looks += 1
            before = self._inode()
            try:
                found = published(self._target)
            except FileNotFoundError:
                found = {}
            # A look that the replacement of the directory came into is no look at one directory.
            if before is not None and before == self._inode() and found not in self._expected:
                self.partial.append(sorted(found))

    def _inode(self) -> int | None:
        try:
            return self._target.stat().st_ino
        except FileNotFoundError:
            return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
