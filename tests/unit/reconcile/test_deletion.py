"""The finalizer: put on without a false alarm, and kept until nothing runs behind the sandbox's policies (I1, I7)."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.reconcile import deletion, execute, inputs
from unit.desired import samples
from unit.reconcile.fake_client import FakeClient

Json = Any

DELETED = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
GRACE = 60.0


def after(seconds: float) -> datetime.datetime:
    return DELETED + datetime.timedelta(seconds=seconds)


def stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class World(FakeClient):
    """A sandbox that is being deleted, its policies, and pods that end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Json] = []
        metadata = {"namespace": "team-a", "name": "demo", "uid": samples.UID, "generation": 3}
        self.body: Json = {
            "metadata": {
                **metadata,
                "resourceVersion": "7",
                "deletionTimestamp": stamp(DELETED),
                "finalizers": [names.FINALIZER],
            },
            "spec": {},
            "status": {"linode": {"firewallID": 5, "nodeBalancerID": 6}},
        }
        self.objects["AISandbox", "demo"] = self.body
        for child in samples.rendered():
            if child.kind == "NetworkPolicy":
                self.objects[child.kind, child.name] = dict(child.manifest)
        self.subject = deletion.Deletion(self, remember=lambda _kind, _body: None)

    async def list_all(self, kind: kinds.Kind, namespace: str | None, **options: Any) -> list[Json]:
        self.asked.append((kind.kind, namespace, options))
        return await super().list_all(kind, namespace)

    @property
    def sandbox(self) -> v1alpha1.AISandbox:
        return v1alpha1.parse(self.body)

    def pod(self, name: str, *, due: float | None = None) -> None:
        """A pod whose grace period is over so many seconds after the sandbox's deletion."""
        ending = {} if due is None else {"deletionTimestamp": stamp(after(due))}
        self.objects["Pod", name] = {"metadata": {"name": name, "uid": name, **ending}}

    async def wait(self, seconds: float = 1.0) -> deletion.Wait | None:
        return await self.subject.pods_ending(self.sandbox, now=after(seconds), grace=GRACE)


@pytest.fixture
def world() -> World:
    return World()


async def test_i1_the_policies_are_held_while_a_pod_is_in_its_grace_period(world: World) -> None:
    world.pod("demo-engine-1", due=120.0)
    wait = await world.wait()
    assert wait is not None
    assert wait.text == "1 pod (demo-engine-1) is ending, and the NetworkPolicies stay until then"
    assert not wait.overdue


async def test_i1_the_policies_are_held_before_the_collector_has_come_to_the_pods(world: World) -> None:
    world.pod("demo-gateway-1")
    world.pod("demo-gateway-2")
    wait = await world.wait()
    assert wait is not None
    assert wait.text.startswith("2 pods (demo-gateway-1, demo-gateway-2) are ending")


async def test_without_pods_the_finalizer_goes_and_policies_are_not_asked_for(world: World) -> None:
    assert await world.wait() is None
    assert [kind for kind, _, _ in world.asked] == ["Pod"]


async def test_exactly_the_pods_behind_the_policies_are_asked_for_and_no_more_than_their_metadata(
    world: World,
) -> None:
    await world.wait()
    ((_, namespace, options),) = world.asked
    policy = world.objects["NetworkPolicy", "demo-default-deny"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert namespace == "team-a"
    assert dict(part.split("=") for part in options["label_selector"].split(",")) == selected
    assert options["metadata_only"] is True


async def test_policies_that_are_gone_or_stay_without_an_owner_hold_nothing(world: World) -> None:
    world.pod("demo-engine-1", due=120.0)
    policies = [body for (kind, _), body in world.objects.items() if kind == "NetworkPolicy"]
    for body in policies:
        body["metadata"].pop("ownerReferences")
    assert await world.wait() is None
    for key in [key for key in world.objects if key[0] == "NetworkPolicy"]:
        del world.objects[key]
    assert await world.wait() is None


@pytest.mark.parametrize(
    ("due", "seconds", "overdue"),
    [
        (300.0, 359.0, False),
        (300.0, 361.0, True),
        # Deleted long before the sandbox was, on a node that is lost: counts from the sandbox's deletion.
        (-3600.0, 59.0, False),
        (-3600.0, 61.0, True),
        (None, 59.0, False),
        (None, 61.0, True),
    ],
)
async def test_i7_a_pod_counts_as_overdue_from_the_end_of_its_own_grace_period(
    world: World, due: float | None, seconds: float, overdue: bool
) -> None:
    world.pod("demo-engine-1", due=due)
    wait = await world.wait(seconds)
    assert wait is not None
    assert wait.overdue is overdue


async def test_i7_a_pod_that_never_ends_is_told_with_what_to_do_and_what_abandoning_means(
    world: World,
) -> None:
    world.pod("demo-engine-1", due=120.0)
    for number in range(4):
        world.pod(f"demo-gateway-{number}", due=1e6)
    wait = await world.wait(1000.0)
    assert wait is not None
    status = deletion.status_of(world.sandbox, wait, now=after(1000.0))
    (ready,) = (one for one in status["conditions"] if one["type"] == "Ready")
    assert ready["reason"] == "DeletionBlocked"
    assert "5 pods (demo-engine-1, demo-gateway-0, demo-gateway-1, ...) are ending" in ready["message"]
    assert (
        "1 pod (demo-engine-1) is overdue. A pod whose node is lost ends with the Node object"
        in ready["message"]
    )
    assert "leave these pods without NetworkPolicies behind: kubectl annotate" in ready["message"]
    assert f"{names.ANNOTATION_ABANDON}=true" in ready["message"]
    assert "Cloud Firewall" not in ready["message"], "it is gone by then"


async def test_what_linode_still_holds_is_named_in_the_way_out(world: World) -> None:
    status = deletion.status_of(world.sandbox, deletion.Wait(text="no answer.", overdue=True), now=after(1.0))
    message = status["conditions"][0]["message"]
    assert message.startswith(
        "deletion waits: no answer. To end it now and leave NodeBalancer 6, Cloud Firewall 5 "
    )


async def test_a_finalizer_that_lost_a_race_is_no_refusal_of_the_spec(world: World) -> None:
    def refuse(verb: str, _kind: str, _name: str) -> Exception | None:
        return errors.Conflict("not as it was read", status=409) if verb == "patch" else None

    world.fail = refuse
    outcome = execute.Outcome()
    await execute.attempt(outcome, "the finalizer", world.subject.hold(world.sandbox, world.body))
    assert len(outcome.failures) == 1
    assert inputs.write_problems(outcome) == ()
