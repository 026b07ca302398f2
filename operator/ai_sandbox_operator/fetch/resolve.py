"""What a model id and a revision mean: commit, files, bytes and architecture, before anything is fetched.

Runs in the operator, in a thread: huggingface_hub blocks. Of a repository only the listing, an index of
weights and the configuration are read. The choice of files is the one that the fetch Job will make.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.fetch import choose, hub
from ai_sandbox_operator.fetch.failures import classify

#: Bytes and values of config.json and params.json; several are held at once.
_LARGEST_CONFIGURATION, _MOST_VALUES = 4 * 2**20, 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """A model at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        size_bytes: of the files that are fetched.
        weight_bytes: of those among them that the engine loads onto the GPUs.
        config: content of config.json; empty without one.
        params: content of Mistral's params.json; empty without one.
        gated: whether the files need a token of an account that accepted the terms.
    """

    commit: str
    size_bytes: int
    weight_bytes: int
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    gated: bool = False


def resolve(model: str, revision: str, *, endpoint: str, token: str | None) -> Resolved:
    """Ask the hub.

    Args:
        endpoint: base URL of a mirror; empty for the public hub. It is the operator's, never a user's.

    Raises:
        FetchError: the hub refuses, does not answer, or holds nothing that the engine can load.
    """
    try:
        return _resolve(hub.Hub(model=model, endpoint=endpoint or None, token=token), model, revision)
    except Exception as error:
        raise classify(error, model=model, revision=revision, has_token=token is not None) from error


def _resolve(repository: hub.Hub, model: str, revision: str) -> Resolved:
    listing = repository.list(revision)
    selection = hub.select(model, listing, lambda index: repository.read(listing.commit, index))
    chosen = {file.path: file for file in selection.files}
    return Resolved(
        commit=listing.commit,
        size_bytes=selection.size,
        weight_bytes=sum(file.size for file in selection.files if file.path.endswith(".safetensors")),
        config=_json(repository, listing.commit, chosen.get("config.json")),
        params=_json(repository, listing.commit, chosen.get("params.json")),
        gated=listing.gated,
    )


def _json(repository: hub.Hub, commit: str, file: choose.RemoteFile | None) -> Mapping[str, Any]:
    """An object, or nothing: a configuration that cannot be read is the engine's to judge."""
    if file is None or file.size > _LARGEST_CONFIGURATION:
        return {}
    try:
        content = hub.parse(repository.read(commit, file), most=_MOST_VALUES)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
