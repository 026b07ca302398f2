"""Which files of a model repository are fetched. Pure.

A repository often holds its weights several times; fetching all of them doubles traffic and volume.
The engine's load format must match what is fetched, so whether the consolidated (Mistral) weights
are wanted comes from the same table as the engine's flags. Never fetched: pickles (`*.bin`, `*.pt`;
loading them runs code), `*.gguf`, exports for other runtimes, `original/`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

INDEX = "model.safetensors.index.json"
_CONSOLIDATED_INDEX = "consolidated.safetensors.index.json"
#: Small files that tokenizers, processors and the engine read.
_SIDE = ("*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.py")
_IGNORED_DIRECTORIES = frozenset(
    {"original", "onnx", "openvino", "metal", "coreml", "gguf", "flax", "tf", "figures", "assets", "runs"}
)
#: Text next to the weights that is larger than this is data, not configuration.
_LARGEST_SIDE = 64 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of the repository at one commit."""

    path: str
    size: int
    sha256: str = ""
    """Of files in large-file storage."""
    git_sha1: str = ""
    """Git's blob id, of the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What is fetched."""

    files: tuple[RemoteFile, ...]
    format: Literal["mistral", "hf"]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def needs_index(files: Iterable[RemoteFile], *, consolidated: bool) -> RemoteFile | None:
    """The index that must be read before choosing; None if the choice does not depend on one."""
    usable = _usable(files)
    if consolidated and _matching(usable, "consolidated*.safetensors"):
        return None
    return next((file for file in usable if file.path == INDEX), None)


def choose(
    files: Iterable[RemoteFile], *, consolidated: bool, indexed: Collection[str] | None = None
) -> Selection:
    """The files that the engine loads, sorted by path.

    Args:
        files: all files of the repository.
        consolidated: whether the engine loads Mistral's format.
        indexed: weight files that the index names; None without an index.

    Raises:
        FetchError: there are no weights that the engine can load.
    """
    usable = _usable(files)
    mistral = _matching(usable, "consolidated*.safetensors")
    others = [
        file
        for file in usable
        if file.path.endswith(".safetensors") and not _is(file, "consolidated*.safetensors")
    ]
    if mistral and (consolidated or not others):
        return _selection(usable, mistral, "mistral")
    if indexed is not None:
        by_path = {file.path: file for file in usable}
        missing = sorted(set(indexed) - by_path.keys())
        if missing or not indexed:
            raise FetchError(
                FetchFailure.NoWeights, f"the index names {missing[:1] or 'no files'} that do not exist"
            )
        return _selection(usable, [by_path[path] for path in sorted(set(indexed))], "hf")
    at_root = [file for file in others if "/" not in file.path]
    if not at_root:
        raise FetchError(FetchFailure.NoWeights, _why(files))
    return _selection(usable, at_root, "hf")


def _selection(
    usable: Sequence[RemoteFile], weights: Sequence[RemoteFile], form: Literal["mistral", "hf"]
) -> Selection:
    has_config = any(file.path == "config.json" for file in usable)
    side = [
        file
        for file in usable
        if any(_is(file, pattern) for pattern in _SIDE)
        and file.size <= _LARGEST_SIDE
        and not (form == "mistral" and file.path == INDEX)
        and not (form == "hf" and file.path == _CONSOLIDATED_INDEX)
        # Its presence makes the engine take the Mistral format by itself.
        and not (form == "hf" and has_config and file.path == "params.json")
    ]
    chosen = {file.path: file for file in (*side, *weights)}
    return Selection(files=tuple(chosen[path] for path in sorted(chosen)), format=form)


def _usable(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Without what is never fetched, and without paths that would leave the directory."""
    return [file for file in files if is_safe(file.path) and not _ignored(file.path)]


def is_safe(path: str) -> bool:
    """Whether a path stays inside the directory it is joined to."""
    parts = pathlib.PurePosixPath(path).parts
    return bool(parts) and not path.startswith(("/", ".")) and ".." not in parts and "\\" not in path


def _ignored(path: str) -> bool:
    directories = pathlib.PurePosixPath(path).parts[:-1]
    return bool(_IGNORED_DIRECTORIES & set(directories)) or path.endswith((".bin", ".pt", ".pth", ".gguf"))


def _is(file: RemoteFile, pattern: str) -> bool:
    return fnmatch.fnmatchcase(file.path, pattern)


def _matching(files: Iterable[RemoteFile], pattern: str) -> list[RemoteFile]:
    return [file for file in files if _is(file, pattern)]


def _why(files: Iterable[RemoteFile]) -> str:
    endings = sorted(
        {pathlib.PurePosixPath(file.path).suffix for file in files} & {".bin", ".pt", ".pth", ".gguf"}
    )
    return (
        f"the weights are only there as {', '.join(endings)}"
        if endings
        else "the repository holds no weights"
    )
