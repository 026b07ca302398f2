"""What a run of the stand-in is to do besides what its arguments say: its model, its pace, its end."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

#: Seconds of each phase of a start: a model of 7-8 billion parameters with warm caches, without download.
PHASES: Mapping[str, float] = {
    "import": 30.0,
    "config": 5.0,
    "load": 45.0,
    "compile": 32.0,
    "profile": 6.0,
    "graphs": 18.0,
    "serve": 4.0,
}


@dataclass(frozen=True)
class Script:
    """The part of one run; without values a healthy engine.

    Attributes:
        phases: seconds by phase; the others share what is left of the whole as `PHASES` do.
        fail: failure that ends the start: one of `failures.NAMES`, or a log of `corpus.names()`.
        hang: phase that the start never leaves.
        crash_after: seconds of serving until the engine process dies.
        dying: seconds from then until the server notices and ends; 5 in vLLM.
        first_token: seconds until the first token of an answer.
        token: seconds between two tokens.
        unlisted: `/v1/models` does not list the served name, and no request finds it.
        context: tokens that the model was made for.
        kv_tokens: tokens that the KV cache holds.
        heads: attention heads, which the tensor parallel size must divide.
        architecture: class of the model.
    """

    phases: Mapping[str, float] | None = None
    fail: str | None = None
    hang: str | None = None
    crash_after: float | None = None
    dying: float = 0.2
    first_token: float = 0.0
    token: float = 0.03
    unlisted: bool = False
    context: int = 32_768
    kv_tokens: int = 48_880
    heads: int = 32
    architecture: str = "MistralForCausalLM"

    def __post_init__(self) -> None:
        unknown = (set(self.phases or ()) | ({self.hang} if self.hang else set())) - PHASES.keys()
        if unknown:
            raise ValueError(f"unknown phases {', '.join(sorted(unknown))}; known are {', '.join(PHASES)}")

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """The script from its JSON object.

        Raises:
            ValueError: a field is unknown or wrong.
        """
        if unknown := fields.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"unknown fields of an engine's script: {', '.join(sorted(unknown))}")
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """What differs from a healthy engine."""
        return {key: value for key, value in asdict(self).items() if value != getattr(Script, key, None)}

    def seconds(self, total: float) -> dict[str, float]:
        """Seconds by phase of a start that takes `total`, or longer where phases say so."""
        said = dict(self.phases or {})
        left = max(total - sum(said.values()), 0.0)
        weight = sum(share for phase, share in PHASES.items() if phase not in said)
        return {
            phase: said[phase] if phase in said else left * share / weight for phase, share in PHASES.items()
        }

    def begins(self, total: float) -> dict[str, float]:
        """Seconds from the start until each phase begins; `up` is the end of the last one."""
        ends = itertools.accumulate(self.seconds(total).values(), initial=0.0)
        return dict(zip((*PHASES, "up"), ends, strict=True))


HEALTHY = Script()
