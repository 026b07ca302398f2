"""How long to wait before the next try of what failed."""

from __future__ import annotations


def pause(failures: int, *, first: float, longest: float) -> float:
    """Seconds after so many failures in a row: `first` after one, twice as long after each further one."""
    # Bounded before it is raised: a float overflows at the 1024th doubling.
    return min(longest, first * 2.0 ** min(failures - 1, 32))
