"""A write that the API server refuses is tried again, ever less often, for as long as it is refused."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import errors, events
from ai_sandbox_operator.reconcile import inputs, keeper, reconciler, resolution, views
from ai_sandbox_operator.runtime import store
from unit.desired import samples
from unit.reconcile.fake_client import FakeClient

KEY = ("team-a", "demo")
POLICY = 'admission webhook "policy.example" denied the request'


class Around:
    """Gateway, engine and hub, of which nothing is known."""

    def prove(self, *_: Any, key: str | None = None, **__: Any) -> Any:
        return views.GatewayProof() if key is None else views.EngineProof(unseen=True)

    def look(self, *_: Any, **__: Any) -> resolution.Look:
        return resolution.Look()


class World:
    """A sandbox one of whose objects the API server refuses."""

    def __init__(self) -> None:
        self.client, self.store = FakeClient(), store.Store()
        self.denied: errors.KubeError | None = errors.Forbidden(POLICY, status=403)
        self.client.fail = self.fail
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": KEY[1],
                "namespace": KEY[0],
                "uid": samples.UID,
                "generation": 1,
                "resourceVersion": "1",
            },
            "spec": {},
        }
        self.client.objects[names.KIND, KEY[1]] = body
        self.store.observe(kinds.SANDBOX, "ADDED", body)
        around = cast(Any, Around())
        self.subject = reconciler.Reconciler(
            client=self.client,
            cache=self.store,
            linode=keeper.Keeper.__new__(keeper.Keeper),
            gateway=around,
            engine=around,
            hub=around,
            recorder=events.Recorder(self.client),
            options=inputs.Options(
                cluster_id="lke1",
                release=samples.FACTS.release,
                storage_class="",
                nodebalancer_ranges=(),
                pod_ranges=(),
            ),
        )

    def fail(self, verb: str, kind: str, name: str) -> Exception | None:
        gateway = verb in ("create", "apply") and (kind, name) == ("Deployment", "demo-gateway")
        return self.denied if gateway else None

    async def passes(self, many: int) -> list[float | None]:
        return [(await self.subject.reconcile(KEY)).again for _ in range(many)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    # Components that wait are looked at every few seconds as well; here only the pause is of interest.
    monkeypatch.setattr(inputs, "waiting_components", lambda *_: ())
    return World()


async def test_the_pause_between_two_tries_doubles_up_to_a_bound(world: World) -> None:
    assert await world.passes(6) == [1.0, 2.0, 4.0, 8.0, reconciler.LONGEST_PAUSE, reconciler.LONGEST_PAUSE]
    assert world.client.calls.count("create Deployment demo-gateway") == 6


async def test_a_refusal_that_lasts_for_weeks_stays_a_refusal(world: World) -> None:
    """Passes come every few seconds, so their number exceeds whatever a float can be doubled."""
    await world.passes(1)
    world.subject._memory[KEY].refusals = 1_000_000
    assert await world.passes(1) == [reconciler.LONGEST_PAUSE]


async def test_a_lost_race_is_tried_again_after_a_second_however_often(world: World) -> None:
    world.denied = errors.Conflict("changed", status=409)
    assert await world.passes(4) == [1.0] * 4


async def test_the_pause_is_as_long_as_the_api_server_asks(world: World) -> None:
    world.denied = errors.Unavailable("slow down", status=429, retry_after=40.0)
    assert await world.passes(1) == [40.0]


async def test_a_pass_without_a_refusal_begins_the_pauses_anew(world: World) -> None:
    await world.passes(4)
    world.denied = errors.Conflict("changed", status=409)
    await world.passes(1)
    world.denied = errors.Forbidden(POLICY, status=403)
    assert await world.passes(2) == [1.0, 2.0]
