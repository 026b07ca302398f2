"""Contents of files: bytes that are held, or bytes that are made while they are sent.

Checksums are computed once, when somebody asks. A made file of any size costs the memory of one block.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Protocol

BLOCK = 2**20


class Blob(Protocol):
    """The content of a file."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str: ...

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of `start:stop`, in pieces of at most one block."""


class Bytes:
    """Held in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, BLOCK):
            yield self.content[at : min(at + BLOCK, stop)]


class Sparse:
    """A head, then one repeated block up to `size`. The block depends on `seed`, so files differ."""

    def __init__(self, size: int, *, head: bytes = b"", seed: str = "") -> None:
        if size < len(head):
            raise ValueError(f"{size} bytes do not hold a head of {len(head)}")
        self._size, self._head, self._seed = size, head, seed

    @property
    def size(self) -> int:
        return self._size

    @functools.cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.read(0, self._size):
            digest.update(piece)
        return digest.hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        if start < len(self._head):
            yield self._head[start : min(stop, len(self._head))]
        at = max(start, len(self._head))
        while at < stop:
            length, offset = min(BLOCK, stop - at), (at - len(self._head)) % BLOCK
            yield _block(self._seed)[offset : offset + length]
            at += length


@functools.lru_cache(maxsize=8)
def _block(seed: str) -> bytes:
    """Twice a block, so that a block's worth can be cut out from any offset."""
    return hashlib.sha256(seed.encode()).digest() * (2 * BLOCK // 32)


def as_blob(content: bytes | Blob) -> Blob:
    return Bytes(content) if isinstance(content, bytes) else content


def git_id(content: bytes) -> str:
    """Git's id of a blob."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git itself stores for a file in large-file storage."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
