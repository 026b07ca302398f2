"""The hub, as far as the fetch needs it: list a repository at a commit, download one file.

The token is passed explicitly or explicitly withheld (`False`); huggingface_hub would otherwise look
for one in files. Import of huggingface_hub is delayed until its switches are set in the environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from ai_sandbox_operator.fetch.choose import RemoteFile
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

_SWITCHES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The xet client holds whole chunks in memory and has ended pods by it.
    "HF_HUB_DISABLE_XET": "1",
}
LISTING_TIMEOUT = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """One model repository. No repr of the token."""

    def __init__(self, *, model: str, endpoint: str | None, token: str | None) -> None:
        for name, value in _SWITCHES.items():
            os.environ.setdefault(name, value)
        import huggingface_hub

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
        return Listing(commit=info.sha, files=tuple(_remote(one) for one in info.siblings or []))

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


def indexed_files(path: pathlib.Path) -> frozenset[str]:
    """Weight files that a safetensors index names.

    Raises:
        FetchError: it is not an index.
    """
    try:
        names = frozenset(str(name) for name in json.loads(path.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(FetchFailure.NoWeights, f"{path.name} is not an index of weights") from None
    return names
