"""The hub: list a repository at a commit, read a small file, download one file.

The token is passed explicitly or explicitly withheld (`False`); huggingface_hub would otherwise look
for one in files. Import of huggingface_hub is delayed until its switches are set in the environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from ai_sandbox_operator.desired import models
from ai_sandbox_operator.fetch import choose
from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

_SWITCHES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The xet client holds whole chunks in memory and has ended pods by it.
    "HF_HUB_DISABLE_XET": "1",
}
LISTING_TIMEOUT = 30.0
#: Bytes that are written to the volume at a time.
CHUNK = 2**20
#: Bytes of a file that is read whole. The largest indexes of weights are those of mixtures of experts in four
#: bits, with four tensors for each matrix: 256 experts in 62 layers make 190,000 tensors, about 18 MiB.
MAX_SMALL = 24 * 2**20
#: Values in an index, two for each tensor. Without a bound a few bytes make an object each: 31 MiB took 0.8 GB.
MAX_VALUES = 500_000
#: Seconds for which the index of one model waits for that of another.
TURN = 60.0
#: Indexes are read one at a time: the operator asks for several models at once, in one process.
_turn = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool = False
    """Whether the files are given only to accounts that accepted the model's terms."""


class Hub:
    """One model repository. No repr of the token."""

    def __init__(self, *, model: str, endpoint: str | None, token: str | None) -> None:
        for name, value in _SWITCHES.items():
            os.environ.setdefault(name, value)
        import huggingface_hub
        from huggingface_hub import constants

        # Its own 10 MiB are lost with each connection that breaks, and several are held by each download.
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK
        self._library = huggingface_hub
        self._model = model
        self._endpoint = endpoint.rstrip("/") if endpoint else None  # None: the public hub
        self._token: str | bool = token or False

    def list(self, revision: str) -> Listing:
        """The commit that a revision means now, and its files with sizes and checksums."""
        api = self._library.HfApi(endpoint=self._endpoint, token=self._token)
        info = api.model_info(self._model, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT)
        if not info.sha:
            raise FetchError(
                FetchFailure.RevisionNotFound, f"the hub names no commit for {self._model}@{revision}"
            )
        files = tuple(_remote(one) for one in info.siblings or [])
        return Listing(commit=info.sha, files=files, gated=bool(info.gated))

    def read(self, commit: str, file: RemoteFile) -> bytes:
        """A small file's content, by way of a directory that is removed again.

        Raises:
            FetchError: it is larger than `MAX_SMALL` bytes.
        """
        if file.size > MAX_SMALL:
            raise FetchError(
                FetchFailure.NoWeights,
                f"{file.path} has {file.size / 2**20:.1f} MiB, and no more than {MAX_SMALL >> 20} MiB are read",
            )
        with tempfile.TemporaryDirectory(prefix="hub-") as name:
            work = pathlib.Path(name)
            self.fetch(commit, file, work)
            with (work / file.path).open("rb") as content:
                return content.read(MAX_SMALL)

    def fetch(self, commit: str, file: RemoteFile, work: pathlib.Path) -> None:
        """Download one file below `work`."""
        self._library.hf_hub_download(
            self._model,
            file.path,
            revision=commit,
            local_dir=work,
            cache_dir=work / ".cache" / "hub",
            endpoint=self._endpoint,
            token=self._token,
        )


def _remote(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    return RemoteFile(
        path=sibling.rfilename,
        size=int((lfs.size if lfs else sibling.size) or 0),
        sha256=str(lfs.sha256) if lfs else "",
        git_sha1="" if lfs else str(sibling.blob_id or ""),
    )


def select(model: str, listing: Listing, read: Callable[[RemoteFile], bytes]) -> choose.Selection:
    """The files of a repository that the engine loads: one choice for the operator and for the fetch Job.

    Args:
        read: the content of the index of weights, where the choice depends on one.

    Raises:
        FetchError: there are no weights that the engine can load, or their index is none.
    """
    consolidated = models.loads_consolidated(model)
    index = choose.needs_index(listing.files, consolidated=consolidated)
    indexed = None if index is None else _read_index(index, read)
    return choose.choose(listing.files, consolidated=consolidated, indexed=indexed)


def _read_index(index: RemoteFile, read: Callable[[RemoteFile], bytes]) -> frozenset[str]:
    if not _turn.acquire(timeout=TURN):
        raise FetchError(
            FetchFailure.HubUnreachable, f"the index of another model is not read after {TURN:.0f} s"
        )
    try:
        return indexed_files(read(index), index.path)
    finally:
        _turn.release()


def indexed_files(content: bytes, name: str) -> frozenset[str]:
    """Weight files that a safetensors index names.

    Raises:
        FetchError: it is not an index, or one with more than `MAX_VALUES` values.
    """
    try:
        return frozenset(str(file) for file in parse(content, most=MAX_VALUES)["weight_map"].values())
    except TooManyValues:
        most = f"about {MAX_VALUES // 2:,} tensors are read"
        raise FetchError(
            FetchFailure.NoWeights, f"{name} names too many tensors: no more than {most}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FetchError(FetchFailure.NoWeights, f"{name} is not an index of weights") from None


class TooManyValues(ValueError):
    """A text has more values than are read."""


def parse(content: bytes, *, most: int) -> Any:
    """JSON of at most that many values, so that its objects take a bounded memory whatever the text.

    Every value but the first comes after one of these characters; those inside of strings count too.

    Raises:
        TooManyValues: there may be more.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    if sum(content.count(character) for character in (b",", b":", b"[", b"{")) > most:
        raise TooManyValues
    return json.loads(content)
