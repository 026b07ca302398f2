"""Models on their volume: lock, reuse, verification, publication in one step, removal.

A reader sees either nothing or a complete, verified model: files are collected in a directory beside
the target, on the same volume, which gets its marker and is then renamed. A restart finds the same
directory by the commit in its name and reuses every complete file. Removal goes the same way back:
rename first. Whoever writes or removes holds the volume's lock.
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
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from ai_sandbox_operator.fetch.choose import RemoteFile, Selection
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

MARKER = ".ai-sandbox-model.json"
LOCK = ".ai-sandbox.lock"
#: In the name of every directory that is not a finished model.
UNFINISHED = ".tmp-"
#: Free bytes beyond the files: directories, and the file system's own needs.
RESERVE = 64 * 2**20
#: What huggingface_hub leaves in a directory that it downloads to.
HUB_CACHE = ".cache"
_CHUNK = 4 * 2**20


@contextlib.contextmanager
def single_writer(
    models: pathlib.Path, *, patience: float = 60.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the volume's lock. The kernel frees it with the process, however that ends.

    Args:
        models: directory that holds the models' directories.
        patience: seconds.

    Raises:
        FetchError: another process holds it for longer.
    """
    models.mkdir(parents=True, exist_ok=True)
    with (models / LOCK).open("w") as lock:
        waited = 0.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited >= patience:
                    raise FetchError(FetchFailure.Locked, "another process writes to this volume") from None
                sleep(1.0)
                waited += 1.0
        yield


def read_marker(directory: pathlib.Path) -> dict[str, Any] | None:
    """The marker of a complete model; None if the directory is not one, or lacks a file."""
    try:
        marker: dict[str, Any] = json.loads((directory / MARKER).read_text("utf-8"))
        named = all(isinstance(marker[name], str) for name in ("model", "revision", "commit", "format"))
        sizes = [((directory / file["path"]).stat().st_size, file["size"]) for file in marker["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker if named and sizes and all(there == wanted for there, wanted in sizes) else None


def complete(
    target: pathlib.Path, *, model: str, revision: str, commit: str | None = None
) -> dict[str, Any] | None:
    """The marker of the target if it is this model, completely.

    Args:
        commit: decides instead of the revision, if given.
    """
    marker = read_marker(target)
    if marker is None or marker["model"] != model:
        return None
    same = marker["commit"] == commit if commit else marker["revision"] == revision
    return marker if same else None


def work_directory(target: pathlib.Path, commit: str) -> pathlib.Path:
    """Where files of a commit are collected."""
    return target.parent / f"{target.name}{UNFINISHED}{commit[:12]}"


def prepare(target: pathlib.Path, commit: str) -> pathlib.Path:
    """The work directory, without what earlier attempts left half done: other commits, unfinished files."""
    work = work_directory(target, commit)
    for other in list(target.parent.iterdir()):
        if other.name.startswith(f"{target.name}{UNFINISHED}") and other != work:
            remove(other)
    if work.is_symlink() or not work.is_dir():
        remove(work)
    work.mkdir(exist_ok=True)
    for unfinished in _unfinished(work):
        unfinished.unlink(missing_ok=True)
    return work


def _unfinished(work: pathlib.Path) -> list[pathlib.Path]:
    return [
        pathlib.Path(place) / name
        for place, _, names in os.walk(work / HUB_CACHE)
        for name in names
        if name.endswith(".incomplete")
    ]


def remove(path: pathlib.Path) -> None:
    """Remove a directory, a file, or a link; never what a link leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path)


def missing(work: pathlib.Path, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Files that are not there with their size. Content is verified later, once."""
    return [file for file in files if size_of(work / file.path) != file.size]


def size_of(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def bytes_of(work: pathlib.Path, files: Iterable[RemoteFile]) -> int:
    """Bytes of these files so far, unfinished ones too: what progress and stalls are judged by."""
    done = sum(min(size_of(work / file.path) or 0, file.size) for file in files)
    return done + sum(size_of(path) or 0 for path in _unfinished(work))


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


def make_room(work: pathlib.Path, wanted: Iterable[RemoteFile]) -> None:
    """Check the space; if it lacks, at the cost of what attempts at other models left unfinished.

    Raises:
        FetchError: the volume is too small.
    """
    files = list(wanted)
    try:
        check_space(work, files)
    except FetchError:
        for other in list(work.parent.iterdir()):
            if UNFINISHED in other.name and other != work:
                remove(other)
        check_space(work, files)


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
    remove(work / HUB_CACHE)
    (work / MARKER).write_text(json.dumps(marker, indent=1) + "\n", "utf-8")
    for place, _, names in os.walk(work):
        for name in names:
            flush(pathlib.Path(place) / name)
        flush(pathlib.Path(place))
    if target.exists() or target.is_symlink():
        # Not the model that is wanted, or it would have been used. A rename does not replace a full directory.
        _set_aside(target)
    work.rename(target)
    flush(target.parent)
    remove(_aside(target))


def sweep(models: pathlib.Path, *, keep: Collection[str]) -> tuple[list[str], int]:
    """Remove every other complete model and everything unfinished. Call it under the lock.

    What is neither is not this program's: it stays, as do links, wherever they lead.

    Args:
        keep: names of directories in `models`.

    Returns:
        Names of what was removed, and bytes.

    Raises:
        FetchError: none of those to keep is a complete model. That is a mistake, and not worth a model.
    """
    if not any(read_marker(models / name) for name in keep):
        raise FetchError(FetchFailure.NothingToKeep, f"{', '.join(sorted(keep))} is not a complete model")
    removed, freed = [], 0
    for path in sorted(models.iterdir()):
        if path.name in keep or path.is_symlink() or not path.is_dir():
            continue
        unfinished = UNFINISHED in path.name
        if not unfinished and read_marker(path) is None:
            continue
        freed += _bytes_in(path)
        if not unfinished:
            # A crash in the middle must not leave what still carries its marker.
            _set_aside(path)
        remove(path if unfinished else _aside(path))
        removed.append(path.name)
    return removed, freed


def _aside(target: pathlib.Path) -> pathlib.Path:
    return target.parent / f"{target.name}{UNFINISHED}replaced"


def _set_aside(target: pathlib.Path) -> None:
    remove(_aside(target))
    target.rename(_aside(target))


def _bytes_in(directory: pathlib.Path) -> int:
    return sum(
        (pathlib.Path(place) / name).lstat().st_size
        for place, _, names in os.walk(directory)
        for name in names
    )


def flush(path: pathlib.Path) -> None:
    """Bring a file or directory to the disk: losing power must not leave what only looks complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def gib(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB"
