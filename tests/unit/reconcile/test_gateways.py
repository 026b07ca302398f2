"""Asking gateway pods for what they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import envoy_routes
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.pods import PodUnreachable
from ai_sandbox_operator.observed import seen, served
from ai_sandbox_operator.reconcile import gateways, pursuit, views
from unit.desired import samples

SANDBOX = samples.sandbox({})
ROUTES = [entry.name for entry in envoy_routes.entries(SANDBOX)]
POD = ("demo-gateway-1", "10.2.0.1")
OTHER = ("demo-gateway-2", "10.2.0.2")


class World:
    """Pods, what they serve, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pursuit, "FIRST_RETRY", 0.001)
        monkeypatch.setattr(pursuit, "LONGEST_RETRY", 0.002)
        self.pods = [pod(*POD), pod(*OTHER)]
        self.serves: dict[str, str | Exception] = {POD[1]: "r-1", OTHER[1]: "r-1"}
        self.asked: list[str] = []
        self.lists = 0
        self.secret = "1"
        self.patched: list[tuple[str, str]] = []
        self.passes = 0
        self.refusal: errors.KubeError | None = None
        self.gateways = gateways.Gateways(self, self.read, add=self.add)  # type: ignore[arg-type]

    def add(self, key: tuple[str, str]) -> None:
        assert key == SANDBOX.key
        self.passes += 1

    async def list_all(
        self, kind: kinds.Kind, namespace: str, *, label_selector: str
    ) -> list[dict[str, Any]]:
        assert (kind, namespace) == (kinds.POD, SANDBOX.metadata.namespace)
        assert "app.kubernetes.io/component=gateway" in label_selector
        assert f"{names.LABEL_SANDBOX}={SANDBOX.metadata.name}" in label_selector
        self.lists += 1
        if self.refusal:
            raise self.refusal
        return self.pods

    async def merge_patch(self, kind: kinds.Kind, _namespace: str, name: str, patch: dict[str, Any]) -> None:
        assert kind is kinds.POD
        revision = patch["metadata"]["annotations"][names.ANNOTATION_ACCESS_REVISION]
        self.patched.append((name, revision))
        for one in self.pods:
            if one["metadata"]["name"] == name:
                one["metadata"]["annotations"] = {names.ANNOTATION_ACCESS_REVISION: revision}

    async def read(self, address: str, port: int, path: str) -> str:
        assert (port, path) == (names.PORT_GATEWAY_STATUS, served.STATUS_PATH)
        self.asked.append(address)
        answer = self.serves[address]
        if isinstance(answer, Exception):
            raise answer
        return "".join(
            f'envoy_http_rds_version_text{{envoy_rds_route_config="{route}",text_value="{answer}"}} 0\n'
            for route in ROUTES
        )

    def prove(self, revision: str = "r-1", version: str = "1", ready: int = 2) -> views.GatewayProof:
        return self.gateways.prove(SANDBOX, revision, deployment(version, ready), secret(self.secret))

    async def until(self, condition: Callable[[views.GatewayProof], bool], **goal: Any) -> views.GatewayProof:
        for _ in range(2000):
            if condition(found := self.prove(**goal)):
                return found
            await asyncio.sleep(0.001)
        raise AssertionError(f"not reached; last {found}")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def pod(name: str, address: str, *, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": SANDBOX.metadata.namespace},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
    }


def deployment(version: str, ready: int) -> seen.Seen:
    body = {
        "metadata": {"name": "demo-gateway", "namespace": "team-a", "uid": "d", "resourceVersion": version},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }
    return seen.observe("Deployment", body)


def secret(version: str) -> seen.Seen:
    metadata = {"name": "demo-gateway", "namespace": "team-a", "uid": "s", "resourceVersion": version}
    return seen.observe("Secret", {"metadata": metadata})


def proven(proof: views.GatewayProof) -> bool:
    return proof.proven


async def test_at_first_nothing_is_known(world: World) -> None:
    assert world.prove() == views.GatewayProof(unseen=True, message="the gateway's pods are being asked")
    await world.gateways.close()


async def test_without_a_ready_pod_nobody_is_asked(world: World) -> None:
    assert not world.prove(ready=0).proven
    assert not world.prove(ready=0).unseen
    await asyncio.sleep(0.01)
    assert world.lists == 0


