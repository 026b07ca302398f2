"""How the hub misbehaves: one fault strikes requests that match, so many times or for ever."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Literal

At = Literal["api", "resolve", "cdn"]


@dataclasses.dataclass(kw_only=True)
class Fault:
    """One way to go wrong. The first fault that matches a request decides it."""

    at: tuple[At, ...] = ("api", "resolve", "cdn")
    """Metadata; a file at the hub; a file at the storage that the hub redirects to."""
    method: str = "*"
    path: str = "*"
    """Pattern of the file's path; requests for metadata have the path `""`."""
    times: int | None = None
    """How often; None: for ever."""
    after: int = 0
    """Let so many matching requests pass first."""

    status: int = 0
    """Answer with this status instead."""
    error_code: str = ""
    """X-Error-Code beside the status."""
    retry_after: int | None = None
    """Seconds, as Retry-After beside the status."""
    hang_after: int | None = None
    """Fall silent after so many bytes of the body, the connection open; before the headers if 0."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body, as a broken network does."""
    truncate: int | None = None
    """Send a shorter file as if it were whole: the length in the header is that of what is sent."""
    corrupt: bool = False
    """Send other bytes of the same length."""
    bytes_per_second: float = 0.0
    """Of each connection; 0: as fast as it goes."""

    struck: int = 0
    seen: int = 0

    def matches(self, at: At, method: str, path: str) -> bool:
        return (
            at in self.at
            and self.method in ("*", method)
            and fnmatch.fnmatchcase(path, self.path)
            and (self.times is None or self.struck < self.times)
        )


def strike(faults: list[Fault], at: At, method: str, path: str) -> Fault | None:
    """The fault that decides this request, counted. Call it under a lock."""
    for fault in faults:
        if fault.matches(at, method, path):
            fault.seen += 1
            if fault.seen > fault.after:
                fault.struck += 1
                return fault
    return None
