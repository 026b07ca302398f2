"""The safetensors format, written by hand: length of the header, header as JSON, data.

Source: https://github.com/huggingface/safetensors#format: 8 bytes little-endian length, a JSON object of
tensor name to dtype, shape and data_offsets, padded with spaces to a multiple of 8.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from lab.hub.content import Sparse

_BF16 = 2


def header(tensors: Mapping[str, int]) -> bytes:
    """The head of a file of one-dimensional BF16 tensors.

    Args:
        tensors: number of elements by name.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, elements in tensors.items():
        entries[name] = {
            "dtype": "BF16",
            "shape": [elements],
            "data_offsets": [offset, offset + elements * _BF16],
        }
        offset += elements * _BF16
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def file(tensors: Mapping[str, int], *, seed: str) -> Sparse:
    """A whole file; its data is made while it is read."""
    head = header(tensors)
    return Sparse(len(head) + sum(tensors.values()) * _BF16, head=head, seed=seed)


def index(shards: Mapping[str, Mapping[str, int]]) -> bytes:
    """`model.safetensors.index.json` of tensors by file name."""
    total = sum(elements * _BF16 for tensors in shards.values() for elements in tensors.values())
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
