"""What a plan does to the API server, and what a failure holds back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.lease import LeaseLost
from ai_sandbox_operator.observed import canonical, seen
from ai_sandbox_operator.reconcile import execute, inputs, plan
from ai_sandbox_operator.reconcile.execute import Outcome
from unit.desired import samples
from unit.observed.live import live
from unit.reconcile.fake_client import Failure, FakeClient
from unit.reconcile.things import ALL, CONTEXT, INSIDE, Records, child_of

Json = Any
Stage = facts.Stage


class World:
    """A fake API server, an executor, and the records that its answers left."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.records: Records = {}
        self.executor = execute.Executor(self.client, self.write_back)

    def write_back(self, kind: kinds.Kind, body: Mapping[str, Json]) -> seen.Seen:
        record = seen.observe(kind.kind, body)
        self.records[record.kind, record.name] = record
        return record

    def put(self, child: facts.Child, **metadata: Json) -> dict[str, Json]:
        """An object that stands already, seen by the watch."""
        body = live(child.manifest)
        body["metadata"].update(metadata)
        self.client.objects[child.kind, child.name] = body
        self.records[child.kind, child.name] = seen.observe(child.kind, body)
        return body

    async def run(self, children: tuple[facts.Child, ...] = ALL, context: plan.Context = CONTEXT) -> Outcome:
        steps = plan.plan(children, self.records, context)
        return await self.executor.execute(steps, namespace="team-a", uid=samples.UID)


@pytest.fixture
def world() -> World:
    return World()


def fails(text: str, error: Exception) -> Failure:
    return lambda verb, kind, name: error if text in f"{verb} {kind} {name}" else None


async def test_a_new_sandbox_is_written_once_and_then_settled(world: World) -> None:
    outcome = await world.run()
    assert outcome.clean
    assert outcome.writes == len(ALL)
    assert outcome.accepted == {}
    assert len(world.client.calls) == len(ALL)
    world.client.calls.clear()
    assert (await world.run()).writes == 0
    assert world.client.calls == []


async def test_no_stage_begins_before_the_one_before_it_has_ended(world: World) -> None:
    await world.run()
    stages = {(c.kind, c.name): c.stage for c in ALL}
    order = [stages[tuple(call.split()[1:])] for call in world.client.calls]  # type: ignore[index]
    assert order == sorted(order)


@pytest.mark.parametrize(
    "error", [errors.Forbidden("quota", status=403), errors.Unavailable("gone", status=503)]
)
async def test_a_failed_policy_holds_back_every_pod_and_the_exposure(
    world: World, error: errors.KubeError
) -> None:
    world.client.fail = fails("NetworkPolicy demo-engine", error)
    outcome = await world.run()
    assert outcome.held_back == [Stage.WORKLOAD, Stage.EXPOSURE]
    assert outcome.failures == [("NetworkPolicy demo-engine", error)]
    assert not any("Deployment" in call or "Job" in call for call in world.client.calls)
    assert "create Service demo" not in world.client.calls
    assert "create Secret demo-gateway" in world.client.calls


async def test_a_failed_policy_keeps_leftovers_too(world: World) -> None:
    await world.run()
    world.client.calls.clear()
    del world.records["NetworkPolicy", "demo-engine"], world.client.objects["NetworkPolicy", "demo-engine"]
    world.client.fail = fails("create NetworkPolicy", errors.Unavailable("x"))
    without_chat = tuple(child for child in ALL if not child.name.startswith("demo-chat"))
    await world.run(without_chat)
    assert world.client.calls == ["create NetworkPolicy demo-engine"]


@pytest.mark.parametrize(
    "label",
    [
        "Secret demo-gateway",
        "PersistentVolumeClaim demo-chat",
        "Service demo-internal",
        "Deployment demo-chat",
    ],
)
async def test_any_other_failure_holds_back_the_exposure_alone(world: World, label: str) -> None:
    world.client.fail = fails(f"create {label}", errors.Unavailable("gone", status=503))
    outcome = await world.run()
    assert outcome.held_back == [Stage.EXPOSURE]
    assert [name for name, _ in outcome.failures] == [label]
    made = set(world.client.calls)
    expected = {f"create {c.kind} {c.name}" for c in ALL if c.stage is not Stage.EXPOSURE}
    assert made == expected


