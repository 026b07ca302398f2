"""Two candidates, one Lease: never two writers, and no writer that is not sure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import errors, lease
from ai_sandbox_operator.kube.client import KubeClient
from unit.kube.apiserver import ApiServer, answers, hangs

PATH = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/operator"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(client: KubeClient, name: str, clock: Clock) -> lease.Lease:
    """Real time between tries is short; what is judged is judged by the injected clock."""
    return lease.Lease(
        client, namespace="ops", name="operator", identity=name, retry=0.005, attempt=0.3, clock=clock
    )


@contextlib.asynccontextmanager
async def holding(*candidates: lease.Lease) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(one.hold()) for one in candidates]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def surely(one: lease.Lease) -> bool:
    try:
        one.check()
    except lease.LeaseLost:
        return False
    return True


def spec(api: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = api.objects[PATH]["spec"]
    return found


async def rounds(api: ApiServer, count: int = 6) -> None:
    """Until that many more requests have been answered."""
    wanted = len(api.requests) + count
    async with asyncio.timeout(10):
        while len(api.requests) < wanted:
            await asyncio.sleep(0.002)


async def test_the_first_candidate_leads_and_renews(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    first = candidate(client, "a", clock)
    assert not surely(first)
    async with holding(first):
        await asyncio.wait_for(first.held.wait(), 5)
        assert surely(first)
        assert spec(api)["holderIdentity"] == "a"
        acquired, version = spec(api)["acquireTime"], api.version
        await rounds(api)
        assert spec(api)["acquireTime"] == acquired
        assert api.version > version


async def test_of_two_candidates_one_leads(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    both = [candidate(client, name, clock) for name in "ab"]
    async with holding(*both):
        await rounds(api, 12)
        clock.now += lease.DURATION - 1
        await rounds(api, 12)
        assert sorted(surely(one) for one in both) == [False, True]
        assert sorted(one.held.is_set() for one in both) == [False, True]


async def test_a_lease_is_taken_over_after_it_stood_still_by_our_own_clock(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    """The time in the Lease is another node's, and may be years away."""
    api.put(PATH, _held_by("dead", renewed="1999-01-01T00:00:00.000000Z"))
    second = candidate(client, "b", clock)
    async with holding(second):
        await rounds(api)
        assert not second.held.is_set()
        clock.now += lease.DURATION - 0.1
        await rounds(api)
        assert not second.held.is_set()
        clock.now += 0.2
        await asyncio.wait_for(second.held.wait(), 5)
        assert spec(api)["holderIdentity"] == "b"


async def test_a_lease_that_moves_is_never_taken(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    second = candidate(client, "b", clock)
    async with holding(second):
        for number in range(5):
            api.put(PATH, _held_by("alive", renewed=str(number)))
            await rounds(api, 2)
            clock.now += lease.DURATION - 1
        assert not second.held.is_set()


def _held_by(name: str, *, renewed: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": "ops", "name": "operator"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": int(lease.DURATION), "renewTime": renewed},
    }


