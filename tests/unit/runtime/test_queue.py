"""The work queue: no duplicates, never two workers on one key, nothing lost, back-off per key."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_sandbox_operator.runtime.queue import WorkQueue

Reconcile = Callable[[str], Awaitable[float | None]]


@contextlib.asynccontextmanager
async def working(queue: WorkQueue[str], reconcile: Reconcile, workers: int = 1) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(queue.work(reconcile)) for _ in range(workers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        queue.close()


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Passes:
    """Counts passes; each waits until it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.gate = asyncio.Event()
        self.answer: float | None = None

    async def __call__(self, key: str) -> float | None:
        self.began.append(key)
        await self.gate.wait()
        return self.answer


@pytest.fixture
def queue() -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: 1.0, longest_backoff=0.05)


async def test_a_key_that_waits_is_worked_on_once(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.add("a")
    assert (len(queue), queue.idle) == (1, False)
    passes = Passes()
    passes.gate.set()
    async with working(queue, passes):
        await turns()
    assert passes.began == ["a"]
    assert queue.idle


async def test_a_key_that_is_added_while_it_is_worked_on_gets_another_pass_and_not_two_at_once(
    queue: WorkQueue[str],
) -> None:
    passes = Passes()
    queue.add("a")
    async with working(queue, passes, workers=3):
        await turns()
        queue.add("a")
        queue.add("a")
        await turns()
        assert passes.began == ["a"]
        passes.gate.set()
        await turns()
        assert passes.began == ["a", "a"]


async def test_keys_do_not_wait_for_each_other(queue: WorkQueue[str]) -> None:
    passes = Passes()
    async with working(queue, passes, workers=2):
        queue.add("slow")
        queue.add("other")
        await turns()
        assert passes.began == ["slow", "other"]
        passes.gate.set()
        await turns()


async def test_a_pass_that_asks_for_another_gets_it_later(queue: WorkQueue[str]) -> None:
    passes = Passes()
    passes.answer = 0.02
    passes.gate.set()
    queue.add("a")
    async with working(queue, passes):
        await turns()
        assert passes.began == ["a"]
        assert (len(queue), queue.idle) == (0, True)
        await asyncio.sleep(0.03)
        assert passes.began == ["a", "a"]


async def test_of_several_delays_the_earliest_counts(queue: WorkQueue[str]) -> None:
    queue.add("a", 60)
    queue.add("a", 0.01)
    queue.add("a", 30)
    await asyncio.sleep(0.02)
    assert len(queue) == 1
    queue.close()


async def test_an_immediate_request_takes_the_place_of_a_delayed_one(queue: WorkQueue[str]) -> None:
    queue.add("a", 0.01)
    queue.add("a")
    passes = Passes()
    passes.gate.set()
    async with working(queue, passes):
        await asyncio.sleep(0.03)
    assert passes.began == ["a"]


async def test_failures_back_off_and_success_forgets_them(queue: WorkQueue[str]) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    patient: WorkQueue[str] = WorkQueue(jitter=lambda: 0.02, longest_backoff=2.0)

    async def reconcile(_: str) -> float | None:
        times.append(loop.time())
        if len(times) < 6:
            raise RuntimeError("no")
        return None

    patient.add("a")
    async with working(patient, reconcile):
        await asyncio.sleep(0.25)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    expected = [0.01, 0.02, 0.04, 0.04, 0.04]
    assert len(waits) == len(expected)
    assert all(wait >= wanted * 0.9 for wait, wanted in zip(waits, expected, strict=True)), waits
    assert patient._failures == {}


async def test_a_key_that_fails_for_days_goes_on_failing_in_peace() -> None:
    """2.0 ** 1024 is no float: the worker must not end with it."""
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1e-6, longest_backoff=300)
    queue._failures["a"] = 5000

    async def reconcile(_: str) -> float | None:
        raise RuntimeError("no")

    queue.add("a")
    async with working(queue, reconcile):
        await asyncio.sleep(0.02)
        assert queue._failures["a"] > 5001


async def test_a_pass_that_hangs_is_ended_and_counts_as_failed() -> None:
    queue: WorkQueue[str] = WorkQueue(pass_timeout=0.01, jitter=lambda: 1.0)
    passes = Passes()
    queue.add("a")
    async with working(queue, passes):
        await asyncio.sleep(0.03)
        assert queue._failures["a"] == 1
        assert queue._busy == set()


async def test_ending_a_worker_leaves_its_key_to_others(queue: WorkQueue[str]) -> None:
    passes = Passes()
    queue.add("a")
    async with working(queue, passes):
        await turns()
        queue.add("a")
    assert queue._busy == set()
    passes.gate.set()
    async with working(queue, passes):
        await turns()
    assert passes.began == ["a", "a"]


async def test_close_cancels_what_was_delayed(queue: WorkQueue[str]) -> None:
    queue.add("a", 0.01)
    queue.close()
    await asyncio.sleep(0.02)
    assert len(queue) == 0


STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["add", "finish", "fail"])), max_size=30)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_no_key_is_worked_on_twice_at_once(steps: list[tuple[str, str]]) -> None:
    """Every request is followed by a pass that began after it."""
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, str]]) -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 0.0)  # a failed key is back at once
    running: dict[str, asyncio.Future[bool]] = {}
    requested: dict[str, int] = {}
    served: dict[str, int] = {}
    clock = 0

    async def reconcile(key: str) -> float | None:
        assert key not in running, "two workers on one key"
        served[key] = clock
        running[key] = asyncio.get_running_loop().create_future()
        try:
            if not await running[key]:
                raise RuntimeError("no")
        finally:
            del running[key]
        return None

    async with working(queue, reconcile, workers=3):
        for key, what in steps:
            clock += 1
            if what == "add":
                queue.add(key)
                requested[key] = clock
            elif key in running and not running[key].done():
                running[key].set_result(what == "finish")
            await turns()
        for _ in range(20):
            for future in list(running.values()):
                if not future.done():
                    future.set_result(True)
            clock += 1
            await turns()
        assert queue.idle
        assert all(served[key] >= at for key, at in requested.items())