async def test_a_failed_retraction_holds_back_the_exposure(world: World) -> None:
    child = child_of("Service", "demo")
    world.put(child)
    world.client.fail = fails("delete Service demo", errors.Unavailable("gone"))
    context = dataclasses.replace(CONTEXT, exposed=False, expose=False)
    outcome = await world.run(INSIDE, context)
    assert world.client.calls[0] == "delete Service demo"
    assert [name for name, _ in outcome.failures] == ["Service demo"]


@pytest.mark.parametrize("kind_name", ["Secret demo-api-keys", "Service demo", "NetworkPolicy demo-gateway"])
async def test_a_name_that_is_taken_is_never_overwritten(world: World, kind_name: str) -> None:
    kind, name = kind_name.split()
    foreign = {
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "uid": "f", "resourceVersion": "1"},
        "spec": {"type": "ClusterIP"},
        "data": {"mine": "eA=="},
    }
    world.client.objects[kind, name] = foreign
    outcome = await world.run()
    assert outcome.taken == [f"{kind_name} exists and belongs to somebody else"]
    assert world.client.objects[kind, name] is foreign
    assert [call for call in world.client.calls if call.endswith(kind_name)] == [
        f"create {kind_name}",
        f"get {kind_name}",
    ]


async def test_an_own_object_that_the_watch_has_not_shown_yet_is_taken_in_and_not_written(
    world: World,
) -> None:
    child = child_of("Secret", "demo-api-keys")
    body = world.put(child)
    body["data"] = {"default": "b2xk"}
    del world.records["Secret", "demo-api-keys"]
    outcome = await world.run()
    assert outcome.taken == []
    assert [name for name, _ in outcome.failures] == ["Secret demo-api-keys"]
    assert world.client.objects["Secret", "demo-api-keys"]["data"] == {"default": "b2xk"}
    assert world.records["Secret", "demo-api-keys"].facts["data"] == {"default": "old"}


@pytest.mark.parametrize("labels", [{}, {"sandbox.linode.com/name": "other"}], ids=["gone", "changed"])
async def test_an_own_object_that_has_lost_its_labels_gets_them_back_and_keeps_its_values(
    world: World, labels: Json
) -> None:
    body = world.put(child_of("Secret", "demo-api-keys"), labels=labels)
    body["data"] = {"default": "b2xk"}
    del world.records["Secret", "demo-api-keys"]
    outcome = await world.run()
    assert outcome.taken == []
    held = world.client.objects["Secret", "demo-api-keys"]
    assert held["data"] == {"default": "b2xk"}
    assert held["metadata"]["labels"] == child_of("Secret", "demo-api-keys").manifest["metadata"]["labels"]
    assert world.records["Secret", "demo-api-keys"].sandbox == "demo"
    assert outcome.held_back == [Stage.EXPOSURE]


async def test_what_somebody_added_is_removed_by_a_patch_that_tests_the_version(world: World) -> None:
    await world.run()
    child = child_of("Service", "demo")
    body = world.client.objects["Service", "demo"]
    body["metadata"]["annotations"]["service.beta.kubernetes.io/linode-loadbalancer-firewall-acl"] = "{}"
    world.records["Service", "demo"] = seen.observe("Service", body)
    world.client.calls.clear()
    world.client.sent.clear()
    outcome = await world.run()
    assert outcome.clean
    assert world.client.calls == ["apply Service demo", "patch Service demo"]
    assert [op["op"] for op in world.client.sent[1]] == ["test", "remove"]
    assert world.client.sent[1][0]["path"] == "/metadata/resourceVersion"
    assert world.records["Service", "demo"].digest == canonical.digest(child.manifest)


async def test_a_patch_that_lost_a_race_is_a_conflict_and_not_a_refusal(world: World) -> None:
    await world.run()
    body = world.client.objects["Service", "demo"]
    body["spec"]["externalIPs"] = ["192.0.2.9"]
    world.records["Service", "demo"] = seen.observe("Service", body)
    world.client.fail = fails("patch Service", errors.Conflict("not as it was read", status=409))
    outcome = await world.run()
    assert len(outcome.failures) == 1
    assert not outcome.refused
    assert inputs.write_problems(outcome) == ()


