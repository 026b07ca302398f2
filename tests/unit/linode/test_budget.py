"""The request budget and the circuit breaker, on a clock that the tests move."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.linode import budget, errors

from .conftest import Clock

LISTS, REST = budget.CallClass.COLLECTION, budget.CallClass.OTHER


def made(clock: Clock) -> budget.Budget:
    return budget.Budget(clock=clock, wall=clock)


def drain(
    spent: budget.Budget, kind: budget.CallClass, *, max_wait: float
) -> tuple[list[float], errors.RateLimited]:
    """Reserve until turned away."""
    waits: list[float] = []
    while True:
        try:
            waits.append(spent.reserve(kind, max_wait=max_wait))
        except errors.RateLimited as error:
            return waits, error


@hypothesis.given(st.lists(st.floats(0, 20), min_size=1, max_size=60))
def test_no_minute_exceeds_the_limit(pauses: list[float]) -> None:
    """Whatever the rhythm of the callers: burst and trickle together stay within Linode's window."""
    clock = Clock()
    spent = made(clock)
    sent: list[float] = []
    for pause in pauses:
        clock.now += pause
        for _ in range(30):
            try:
                sent.append(clock.now + spent.reserve(LISTS, max_wait=2.0))
            except errors.RateLimited:
                break
    sent.sort()
    for start in sent:
        assert sum(start <= moment < start + 60 for moment in sent) <= 200 + 1


def test_callers_queue_up_to_the_longest_wait_then_are_turned_away(clock: Clock) -> None:
    spent = made(clock)
    waits, error = drain(spent, LISTS, max_wait=2.0)
    assert waits == sorted(waits)
    assert waits[-1] <= 2.0
    assert len(waits) == 50 + 5
    assert error.retry_after == pytest.approx(2.4)


def test_classes_do_not_share_a_budget(clock: Clock) -> None:
    spent = made(clock)
    spent.pause(LISTS, 30)
    assert spent.reserve(REST, max_wait=0) == 0


@pytest.mark.parametrize(
    ("retry_after", "wait"), [(30.0, 30.0), (None, 10.0), (0.0, 1.0), (100_000.0, 600.0)]
)
def test_after_a_429_nobody_calls_before_the_time_that_linode_names(
    clock: Clock, retry_after: float | None, wait: float
) -> None:
    spent = made(clock)
    assert spent.pause(LISTS, retry_after) == wait
    with pytest.raises(errors.RateLimited) as caught:
        spent.reserve(LISTS, max_wait=0.5)
    assert caught.value.retry_after == pytest.approx(wait)
    clock.now += wait
    assert spent.reserve(LISTS, max_wait=0.5) == 0


def test_a_lower_limit_in_the_headers_is_followed(clock: Clock) -> None:
    spent = made(clock)
    spent.learn(REST, {"X-RateLimit-Limit": "40", "X-RateLimit-Remaining": "39"})
    assert len(drain(spent, REST, max_wait=0)[0]) == 10


def test_requests_of_other_clients_of_the_user_count(clock: Clock) -> None:
    spent = made(clock)
    spent.learn(LISTS, {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "1"})
    assert spent.reserve(LISTS, max_wait=0) == 0
    with pytest.raises(errors.RateLimited):
        spent.reserve(LISTS, max_wait=0)


def test_nothing_remaining_waits_for_the_reset(clock: Clock) -> None:
    spent = made(clock)
    spent.learn(LISTS, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(clock.now + 25)})
    with pytest.raises(errors.RateLimited) as caught:
        spent.reserve(LISTS, max_wait=2)
    assert caught.value.retry_after == pytest.approx(25)


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "-1", "0"])
def test_nonsense_in_headers_is_ignored(clock: Clock, text: str) -> None:
    spent = made(clock)
    spent.learn(LISTS, {"X-RateLimit-Limit": text})
    assert spent.reserve(LISTS, max_wait=0) == 0


def fail(breaker: budget.Breaker, error: errors.LinodeError | None = None) -> None:
    given = error or errors.Unavailable("cannot connect")
    with pytest.raises(type(given)), breaker.permit():
        raise given


def test_i9_after_five_failures_calls_fail_at_once_for_ten_seconds(clock: Clock) -> None:
    breaker = budget.Breaker(clock=clock)
    for _ in range(5):
        fail(breaker)
    with pytest.raises(errors.Unavailable, match="several times in a row") as caught, breaker.permit():
        pytest.fail("the call was let through")
    assert caught.value.retry_after == 10
    clock.now += 10
    with breaker.permit(), pytest.raises(errors.Unavailable), breaker.permit():
        pytest.fail("a second call was let through during the trial")
    assert not breaker.is_open
    with breaker.permit():
        pass


def test_a_failed_trial_opens_the_circuit_again(clock: Clock) -> None:
    breaker = budget.Breaker(clock=clock)
    for _ in range(5):
        fail(breaker)
    clock.now += 10
    fail(breaker)
    with pytest.raises(errors.Unavailable, match="in a row"), breaker.permit():
        pytest.fail("the call was let through")


def test_a_cancelled_trial_does_not_block_the_next_one(clock: Clock) -> None:
    breaker = budget.Breaker(clock=clock)
    for _ in range(5):
        fail(breaker)
    clock.now += 10
    with pytest.raises(KeyboardInterrupt), breaker.permit():
        raise KeyboardInterrupt
    with breaker.permit():
        pass
    assert not breaker.is_open


def test_an_answer_of_any_kind_clears_the_count(clock: Clock) -> None:
    breaker = budget.Breaker(clock=clock)
    for _ in range(4):
        fail(breaker)
    fail(breaker, errors.NotFound("GET /x"))
    for _ in range(4):
        fail(breaker)
    assert not breaker.is_open


@pytest.mark.parametrize(
    "error",
    [errors.RateLimited(retry_after=1), errors.Busy("PUT /x"), errors.NoToken()],
    ids=lambda e: type(e),
)
def test_what_says_nothing_about_linode_neither_counts_nor_clears(
    clock: Clock, error: errors.LinodeError
) -> None:
    breaker = budget.Breaker(clock=clock)
    for _ in range(4):
        fail(breaker)
    for _ in range(10):
        fail(breaker, error)
    assert not breaker.is_open
    fail(breaker)
    assert breaker.is_open
