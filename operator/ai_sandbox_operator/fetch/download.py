"""Carrying out a selection: worker threads that download and verify, and the loop that watches them.

huggingface_hub has no end of its own when a connection stays open and silent, so the loop watches the
bytes on the volume. Workers are daemon threads: a stalled one cannot be stopped, only left behind.
Source of the behaviour of `hf_hub_download(local_dir=...)`: huggingface_hub 2.4 `file_download.py`;
unfinished files cannot be continued, complete ones are reused.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Sequence

from ai_sandbox_operator.fetch import store
from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

#: Downloads one file into a directory.
FetchOne = Callable[[RemoteFile, pathlib.Path], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the download is."""

    done: int
    total: int
    eta_seconds: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds."""

    tick: float = 0.2
    report: float = 5.0
    stall: float = 600.0
    """Without a new byte, and without a verification going on, for this long: the download is given up."""


def download(
    files: Sequence[RemoteFile],
    work: pathlib.Path,
    fetch_one: FetchOne,
    *,
    workers: int,
    report: Callable[[Progress], None],
    pace: Pace | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download and verify all files. Largest first, so that the last one to end is a small one.

    Raises:
        FetchError: nothing arrives any more.
        Exception: the first error of a worker.
    """
    pace = pace or Pace()
    todo: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in sorted(files, key=lambda one: (-one.size, one.path)):
        todo.put(file)
    failed: list[BaseException] = []
    pulse = itertools.count(1)
    beats = [0]

    def alive() -> None:
        beats[0] = next(pulse)

    threads = [
        threading.Thread(target=_work, args=(todo, work, fetch_one, alive, failed), daemon=True)
        for _ in range(max(1, min(workers, len(files))))
    ]
    for thread in threads:
        thread.start()
    began = moved = reported = clock()
    total = sum(file.size for file in files)
    initial = last = store.bytes_in(work)
    beat = 0
    while any(thread.is_alive() for thread in threads) and not failed:
        sleep(pace.tick)
        now, seen = clock(), store.bytes_in(work)
        if seen != last or beats[0] != beat:
            last, beat, moved = seen, beats[0], now
        if now - moved > pace.stall:
            raise FetchError(FetchFailure.Stalled, f"no byte arrived for {round(pace.stall)} seconds")
        if now - reported >= pace.report:
            reported = now
            report(progress(seen, total=total, gained=seen - initial, seconds=now - began))
    if failed:
        raise failed[0]


def progress(seen: int, *, total: int, gained: int, seconds: float) -> Progress:
    """Bytes so far and the time that the rest takes at the pace so far."""
    done = min(seen, total)
    speed = gained / seconds if seconds > 0 and gained > 0 else 0.0
    return Progress(done=done, total=total, eta_seconds=round((total - done) / speed) if speed else None)


def _work(
    todo: queue.SimpleQueue[RemoteFile],
    work: pathlib.Path,
    fetch_one: FetchOne,
    alive: Callable[[], None],
    failed: list[BaseException],
) -> None:
    while not failed:
        try:
            file = todo.get_nowait()
        except queue.Empty:
            return
        try:
            _one(file, work, fetch_one, alive)
        except BaseException as error:  # whatever ends a worker must end the fetch
            failed.append(error)
            return
        alive()


def _one(file: RemoteFile, work: pathlib.Path, fetch_one: FetchOne, alive: Callable[[], None]) -> None:
    """A file that is there is verified; one that is damaged is fetched once more."""
    path = work / file.path
    if store.size_of(path) == file.size:
        try:
            store.verify(path, file, alive)
        except FetchError:
            pass  # it was deleted
        else:
            return
    fetch_one(file, work)
    try:
        store.verify(path, file, alive)
    except FetchError:
        fetch_one(file, work)
        store.verify(path, file, alive)