class Stubborn(FakeClient):
    """A server that puts a default of its own back, whatever is patched."""

    async def json_patch(self, kind: kinds.Kind, namespace: str, name: str, operations: Json) -> Json:
        await super().json_patch(kind, namespace, name, operations)
        self.objects[kind.kind, name]["spec"]["brandNew"] = "default"
        return self.objects[kind.kind, name]


async def test_a_default_of_a_newer_server_is_patched_once_and_then_accepted(world: World) -> None:
    world.client = Stubborn()
    world.executor = execute.Executor(world.client, world.write_back)
    await world.run()
    body = world.client.objects["Service", "demo-engine"]
    body["spec"]["brandNew"] = "default"
    world.records["Service", "demo-engine"] = seen.observe("Service", body)
    outcome = await world.run()
    assert set(outcome.accepted) == {("Service", "demo-engine")}
    context = dataclasses.replace(CONTEXT, accepted=outcome.accepted)
    assert plan.plan(ALL, world.records, context).empty


async def test_a_volume_that_is_to_outlive_the_sandbox_is_taken_off_its_owners(world: World) -> None:
    child = child_of("PersistentVolumeClaim", "demo-chat")
    ours = {"kind": "AISandbox", "uid": samples.UID, "controller": True}
    other = {"kind": "Backup", "uid": "b"}
    await world.run()
    world.put(child, ownerReferences=[other, ours])
    outcome = await world.run()
    assert outcome.failures == []
    held = world.client.objects["PersistentVolumeClaim", "demo-chat"]
    assert held["metadata"]["ownerReferences"] == [other]
    context = dataclasses.replace(CONTEXT, accepted=outcome.accepted)
    assert plan.plan(ALL, world.records, context).empty


async def test_applies_never_send_values_of_generated_secrets(world: World) -> None:
    await world.run()
    world.put(child_of("Secret", "demo-api-keys"), annotations={"sandbox.linode.com/x": "y"})
    world.client.sent.clear()
    await world.run()
    assert not any("data" in sent for sent in world.client.sent if isinstance(sent, dict))


async def test_losing_the_lease_ends_the_plan_with_no_step_still_running(world: World) -> None:
    running = 0

    class Counting(FakeClient):
        async def create(self, kind: kinds.Kind, manifest: Json) -> Json:
            nonlocal running
            running += 1
            try:
                if manifest["metadata"]["name"] != "demo-chat":
                    await asyncio.sleep(0.02)  # the others are slower than the one that fails
                return await super().create(kind, manifest)
            finally:
                running -= 1

    world.client = Counting()
    world.executor = execute.Executor(world.client, world.write_back)
    world.client.fail = fails("create NetworkPolicy demo-chat", LeaseLost("not the leader"))
    with pytest.raises(LeaseLost):
        await world.run()
    assert running == 0
    assert all("NetworkPolicy" in call for call in world.client.calls)


async def test_deleting_asks_for_the_uid_that_was_seen(world: World) -> None:
    await world.run()
    world.client.objects["Deployment", "demo-chat"]["metadata"]["uid"] = "another"
    without_chat = tuple(child for child in ALL if not child.name.startswith("demo-chat"))
    outcome = await world.run(without_chat)
    assert ("Deployment", "demo-chat") in world.client.objects
    assert [name for name, _ in outcome.failures] == ["Deployment demo-chat"]


def test_outcomes_add_up() -> None:
    one, other = Outcome(writes=1, taken=["a"]), Outcome(writes=2, held_back=[Stage.EXPOSURE])
    one.extend(other)
    assert (one.writes, one.taken, one.held_back, one.clean) == (3, ["a"], [Stage.EXPOSURE], False)


def test_a_lost_race_is_no_refusal_and_everything_else_that_fails_is_one() -> None:
    assert not Outcome(failures=[("Secret a", errors.Conflict("changed", status=409))]).refused
    assert Outcome(failures=[("Secret a", errors.Forbidden("quota", status=403))]).refused
    assert Outcome(failures=[("Secret a", errors.Unavailable("no answer"))]).refused
