"""How the fuzz tests send, judge and count."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from gateway.attacks import oracle, site

#: Requests of one property: in the normal run, and in the complete sweep.
RUNS = [2_000, pytest.param(20_000, marks=pytest.mark.slow)]
#: Rows of a table are waited for; of the fuzz, so many are refused in silence that it asks at once.
_PATIENCE = 0.004


@dataclasses.dataclass
class Tally:
    """What became of the requests of one property."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sent: int = 0
    admitted: int = 0
    reached: int = 0

    def __str__(self) -> str:
        by = ", ".join(f"{name}: {count}" for name, count in sorted(self.outcomes.items()))
        return f"sent {self.sent}, reached the engine {self.reached} (as it may: {self.admitted}); {by}"


def check(target: site.Site, tally: Tally, raw: bytes, prefix: bytes, peer: str = site.BALANCER) -> None:
    """Send; what reaches the engine must be what the oracle admits, in that order and no more."""
    from_here, left = oracle.client(prefix + raw, peer)
    wanted = [one.target for one in oracle.requests(left) if one.admitted] if from_here else []
    outcome = target.send(raw, prefix=prefix, peer=peer, answers=max(1, len(wanted)), patience=_PATIENCE)
    tally.sent += 1
    tally.admitted += len(wanted)
    tally.reached += len(outcome.engine)
    tally.outcomes[str(outcome.seen if isinstance(outcome.seen, str) else outcome.seen[0])] += 1
    where = f"peer {peer}, header {prefix!r}, request {raw!r}, upstream {outcome.engine!r}"
    assert not outcome.chat, where
    assert len(outcome.engine) <= len(wanted), where
    for request in outcome.engine:
        method, at, version = request.split(b"\r\n", 1)[0].split(b" ")
        assert at.partition(b"?")[0] in oracle.PATHS, where
        assert (version, bool(method)) == (b"HTTP/1.1", True), where
        head = request.partition(b"\r\n\r\n")[0]
        credentials = re.findall(rb"\r\n(authorization|x-api-key|cookie): ([^\r]*)", head)
        assert credentials == [(b"authorization", b"Bearer " + b"e" * 40)], where


def sweep(examples: int, strategy: st.SearchStrategy[Any], each: Callable[[Any], None]) -> None:
    """So many examples: always the same in the normal run, others every time in the complete sweep."""

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples <= RUNS[0],  # type: ignore[operator]
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def run(one: Any) -> None:
        each(one)

    run()


def report(tally: Tally, examples: int, record_property: Callable[[str, object], None]) -> None:
    """Show the counts (pytest -rP), and fail if the property was checked on too little."""
    record_property("fuzz", str(tally))
    print(tally)
    assert tally.sent >= examples
    assert tally.reached >= examples / 100, "hardly anything good was among it"
    assert sum(tally.outcomes.values()) - tally.outcomes["200"] >= examples / 4, "hardly anything bad was"
    assert len(tally.outcomes) >= 3
