"""Events: the same words raise a count, a flapping sandbox is bounded, and failures stay silent."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import events
from ai_sandbox_operator.kube.client import KubeClient
from unit.kube.apiserver import ApiServer, answers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(client: KubeClient, clock: Clock) -> events.Recorder:
    return events.Recorder(client, clock=clock)


async def record(recorder: events.Recorder, message: str = "no node", uid: str = "u1") -> None:
    await recorder.record(
        namespace="team-a", name="demo", uid=uid, type_="Warning", reason="Unschedulable", message=message
    )


async def test_an_event_points_at_its_sandbox(api: ApiServer, recorder: events.Recorder) -> None:
    await record(recorder)
    ((path, event),) = api.objects.items()
    assert path.startswith("/api/v1/namespaces/team-a/events/demo.")
    assert event["involvedObject"] == {
        "apiVersion": "sandbox.linode.com/v1alpha1",
        "kind": "AISandbox",
        "namespace": "team-a",
        "name": "demo",
        "uid": "u1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Unschedulable", "no node")
    assert (event["count"], event["firstTimestamp"]) == (1, event["lastTimestamp"])


async def test_the_same_words_raise_the_count(api: ApiServer, recorder: events.Recorder) -> None:
    for _ in range(3):
        await record(recorder)
    ((_, event),) = api.objects.items()
    assert event["count"] == 3


async def test_other_words_and_other_sandboxes_are_other_events(
    api: ApiServer, recorder: events.Recorder
) -> None:
    await record(recorder)
    await record(recorder, message="no GPU")
    await record(recorder, uid="u2")
    assert len(api.objects) == 3


async def test_a_long_message_is_cut_to_what_the_server_takes(
    api: ApiServer, recorder: events.Recorder
) -> None:
    await record(recorder, message="x" * 5000)
    ((_, event),) = api.objects.items()
    assert len(event["message"]) == events.MESSAGE_LIMIT


async def test_the_budget_of_a_sandbox_is_spent_and_refills(
    api: ApiServer, recorder: events.Recorder, clock: Clock
) -> None:
    for number in range(events.BURST + 5):
        await record(recorder, message=str(number))
    assert len(api.objects) == events.BURST
    await record(recorder, uid="u2")
    assert len(api.objects) == events.BURST + 1
    clock.now += events.REFILL_SECONDS
    await record(recorder, message="later")
    await record(recorder, message="too soon")
    assert len(api.objects) == events.BURST + 2


async def test_who_asks_often_is_slowed_and_not_starved(
    api: ApiServer, recorder: events.Recorder, clock: Clock
) -> None:
    for number in range(events.BURST):
        await record(recorder, message=str(number))
    api.objects.clear()
    for number in range(60):
        clock.now += events.REFILL_SECONDS / 6
        await record(recorder, message=f"again {number}")
    assert len(api.objects) in (9, 10)


async def test_a_forgotten_sandbox_keeps_no_budget(api: ApiServer, recorder: events.Recorder) -> None:
    await record(recorder)
    recorder.forget("u1")
    recorder.forget("never heard of")
    assert recorder._budget == {}


@pytest.mark.parametrize("status", [403, 500, 404])
async def test_an_event_that_is_not_taken_fails_nothing(
    api: ApiServer, recorder: events.Recorder, status: int
) -> None:
    api.faults.append(answers(status))
    await record(recorder)
    assert [method for method, _ in api.requests] == ["POST"]
    assert api.objects == {}


async def test_an_event_that_expires_between_two_calls_fails_nothing(
    api: ApiServer, client: KubeClient, recorder: events.Recorder
) -> None:
    api.faults.append(answers(409, "AlreadyExists", times=1))
    await record(recorder)
    assert [method for method, _ in api.requests] == ["POST", "GET"]
    assert await client.list_all(kinds.EVENT, "team-a") == []
