"""How often and whether Linode may be asked at all: the request budget and the circuit breaker.

Linode counts requests per user over all its tokens: 200 a minute for collections, 1600 for the rest
(documentation, "Rate limits"); the limits have changed before, so the headers of each reply win. One
Budget and one Breaker serve the whole process. Neither ever sleeps: they say how long to wait, and a
caller that would wait long gets an error instead, so that one sandbox never delays another (I9).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping

from ai_sandbox_operator.linode import errors

WINDOW = 60.0
#: Share of a window's limit that may be used at once; the rest trickles. Burst and trickle add up to
#: the limit, so no window of a minute exceeds it.
BURST_SHARE = 0.25
#: Waiting time after a 429 without Retry-After.
DEFAULT_PAUSE = 10.0
MAX_PAUSE = 600.0


class CallClass(enum.Enum):
    """Kinds of calls that Linode counts apart; the value is the documented limit per minute."""

    COLLECTION = 200
    OTHER = 1600


@dataclasses.dataclass
class _Bucket:
    limit: float
    tokens: float
    updated: float
    blocked_until: float = 0.0

    @property
    def burst(self) -> float:
        return max(1.0, self.limit * BURST_SHARE)

    @property
    def rate(self) -> float:
        return self.limit * (1 - BURST_SHARE) / WINDOW

    def refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
        self.updated = now


class Budget:
    """One token bucket per class of calls.

    Args:
        clock: monotonic seconds.
        wall: seconds since the epoch, to read X-RateLimit-Reset.
    """

    def __init__(self, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        now = clock()
        self._buckets = {kind: _Bucket(kind.value, kind.value * BURST_SHARE, now) for kind in CallClass}

    def reserve(self, kind: CallClass, *, max_wait: float) -> float:
        """Take one request; the seconds to wait before sending it.

        Raises:
            RateLimited: the wait would exceed max_wait; nothing was taken.
        """
        bucket = self._buckets[kind]
        now = self._clock()
        bucket.refill(now)
        wait = max(bucket.blocked_until - now, (1 - bucket.tokens) / bucket.rate, 0.0)
        if wait > max_wait:
            raise errors.RateLimited(retry_after=wait)
        bucket.tokens -= 1
        return wait

    def left(self, kind: CallClass) -> float:
        """Requests that could be sent at once; 0 while Linode has told to wait."""
        bucket, now = self._buckets[kind], self._clock()
        bucket.refill(now)
        return 0.0 if bucket.blocked_until > now else max(0.0, bucket.tokens)

    def pause(self, kind: CallClass, retry_after: float | None) -> float:
        """Linode answered 429: nobody calls this class before then. Returns the seconds."""
        wait = min(DEFAULT_PAUSE if retry_after is None else max(retry_after, 1.0), MAX_PAUSE)
        bucket = self._buckets[kind]
        bucket.blocked_until = max(bucket.blocked_until, self._clock() + wait)
        return wait

    def learn(self, kind: CallClass, headers: Mapping[str, str]) -> None:
        """Follow the limit and the rest that a reply states; other clients of the user spend too."""
        bucket = self._buckets[kind]
        now = self._clock()
        bucket.refill(now)
        limit = number(headers.get("X-RateLimit-Limit"))
        if limit is not None and limit >= 1:
            bucket.limit = limit
            bucket.tokens = min(bucket.tokens, bucket.burst)
        remaining = number(headers.get("X-RateLimit-Remaining"))
        if remaining is None:
            return
        bucket.tokens = min(bucket.tokens, remaining)
        reset = number(headers.get("X-RateLimit-Reset"))
        if remaining < 1 and reset is not None:
            left = min(max(reset - self._wall(), 0.0), WINDOW)
            bucket.blocked_until = max(bucket.blocked_until, now + left)


class Breaker:
    """Fails fast while Linode is down.

    After `threshold` failures in a row every call fails at once for `pause` seconds; then one call
    at a time may try, and its success closes the circuit.
    """

    def __init__(self, *, clock: Callable[[], float], threshold: int = 5, pause: float = 10.0) -> None:
        self._clock = clock
        self._threshold = threshold
        self._pause = pause
        self._failures = 0
        self._open_until = 0.0
        self._trial = False

    @property
    def is_open(self) -> bool:
        """Whether ordinary calls fail fast."""
        return self._failures >= self._threshold

    @contextlib.contextmanager
    def permit(self) -> Iterator[None]:
        """Around one call with its repetitions.

        What says nothing about Linode's health (no token, a spent budget, a busy object) neither
        counts nor clears; any other answer clears.

        Raises:
            Unavailable: the circuit is open.
        """
        trial = self._enter()
        try:
            yield
        except (errors.RateLimited, errors.Busy, errors.NoToken):
            raise
        except (errors.Unavailable, errors.Ambiguous):
            self._failures += 1
            if self.is_open:
                self._open_until = self._clock() + self._pause
            raise
        except errors.LinodeError:
            self._failures = 0  # an answer, if not the wanted one
            raise
        else:
            self._failures = 0
        finally:
            if trial:
                self._trial = False

    def _enter(self) -> bool:
        if not self.is_open:
            return False
        left = self._open_until - self._clock()
        if left > 0 or self._trial:
            raise errors.Unavailable("it did not answer several times in a row", retry_after=max(left, 1.0))
        self._trial = True
        return True


def number(text: str | None) -> float | None:
    """A number from a header; None if it is not one."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and value == value and abs(value) != float("inf") else None
