"""GPU plans of Linode, as far as rendering and the fit check need them.

Source: catalogue `GET /v4/linode/types`; a1-s leaves about 3.9 CPU and 12.9 GiB after system pods.
Memory of the cards as CUDA reports it, which is less than their name says.
"""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple


class Requests(NamedTuple):
    """CPU and memory that the engine asks for."""

    cpu: str
    memory: str


@dataclasses.dataclass(frozen=True)
class Cards:
    """A kind of GPU."""

    gpu: str
    memory: int
    """Bytes of one card, as CUDA sees them."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan and all of its GPUs."""

    name: str
    count: int
    cards: Cards


_RTX_4000_ADA = Cards("RTX 4000 Ada (20 GB)", 39 * 2**29)  # 19.5 GiB
_RTX_PRO_6000 = Cards("RTX PRO 6000 Blackwell (96 GB)", 949 * 2**30 // 10)  # 94.9 GiB
#: One plan for each number and kind of GPUs, the smallest of its kind, in order of GPU memory.
SIZES = (
    Plan("g2-gpu-rtx4000a1-s", 1, _RTX_4000_ADA),
    Plan("g2-gpu-rtx4000a2-s", 2, _RTX_4000_ADA),
    Plan("g2-gpu-rtx4000a4-s", 4, _RTX_4000_ADA),
    Plan("g3-gpu-rtxpro6000-blackwell-1", 1, _RTX_PRO_6000),
    Plan("g3-gpu-rtxpro6000-blackwell-2", 2, _RTX_PRO_6000),
    Plan("g3-gpu-rtxpro6000-blackwell-4", 4, _RTX_PRO_6000),
)
#: Variants of a plan differ in CPU, memory and disk only.
_NAMES = (
    (re.compile(r"g2-gpu-rtx4000a([1-9])-[a-z]+"), _RTX_4000_ADA),
    (re.compile(r"g3-gpu-rtxpro6000-blackwell-([1-9])"), _RTX_PRO_6000),
)

#: The smallest plan with that many cards: what fits it fits every larger plan.
_BY_COUNT = {
    1: Requests("3", "10Gi"),  # a1-s: 4 CPU, 16 GB
    2: Requests("6", "20Gi"),  # a2-s: 8 CPU, 32 GB
}
_MORE_CARDS = Requests("16", "64Gi")  # a4-s: 32 CPU, 128 GB
_BY_PLAN = {
    "g2-gpu-rtx4000a1-s": Requests("3", "10Gi"),
    "g2-gpu-rtx4000a1-m": Requests("6", "20Gi"),
    "g2-gpu-rtx4000a1-l": Requests("8", "40Gi"),
    "g2-gpu-rtx4000a1-xl": Requests("8", "64Gi"),
    "g2-gpu-rtx4000a2-s": Requests("6", "20Gi"),
    "g2-gpu-rtx4000a2-m": Requests("12", "44Gi"),
    "g2-gpu-rtx4000a2-hs": Requests("12", "44Gi"),
    "g2-gpu-rtx4000a4-s": Requests("16", "64Gi"),
    "g2-gpu-rtx4000a4-m": Requests("24", "128Gi"),
    "g3-gpu-rtxpro6000-blackwell-1": Requests("12", "96Gi"),
    "g3-gpu-rtxpro6000-blackwell-2": Requests("12", "96Gi"),
    "g3-gpu-rtxpro6000-blackwell-4": Requests("12", "96Gi"),
}
#: Every GPU plan, for pods that should rather run elsewhere.
GPU_PLANS = tuple(sorted(_BY_PLAN))


def requests(plan: str, count: int) -> Requests:
    """Requests that schedule on `plan`, or on the smallest plan with `count` cards.

    The page cache of the weights is not counted: it is given back under pressure.
    """
    return _BY_PLAN.get(plan) or _BY_COUNT.get(count, _MORE_CARDS)


def find(plan: str) -> Plan | None:
    """The GPUs of `plan`; None for an unknown plan and for no plan."""
    for pattern, found in _NAMES:
        match = pattern.fullmatch(plan)
        if match is not None:
            return Plan(plan, int(match[1]), found)
    return None


def cards(plan: str) -> Cards | None:
    """What the cards of `plan` are; None for an unknown plan and for no plan."""
    found = find(plan)
    return None if found is None else found.cards


def small_memory(plan: str) -> bool:
    """Whether the cards may have only 20 GB; an unknown plan might."""
    return "blackwell" not in plan