async def test_all_pods_agree_and_then_it_is_quiet(world: World) -> None:
    await world.until(proven)
    passes = world.passes
    for _ in range(5):
        assert world.prove().proven
        await asyncio.sleep(0.005)
    assert (world.lists, sorted(world.asked)) == (1, [POD[1], OTHER[1]])
    assert (world.patched, world.passes, passes) == ([], 1, 1)


async def test_one_stale_pod_is_enough_to_prove_nothing_and_it_is_hurried_once(world: World) -> None:
    world.serves[OTHER[1]] = "r-0"
    found = await world.until(lambda proof: "1 of 2" in proof.message)
    assert (found.proven, found.reason) == (False, Reason.ProtectionPending)
    assert OTHER[0] in found.message
    await asyncio.sleep(0.02)
    assert world.patched == [(OTHER[0], "r-1")]
    world.serves[OTHER[1]] = "r-1"
    await world.until(proven)
    assert world.patched == [(OTHER[0], "r-1")]


async def test_a_silent_pod_is_named_as_such_before_a_stale_one(world: World) -> None:
    world.serves = {POD[1]: "r-0", OTHER[1]: PodUnreachable("port 9902 did not answer in 3 s")}
    found = await world.until(lambda proof: "2 of 2" in proof.message)
    assert found.reason is Reason.GatewayUnproven
    assert "did not answer" in found.message
    await world.gateways.close()


async def test_a_new_revision_voids_the_proof_at_once(world: World) -> None:
    await world.until(proven)
    assert not world.prove(revision="r-2").proven
    assert not world.prove(revision="r-2").unseen
    world.serves = dict.fromkeys(world.serves, "r-2")
    await world.until(proven, revision="r-2")
    assert sorted(world.patched) in ([], [(POD[0], "r-2"), (OTHER[0], "r-2")])


async def test_a_new_pod_is_asked_and_the_proof_stands_until_it_contradicts(world: World) -> None:
    await world.until(proven)
    world.pods[1] = pod("demo-gateway-3", "10.2.0.3")
    world.serves["10.2.0.3"] = "r-0"
    assert world.prove(version="2").proven
    found = await world.until(lambda proof: not proof.proven, version="2")
    assert "demo-gateway-3" in found.message
    await world.gateways.close()


async def test_after_somebody_elses_content_was_put_right_the_pods_are_asked_again(world: World) -> None:
    await world.until(proven)
    world.serves[POD[1]] = "somebody-elses"
    world.secret = "3"
    await world.until(lambda proof: not proof.proven)
    await world.gateways.close()


async def test_pods_that_leave_or_start_are_not_asked(world: World) -> None:
    world.pods[0]["metadata"]["deletionTimestamp"] = "now"
    world.pods.append(pod("demo-gateway-3", "10.2.0.3", ready="False"))
    await world.until(proven)
    assert world.asked == [OTHER[1]]


async def test_when_the_api_server_does_not_answer_nothing_is_proven_and_it_is_tried_again(
    world: World,
) -> None:
    world.refusal = errors.Unavailable("no answer")
    found = await world.until(lambda proof: "cannot be asked" in proof.message)
    assert not found.proven
    world.refusal = None
    await world.until(proven)


async def test_a_defect_of_the_operator_proves_nothing(world: World) -> None:
    world.serves[POD[1]] = ValueError("a defect")
    found = await world.until(lambda proof: "operator's log" in proof.message)
    assert not found.proven
    await world.gateways.close()


async def test_what_is_forgotten_ends(world: World) -> None:
    world.serves[POD[1]] = "r-0"
    await world.until(lambda proof: bool(proof.message) and not proof.unseen)
    world.gateways.forget(SANDBOX.metadata.uid)
    await asyncio.sleep(0.01)
    lists = world.lists
    await asyncio.sleep(0.02)
    assert world.lists == lists


async def test_an_exposed_sandbox_needs_the_outer_routes_too(world: World) -> None:
    public = samples.sandbox({"access": {"exposure": "NodeBalancer"}})
    for _ in range(20):
        found = world.gateways.prove(public, "r-1", deployment("1", 2), secret("1"))
        await asyncio.sleep(0.005)
    assert not found.proven
    await world.gateways.close()
