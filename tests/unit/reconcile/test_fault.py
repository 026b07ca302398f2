"""A pass that ends in a defect of the operator is told in the status and tried again (I8, I9)."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import inputs, keeper, reconciler
from unit.desired import samples
from unit.reconcile.fake_client import FakeClient

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SECRET = samples.MATERIAL.engine_key
KEY = ("team-a", "demo")


class Cache:
    """One sandbox that was told as ready, and nothing beside it."""

    def __init__(self) -> None:
        conditions = [
            {
                "type": type_,
                "status": "True",
                "observedGeneration": 3,
                "lastTransitionTime": "2029-01-01T00:00:00Z",
                "reason": "AllReady",
                "message": "",
            }
            for type_ in ("Ready", "NetworkProtected")
        ]
        self.body: dict[str, Any] = {
            "metadata": {"name": KEY[1], "namespace": KEY[0], "uid": samples.UID, "generation": 3},
            "spec": {},
            "status": {"observedGeneration": 3, "conditions": conditions},
        }

    def sandbox(self, _key: tuple[str, str]) -> dict[str, Any]:
        return self.body

    def children(self, _key: tuple[str, str]) -> dict[tuple[str, str], seen.Seen]:
        return {}

    def write_back(self, kind: kinds.Kind, body: Any) -> seen.Seen:
        return seen.observe(kind.kind, body)

    def remember(self, _kind: kinds.Kind, body: Any) -> None:
        self.body = body


class Events:
    """Takes events."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def record(self, *, reason: str, **_: Any) -> None:
        self.told.append(reason)


class World:
    """A reconciler whose second part of a pass fails with a given error."""

    def __init__(self, error: Exception) -> None:
        self.client = FakeClient()
        self.cache = Cache()
        self.client.objects["AISandbox", KEY[1]] = self.cache.body
        self.events = Events()
        self.subject = reconciler.Reconciler(
            client=self.client,
            cache=self.cache,
            linode=keeper.Keeper.__new__(keeper.Keeper),
            gateway=None,  # type: ignore[arg-type]
            engine=None,  # type: ignore[arg-type]
            hub=None,  # type: ignore[arg-type]
            recorder=self.events,  # type: ignore[arg-type]
            options=inputs.Options(
                cluster_id="lke1",
                release=samples.FACTS.release,
                storage_class="",
                nodebalancer_ranges=("192.168.255.0/24",),
                pod_ranges=("10.2.0.0/16",),
            ),
            now=lambda: NOW,
        )

        async def fail(*_: Any) -> None:
            raise error

        self.subject._preparation.prepare = fail  # type: ignore[assignment,method-assign]

    def told(self, type_: str) -> dict[str, Any]:
        (found,) = (c for c in self.cache.body["status"]["conditions"] if c["type"] == type_)
        return found  # type: ignore[no-any-return]


async def test_i8_a_pass_that_ends_in_a_defect_leaves_nothing_told_as_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(KeyError(SECRET))
    with pytest.raises(KeyError):
        await world.subject.reconcile(KEY)
    assert (world.told("Ready")["status"], world.told("Ready")["reason"]) == ("False", "OperatorFault")
    assert "KeyError" in world.told("SpecValid")["message"]
    assert world.told("NetworkProtected")["status"] == "False"
    assert world.events.told == ["OperatorFault"]
    assert "a pass ended early" in caplog.text


async def test_i6_the_words_of_the_error_are_not_told() -> None:
    world = World(ValueError(f"cannot decode {SECRET}"))
    with pytest.raises(ValueError, match="cannot decode"):
        await world.subject.reconcile(KEY)
    assert SECRET not in str(world.cache.body["status"])


async def test_a_defect_that_stays_is_written_once() -> None:
    world = World(KeyError("x"))
    for _ in range(3):
        with pytest.raises(KeyError):
            await world.subject.reconcile(KEY)
    assert world.client.calls.count("apply AISandbox demo") == 1


async def test_a_refusal_of_the_api_server_is_no_defect() -> None:
    world = World(errors.Unavailable("no answer"))
    with pytest.raises(errors.Unavailable):
        await world.subject.reconcile(KEY)
    assert "apply AISandbox demo" not in world.client.calls
    assert world.told("Ready")["status"] == "True"


async def test_a_status_that_cannot_be_told_does_not_hide_the_defect() -> None:
    world = World(KeyError("x"))

    def refuse(verb: str, kind: str, _name: str) -> Exception | None:
        return errors.Unavailable("no answer") if (verb, kind) == ("apply", "AISandbox") else None

    world.client.fail = refuse
    with pytest.raises(KeyError):
        await world.subject.reconcile(KEY)
