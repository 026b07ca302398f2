"""A made-up tokenizer that can be undone: a token is up to four characters and its id holds them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PIECE = re.compile(r"\s?\S{1,3}|\s")


def split(text: str) -> list[str]:
    """The text in pieces of one token each, about as long as a real tokenizer's."""
    return _PIECE.findall(text)


def encode(text: str) -> list[int]:
    """Ids of the tokens; zero is never one."""
    return [int.from_bytes(b"\x01" + piece.encode()) for piece in split(text)]


def decode(ids: Iterable[int]) -> str:
    """The text again; what is no id of `encode` is a replacement character."""
    return "".join(_piece(ident) for ident in ids)


def _piece(ident: int) -> str:
    raw = ident.to_bytes((ident.bit_length() + 7) // 8) if ident > 0 else b""
    return raw[1:].decode(errors="replace") if raw[:1] == b"\x01" else "\N{REPLACEMENT CHARACTER}"
