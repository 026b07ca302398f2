"""Lock, space and verification; without a hub."""

from __future__ import annotations

import fcntl
import hashlib
import pathlib

import pytest

from ai_sandbox_operator.fetch import store
from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure


def test_a_second_writer_waits_then_gives_way(tmp_path: pathlib.Path) -> None:
    slept: list[float] = []
    with (tmp_path / store.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(FetchError) as caught,
            store.single_writer(tmp_path, patience=3, sleep=slept.append),
        ):
            pytest.fail("two writers")
    assert caught.value.failure == FetchFailure.Locked
    assert slept == [1.0, 1.0, 1.0]
    with store.single_writer(tmp_path, patience=0):
        pass


def test_space_is_checked_before_the_first_byte(tmp_path: pathlib.Path) -> None:
    wanted = [RemoteFile(path="a", size=10 * 2**30)]
    with pytest.raises(FetchError, match=r"10\.1 GiB are needed and 9\.0 GiB are free.*modelCacheSize"):
        store.check_space(tmp_path, wanted, free=lambda _path: 9 * 2**30)
    store.check_space(tmp_path, wanted, free=lambda _path: 11 * 2**30)
    store.check_space(tmp_path, [], free=lambda _path: 0)


def test_a_verification_shows_that_it_is_alive(tmp_path: pathlib.Path) -> None:
    """Reading a large file back takes minutes without a new byte on the volume; that is no stall."""
    path, size = tmp_path / "a", 20 * 2**20
    beats: list[int] = []
    with path.open("wb") as content:
        content.truncate(size)
    file = RemoteFile(path="a", size=size, sha256=hashlib.sha256(bytes(size)).hexdigest())
    store.verify(path, file, lambda: beats.append(1))
    assert len(beats) == 5


@pytest.mark.parametrize(
    ("sentence", "file", "words"),
    [
        ("shorter", RemoteFile(path="a", size=4), "has 3 bytes instead of 4"),
        ("another sha256", RemoteFile(path="a", size=3, sha256="0" * 64), "another sha256"),
        ("another git id", RemoteFile(path="a", size=3, git_sha1="0" * 40), "another git id"),
    ],
)
def test_a_file_that_differs_is_deleted(
    sentence: str, file: RemoteFile, words: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(FetchError, match=words):
        store.verify(tmp_path / "a", file)
    assert not (tmp_path / "a").exists(), sentence


def test_a_files_git_id_is_gits(tmp_path: pathlib.Path) -> None:
    """`printf abc | git hash-object --stdin`"""
    (tmp_path / "a").write_bytes(b"abc")
    git_sha1 = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"
    store.verify(tmp_path / "a", RemoteFile(path="a", size=3, git_sha1=git_sha1))


def test_bytes_so_far_are_those_of_the_files_and_of_unfinished_ones(tmp_path: pathlib.Path) -> None:
    unfinished = tmp_path / store.HUB_CACHE / "huggingface" / "download"
    unfinished.mkdir(parents=True)
    (unfinished / "x.1.incomplete").write_bytes(bytes(7))
    (unfinished / "x.metadata").write_bytes(bytes(100))
    (tmp_path / "a").write_bytes(bytes(30))
    (tmp_path / "other").write_bytes(bytes(1000))
    files = [RemoteFile(path="a", size=20), RemoteFile(path="b", size=50)]
    assert store.bytes_of(tmp_path, files) == 20 + 7