async def test_a_leader_that_cannot_renew_stops_writing_before_another_may_begin(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    first = candidate(client, "a", clock)
    async with api.client() as other:
        second = candidate(other, "b", clock)
        async with holding(first) as tasks:
            await asyncio.wait_for(first.held.wait(), 5)
            api.faults.append(_failing_put("a"))
            async with holding(second):
                await rounds(api, 6)
                for _ in range(8):
                    clock.now += 1
                    await rounds(api, 6)
                    assert not (surely(first) and second.held.is_set()), clock.now
                await asyncio.wait_for(second.held.wait(), 5)
            with pytest.raises(lease.LeaseLost):
                await asyncio.wait_for(tasks[0], 5)


def _failing_put(holder: str) -> Any:
    async def fault(request: web.Request) -> web.StreamResponse | None:
        failing = request.method == "PUT" and f'"holderIdentity": "{holder}"' in await request.text()
        return web.json_response({"reason": "ServiceUnavailable"}, status=503) if failing else None

    return fault


@pytest.mark.parametrize("fault", [answers(503), hangs], ids=["errors", "silence"])
async def test_a_short_failure_costs_nothing_and_a_long_one_the_lease(
    api: ApiServer, client: KubeClient, clock: Clock, fault: Any
) -> None:
    first = candidate(client, "a", clock)
    async with holding(first) as (task,):
        await asyncio.wait_for(first.held.wait(), 5)
        api.faults.append(fault)
        await rounds(api, 2)
        clock.now += lease.DEADLINE / 2
        await rounds(api, 1)
        assert surely(first)
        assert not task.done()
        clock.now += lease.DEADLINE
        assert not surely(first)
        with pytest.raises(lease.LeaseLost):
            await asyncio.wait_for(task, 5)


async def test_renewal_counts_from_the_moment_it_was_asked_for(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    """An answer that took long proves nothing of the time since."""
    first = candidate(client, "a", clock)

    async def slow_once(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST":
            clock.now += lease.DEADLINE + 1
            api.faults[:] = [answers(503)]
        return None

    api.faults.append(slow_once)
    task = asyncio.create_task(first.hold())
    with pytest.raises(lease.LeaseLost):
        await asyncio.wait_for(task, 5)
    assert first.held.is_set()
    assert not surely(first)


async def test_a_leader_that_reads_another_holder_stops_at_once(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    first = candidate(client, "a", clock)
    async with holding(first) as (task,):
        await asyncio.wait_for(first.held.wait(), 5)
        api.put(PATH, _held_by("usurper"))
        with pytest.raises(lease.LeaseLost):
            await asyncio.wait_for(task, 5)
        assert not surely(first)
        assert spec(api)["holderIdentity"] == "usurper"


async def test_a_lost_race_for_an_expired_lease_is_lost(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.put(PATH, _held_by(""))
    first = candidate(client, "a", clock)

    async def overtaken(request: web.Request) -> web.StreamResponse | None:
        if request.method == "PUT":
            api.faults.clear()
            api.put(PATH, _held_by("b"))
        return None

    api.faults.append(overtaken)
    assert not await first._try()
    assert spec(api)["holderIdentity"] == "b"


async def test_a_released_lease_is_taken_at_once_and_the_former_leader_may_not_write(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    first, second = candidate(client, "a", clock), candidate(client, "b", clock)
    async with holding(first):
        await asyncio.wait_for(first.held.wait(), 5)
    await first.release()
    assert not surely(first)
    assert spec(api)["holderIdentity"] == ""
    async with holding(second):
        await asyncio.wait_for(second.held.wait(), 5)


async def test_release_leaves_what_it_does_not_hold(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    standby = candidate(client, "b", clock)
    await standby.release()
    assert api.requests == []
    first = candidate(client, "a", clock)
    async with holding(first):
        await asyncio.wait_for(first.held.wait(), 5)
    api.put(PATH, _held_by("b"))
    await first.release()
    assert spec(api)["holderIdentity"] == "b"
    api.faults.append(answers(503))
    await first.release()


class Answering(KubeClient):
    """Creation is answered when the test says so."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def get(self, kind: kinds.Kind, namespace: str | None, name: str) -> dict[str, Any]:
        raise errors.NotFound("none", status=404)

    async def create(self, kind: kinds.Kind, manifest: dict[str, Any]) -> dict[str, Any]:
        return await self.answer


async def test_a_candidate_that_is_stopped_at_the_moment_of_its_success_stops(clock: Clock) -> None:
    """A cancellation that is lost would leave a leader behind that nobody can stop."""
    client = Answering()
    task = asyncio.create_task(candidate(client, "a", clock).hold())
    await asyncio.sleep(0.01)
    client.answer.set_result({})
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=0.5)
    assert not pending
