"""What a diagnosis comes to."""

from __future__ import annotations

import dataclasses

from ai_sandbox_operator.api.conditions import Reason


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cause and the words of the component that reported it.

    Attributes:
        advice: what to do, where more is known than the reason's remedy says; a whole sentence.
        permanent: no repetition helps until somebody changes something.
    """

    reason: Reason
    message: str
    advice: str = ""
    permanent: bool = False
