"""Carrying out a selection: worker threads that download and verify, and the loop that watches them.

huggingface_hub has no end of its own when a connection stays open and nearly silent, so the loop watches
the bytes on the volume. Workers are daemon threads: a stalled one cannot be stopped, only left behind.
Source of the behaviour of `hf_hub_download(local_dir=...)`: huggingface_hub 2.4 `file_download.py`;
unfinished files cannot be continued by another process, complete ones are reused. Memory: one piece of
at most 10 MiB per worker, whatever the size of the file.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Sequence

from ai_sandbox_operator.fetch import store
from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure, is_damage

#: Downloads one file into a directory.
FetchOne = Callable[[RemoteFile, pathlib.Path], None]
#: huggingface_hub refuses larger files without its xet client: `constants.MAX_HTTP_DOWNLOAD_SIZE`.
LARGEST_FILE = 50 * 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the download is.

    Attributes:
        bytes_per_second: of the last half minute.
        eta_seconds: what the rest takes at that speed; None while nothing arrives.
    """

    done: int
    total: int
    bytes_per_second: int
    eta_seconds: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds."""

    tick: float = 0.2
    report: float = 5.0
    stall: float = 600.0
    """Without a new byte, and without a verification going on, for this long: the download is given up."""


class Speed:
    """Progress from readings of the bytes so far. Pure.

    Args:
        window: seconds that the speed is taken over.
    """

    def __init__(self, total: int, *, window: float = 30.0) -> None:
        self._total, self._window = total, window
        self._readings: collections.deque[tuple[float, int]] = collections.deque()

    def read(self, now: float, done: int) -> Progress:
        """Add a reading; `now` never goes back."""
        done = min(done, self._total)
        if self._readings and done < self._readings[-1][1]:
            self._readings.clear()  # A damaged file was deleted: what came before says nothing any more.
        self._readings.append((now, done))
        while len(self._readings) > 2 and now - self._readings[1][0] >= self._window:
            self._readings.popleft()
        then, before = self._readings[0]
        speed = (done - before) / (now - then) if now > then else 0.0
        rest = self._total - done
        eta = 0 if not rest else round(rest / speed) if speed else None
        return Progress(done=done, total=self._total, bytes_per_second=round(speed), eta_seconds=eta)


def download(
    files: Sequence[RemoteFile],
    work: pathlib.Path,
    fetch_one: FetchOne,
    *,
    workers: int,
    report: Callable[[Progress], None],
    pace: Pace | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> None:
    """Download, verify and flush all files. Largest first, so that the last one to end is a small one.

    Args:
        wait: waits so many seconds, or until the workers end.

    Raises:
        FetchError: a file is larger than what can be downloaded, or nothing arrives any more.
        Exception: the first error of a worker.
    """
    pace = pace or Pace()
    check_sizes(files)
    todo: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in sorted(files, key=lambda one: (-one.size, one.path)):
        todo.put(file)
    failed: list[BaseException] = []
    pulse = itertools.count(1)
    beats = [0]
    crew = max(1, min(workers, len(files)))
    ends = itertools.count(1)
    over = threading.Event()

    def alive() -> None:
        beats[0] = next(pulse)

    def labour() -> None:
        _work(todo, work, fetch_one, alive, failed)
        if next(ends) == crew or failed:
            over.set()

    for _ in range(crew):
        threading.Thread(target=labour, daemon=True).start()
    moved = reported = clock()
    last, beat = store.bytes_of(work, files), 0
    speed = Speed(sum(file.size for file in files))
    speed.read(moved, last)
    while not over.is_set():
        (wait or over.wait)(pace.tick)
        now, seen = clock(), store.bytes_of(work, files)
        if seen != last or beats[0] != beat:
            last, beat, moved = seen, beats[0], now
        if now - moved > pace.stall:
            raise FetchError(FetchFailure.Stalled, f"no byte arrived for {round(pace.stall)} seconds")
        progress = speed.read(now, seen)
        if now - reported >= pace.report:
            reported = now
            report(progress)
    if failed:
        raise failed[0]


def check_sizes(files: Sequence[RemoteFile]) -> None:
    """Refuse before the first byte what the library would refuse after hours.

    Raises:
        FetchError: a file is too large.
    """
    for file in files:
        if file.size > LARGEST_FILE:
            raise FetchError(FetchFailure.FileTooLarge, f"{file.path} has {store.gib(file.size)}")


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
    try:
        fetch_one(file, work)
        store.verify(path, file, alive)
    except Exception as error:
        if not is_damage(error):
            raise
        fetch_one(file, work)
        store.verify(path, file, alive)
    # While others are still arriving: bringing all of a large model to the disk at the end takes minutes.
    store.flush(path)
