"""What the hub holds, what it has seen, and how it describes a repository."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import threading
from typing import Any, Literal

from lab.hub import models
from lab.hub.content import Blob, as_blob, git_id, pointer
from lab.hub.faults import At, Fault, strike

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Gated = Literal[False, "auto", "manual"]
#: Suffixes that repositories keep in large-file storage.
_LARGE = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclasses.dataclass(kw_only=True)
class Repository:
    """A model repository. `revisions` are its branches and tags; `main` is `commit` unless given."""

    files: dict[str, bytes | Blob]
    commit: str = COMMIT
    revisions: dict[str, str] = dataclasses.field(default_factory=dict)
    older: dict[str, dict[str, bytes | Blob]] = dataclasses.field(default_factory=dict)
    """Files at other commits."""
    gated: Gated = False
    granted: set[str] = dataclasses.field(default_factory=set)
    """Tokens that read it although it is gated or private."""
    private: bool = False
    config: dict[str, Any] | None = None
    """What metadata shows as configuration; None: from config.json."""
    parameters: dict[str, int] | None = None
    """Number of parameters by dtype that metadata shows; None: from the size of the weights as BF16."""
    declared: dict[str, int] = dataclasses.field(default_factory=dict)
    """Sizes that metadata names instead of the real ones; such a file can be listed, not downloaded."""

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit means."""
        known = {"main": self.commit, **self.revisions}
        commit = known.get(revision, revision)
        return commit if commit in {self.commit, *self.older} else None

    def at(self, commit: str) -> dict[str, Blob]:
        files = self.files if commit == self.commit else self.older[commit]
        return {path: as_blob(content) for path, content in files.items()}


@dataclasses.dataclass(frozen=True)
class Generous:
    """Any unknown `owner/name` is a small public model of so many bytes."""

    size: int = 2_000_000
    shards: int = 2


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as it arrived. `path` is the file's, "" for metadata."""

    at: At
    method: str
    repository: str
    path: str
    url: str
    token: str
    range: str = ""


@dataclasses.dataclass
class Hub:
    """Repositories by id, faults, and counters. Safe to change while the server runs."""

    repositories: dict[str, Repository] = dataclasses.field(default_factory=dict)
    tokens: set[str] = dataclasses.field(default_factory=set)
    """Tokens of accounts that exist; any other token is refused."""
    generous: Generous | None = None
    declared: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    """As `Repository.declared`, by id: also of repositories that are made on the fly."""
    faults: list[Fault] = dataclasses.field(default_factory=list)
    ranges: bool = True
    """Whether parts of files can be asked for."""
    xet: bool = True
    """Whether large files are offered over the xet protocol as well, which is not served here."""

    requests: list[Request] = dataclasses.field(default_factory=list)
    sent: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Bytes of content given to the network, by `id/path`."""
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock, repr=False)

    def find(self, ident: str) -> Repository | None:
        with self.lock:
            if ident not in self.repositories and self.generous and ident.count("/") == 1:
                files = models.small_model(self.generous.size, shards=self.generous.shards, seed=ident)
                commit = hashlib.sha1(ident.encode(), usedforsecurity=False).hexdigest()
                self.repositories[ident] = Repository(files=files, commit=commit)
            return self.repositories.get(ident)

    def arrived(self, request: Request) -> Fault | None:
        """Note a request; the fault that decides it."""
        with self.lock:
            self.requests.append(request)
            return strike(self.faults, request.at, request.method, request.path)

    def downloads(self) -> list[str]:
        """Paths of files whose content was asked for, in order."""
        with self.lock:
            bodies = [one for one in self.requests if one.method == "GET" and one.at != "api"]
            # A large file is asked for at the hub, which redirects, and then at the storage.
            return [one.path for one in bodies if one.at == "cdn" or not is_large(one.path)]

    def tokens_seen(self, *at: At) -> set[str]:
        """Distinct tokens; "" for a request without one."""
        with self.lock:
            return {one.token for one in self.requests if not at or one.at in at}

    def counters(self) -> dict[str, Any]:
        """Figures as JSON; of tokens only their number."""
        with self.lock:
            return {
                "requests": len(self.requests),
                "downloads": dict(collections.Counter(self.downloads())),
                "bytesSent": dict(self.sent),
                "tokens": len(self.tokens_seen() - {""}),
                "faultsStruck": [fault.struck for fault in self.faults],
            }

    def size(self, ident: str, repository: Repository, path: str, blob: Blob) -> int:
        """The size that metadata names."""
        return {**repository.declared, **self.declared.get(ident, {})}.get(path, blob.size)

    def describe(self, ident: str, repository: Repository, commit: str, *, blobs: bool) -> dict[str, Any]:
        """The answer of `GET /api/models/{id}[/revision/{revision}]`."""
        files = repository.at(commit)
        siblings = [
            _sibling(path, blob, self.size(ident, repository, path, blob)) if blobs else {"rfilename": path}
            for path, blob in sorted(files.items())
        ]
        shown = repository.config if repository.config is not None else _shown_config(files)
        weights = sum(
            self.size(ident, repository, path, blob)
            for path, blob in files.items()
            if path.endswith(".safetensors")
        )
        parameters = repository.parameters or {"BF16": weights // 2}
        answer = {
            "_id": git_id(ident.encode())[:24],
            "id": ident,
            "modelId": ident,
            "author": ident.partition("/")[0],
            "sha": commit,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "tags": ["transformers", "safetensors", "text-generation"],
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "downloads": 0,
            "likes": 0,
            "config": shown,
            "siblings": siblings,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "usedStorage": sum(blob.size for blob in files.values()),
        }
        if weights:
            answer["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
        return answer


def is_large(path: str) -> bool:
    """Whether a file is in large-file storage."""
    return path.endswith(_LARGE)


def etag(path: str, blob: Blob) -> str:
    """The id by which the hub knows a content: sha256 of large files, git's of the others."""
    return blob.sha256 if is_large(path) else git_id(b"".join(blob.read(0, blob.size)))


def _sibling(path: str, blob: Blob, size: int) -> dict[str, Any]:
    if not is_large(path):
        return {"rfilename": path, "size": size, "blobId": etag(path, blob)}
    # A size that is only declared has no content to take the checksum of.
    sha256 = blob.sha256 if size == blob.size else hashlib.sha256(f"{path} {size}".encode()).hexdigest()
    text = pointer(sha256, size)
    lfs = {"sha256": sha256, "size": size, "pointerSize": len(text)}
    return {"rfilename": path, "size": size, "blobId": git_id(text), "lfs": lfs}


def _shown_config(files: dict[str, Blob]) -> dict[str, Any]:
    """What metadata shows of config.json: the hub keeps a few fields only."""
    if "config.json" not in files:
        return {}
    blob = files["config.json"]
    try:
        config = json.loads(b"".join(blob.read(0, blob.size)))
    except ValueError:
        return {}
    fields = ("architectures", "model_type", "auto_map", "quantization_config")
    return {name: config[name] for name in fields if name in config}
