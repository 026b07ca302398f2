"""The model's directory on its volume: lock, reuse, verification, and publication in one step.

A reader sees either nothing or a complete, verified model: files are collected in a directory beside
the target, on the same volume, which gets its marker and is then renamed. A restart finds the same
directory by the commit in its name and reuses every complete file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ai_sandbox_operator.fetch.choose import RemoteFile, Selection
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

MARKER = ".ai-sandbox-model.json"
#: Free bytes beyond the files: directories, and the file system's own needs.
RESERVE = 64 * 2**20
#: What huggingface_hub leaves in a directory that it downloads to.
HUB_CACHE = ".cache"
_CHUNK = 8 * 2**20


@contextlib.contextmanager
def single_writer(
    target: pathlib.Path, *, patience: float = 60.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock beside the target. The kernel frees it with the process, however that ends.

    Raises:
        FetchError: another process holds it for longer than `patience` seconds.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        waited = 0.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited >= patience:
                    raise FetchError(FetchFailure.Locked, "another process fetches to this volume") from None
                sleep(1.0)
                waited += 1.0
        yield


def read_marker(target: pathlib.Path, *, model: str, revision: str) -> dict[str, Any] | None:
    """The marker of a complete model; None if the directory is not that model, or lacks a file."""
    try:
        marker = json.loads((target / MARKER).read_text("utf-8"))
        if (marker["model"], marker["revision"]) != (model, revision):
            return None
        complete = all((target / file["path"]).stat().st_size == file["size"] for file in marker["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker if complete and marker["files"] else None


def work_directory(target: pathlib.Path, commit: str) -> pathlib.Path:
    """Where files of a commit are collected."""
    return target.parent / f"{target.name}.tmp-{commit[:12]}"


def prepare(target: pathlib.Path, commit: str) -> pathlib.Path:
    """The work directory, without what earlier attempts left half done: other commits, unfinished files."""
    work = work_directory(target, commit)
    for other in target.parent.glob(f"{target.name}.tmp-*"):
        if other != work:
            shutil.rmtree(other)
    work.mkdir(exist_ok=True)
    for unfinished in work.glob(f"{HUB_CACHE}/**/*.incomplete"):
        unfinished.unlink()
    return work


def missing(work: pathlib.Path, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Files that are not there with their size. Content is verified later, once."""
    return [file for file in files if size_of(work / file.path) != file.size]


def size_of(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def bytes_in(directory: pathlib.Path) -> int:
    """Bytes of all files, unfinished ones too: what progress and stalls are judged by."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def check_space(
    work: pathlib.Path, wanted: Iterable[RemoteFile], *, free: Callable[[pathlib.Path], int] | None = None
) -> None:
    """Refuse to begin what cannot fit.

    Raises:
        FetchError: the volume is too small.
    """
    needed = sum(file.size for file in wanted)
    available = free(work) if free is not None else shutil.disk_usage(work).free
    if needed and needed + RESERVE > available:
        raise FetchError(
            FetchFailure.DiskFull,
            f"{gib(needed + RESERVE)} are needed and {gib(available)} are free",
        )


def verify(path: pathlib.Path, file: RemoteFile, alive: Callable[[], None] = lambda: None) -> None:
    """Compare size and checksum; a file that differs is deleted, so that it is fetched again.

    Args:
        alive: called as the reading goes on, which takes minutes for a large file.

    Raises:
        FetchError: it differs.
    """
    problem = _difference(path, file, alive)
    if problem:
        path.unlink(missing_ok=True)
        raise FetchError(FetchFailure.ChecksumMismatch, f"{file.path} {problem}")


def _difference(path: pathlib.Path, file: RemoteFile, alive: Callable[[], None]) -> str:
    if size_of(path) != file.size:
        return f"has {size_of(path)} bytes instead of {file.size}"
    if file.sha256:
        same = _digest(path, hashlib.sha256(), alive) == file.sha256
        return "" if same else "has another sha256 than the hub names"
    if file.git_sha1:
        begun = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        same = _digest(path, begun, alive) == file.git_sha1
        return "" if same else "has another git id than the hub names"
    return ""


def _digest(path: pathlib.Path, digest: Any, alive: Callable[[], None]) -> str:
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            alive()
    return str(digest.hexdigest())


def publish(
    work: pathlib.Path, target: pathlib.Path, *, model: str, revision: str, commit: str, selection: Selection
) -> None:
    """Marker, flush, rename. Before the rename there is no target, after it a complete one."""
    marker = {
        "model": model,
        "revision": revision,
        "commit": commit,
        "format": selection.format,
        "bytes": selection.size,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in selection.files],
    }
    shutil.rmtree(work / HUB_CACHE, ignore_errors=True)
    (work / MARKER).write_text(json.dumps(marker, indent=1) + "\n", "utf-8")
    for file in selection.files:
        _flush(work / file.path)
    for path in (work / MARKER, work):
        _flush(path)
    if target.exists():
        # Not a complete model, or it would have been used. Rename does not replace a directory with files.
        broken = target.parent / f"{target.name}.tmp-replaced"
        shutil.rmtree(broken, ignore_errors=True)
        target.rename(broken)
    work.rename(target)
    _flush(target.parent)
    shutil.rmtree(target.parent / f"{target.name}.tmp-replaced", ignore_errors=True)


def _flush(path: pathlib.Path) -> None:
    """Bring a file or directory to the disk: losing power must not leave what only looks complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def gib(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB"
