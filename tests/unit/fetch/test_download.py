"""Speed, silence, and the order of files; without a hub."""

from __future__ import annotations

import pathlib
import threading
import time

import pytest

from ai_sandbox_operator.fetch import download
from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure


def write(file: RemoteFile, work: pathlib.Path) -> None:
    (work / file.path).write_bytes(bytes(file.size))


def test_a_silent_connection_is_given_up(tmp_path: pathlib.Path) -> None:
    released, now = threading.Event(), [0.0]
    told: list[download.Progress] = []
    unfinished = tmp_path / ".cache" / "huggingface" / "download"
    unfinished.mkdir(parents=True)

    def silent(file: RemoteFile, work: pathlib.Path) -> None:
        (unfinished / "a.1.incomplete").write_bytes(b"x")
        released.wait(30)

    def wait(seconds: float) -> None:
        now[0] += 1.0
        time.sleep(0.001)

    with pytest.raises(FetchError, match="no byte arrived for 60 seconds") as caught:
        download.download(
            [RemoteFile(path="a", size=100)],
            tmp_path,
            silent,
            workers=4,
            report=told.append,
            pace=download.Pace(report=10, stall=60),
            clock=lambda: now[0],
            wait=wait,
        )
    released.set()
    assert caught.value.failure == FetchFailure.Stalled
    assert {progress.done for progress in told[1:]} == {1}


def test_the_largest_file_comes_first(tmp_path: pathlib.Path) -> None:
    order: list[str] = []

    def note(file: RemoteFile, work: pathlib.Path) -> None:
        order.append(file.path)
        write(file, work)

    files = [RemoteFile(path=path, size=size) for path, size in (("b", 1), ("a", 1), ("c", 9))]
    download.download(files, tmp_path, note, workers=1, report=lambda _now: None)
    assert order == ["c", "a", "b"]


def test_the_first_error_ends_it(tmp_path: pathlib.Path) -> None:
    begun: list[str] = []

    def fail(file: RemoteFile, work: pathlib.Path) -> None:
        begun.append(file.path)
        raise RuntimeError(file.path)

    files = [RemoteFile(path=name, size=1) for name in "abc"]
    with pytest.raises(RuntimeError, match="a"):
        download.download(files, tmp_path, fail, workers=1, report=lambda _now: None)
    assert begun == ["a"]


def test_a_file_that_is_too_large_is_refused_before_the_first_byte(tmp_path: pathlib.Path) -> None:
    begun: list[str] = []
    files = [RemoteFile(path="a", size=1), RemoteFile(path="b", size=50 * 10**9 + 1)]
    with pytest.raises(FetchError, match=r"b has 46\.6 GiB") as caught:
        download.download(
            files, tmp_path, lambda file, _work: begun.append(file.path), workers=2, report=lambda _now: None
        )
    assert (caught.value.failure, begun) == (FetchFailure.FileTooLarge, [])


@pytest.mark.parametrize(
    ("sentence", "readings", "expected"),
    [
        ("nothing is known from one reading", [(0, 50)], (50, 0, None)),
        ("the same instant twice", [(5, 50), (5, 60)], (60, 0, None)),
        ("what was there before the start is not speed", [(0, 50), (10, 60)], (60, 1, 940)),
        (
            "an old pace is forgotten after the window",
            [(0, 0), (1, 500), (31, 530), (61, 590)],
            (590, 2, 205),
        ),
        (
            "of the readings the window's last one is its start",
            [(0, 0), (10, 100), (20, 200), (30, 300), (40, 700)],
            (700, 20, 15),
        ),
        ("nothing arrives any more", [(0, 0), (1, 500), (31, 500), (62, 500)], (500, 0, None)),
        ("a damaged file was deleted", [(0, 0), (10, 500), (11, 100), (21, 200)], (200, 10, 80)),
        ("all is there", [(0, 0), (10, 1000)], (1000, 100, 0)),
        ("more than all", [(0, 0), (10, 2000)], (1000, 100, 0)),
    ],
)
def test_speed_is_that_of_the_last_half_minute(
    sentence: str, readings: list[tuple[float, int]], expected: tuple[int, int, int | None]
) -> None:
    speed = download.Speed(1000)
    for now, done in readings:
        last = speed.read(now, done)
    assert (last.done, last.bytes_per_second, last.eta_seconds) == expected, sentence
