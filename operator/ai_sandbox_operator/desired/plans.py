"""GPU plans of Linode, as far as rendering needs them.

Source: catalogue `GET /v4/linode/types`; a1-s leaves about 3.9 CPU and 12.9 GiB after system pods.
"""

from __future__ import annotations

from typing import NamedTuple


class Requests(NamedTuple):
    """CPU and memory that the engine asks for."""

    cpu: str
    memory: str


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


def small_memory(plan: str) -> bool:
    """Whether the cards may have only 20 GB; an unknown plan might."""
    return "blackwell" not in plan
