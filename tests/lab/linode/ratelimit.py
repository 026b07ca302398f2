"""Request budgets per user, shared by all tokens of a user (and per address for public calls).

Documented limits: 200 a minute for paginated GET collections, 1600 a minute for the rest. Recordings show
other values over time, so a client must read the headers; here the numbers are settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.linode.errors import too_many_requests


@dataclass
class RateLimits:
    collections: int = 200
    others: int = 1600
    window: float = 60.0

    @classmethod
    def off(cls) -> RateLimits:
        return cls(collections=10**9, others=10**9)


@dataclass
class _Window:
    ends: float
    used: int = 0


@dataclass
class RateLimiter:
    """Fixed windows; `take` answers the headers or raises 429."""

    limits: RateLimits = field(default_factory=RateLimits)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _windows: dict[tuple[str, bool], _Window] = field(default_factory=dict)

    def take(self, user: str, collection: bool) -> dict[str, str]:
        limit = self.limits.collections if collection else self.limits.others
        now = self.clock()
        window = self._windows.get((user, collection))
        if window is None or window.ends <= now:
            window = self._windows[user, collection] = _Window(now + self.limits.window)
        left = window.ends - now
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - window.used - 1)),
            "X-RateLimit-Reset": str(int(self.wall() + left)),
        }
        if window.used >= limit:
            error = too_many_requests(max(1, int(left + 0.999)))
            error.headers = {**error.headers, **headers}
            raise error
        window.used += 1
        return headers
