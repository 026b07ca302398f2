"""Secrets that a spec names: missing ones are told, hold back what needs them, and nothing else.

They are the user's and carry no label, so the operator learns of them by reading; nobody has to touch
the sandbox when one appears.
"""

from __future__ import annotations

import base64
import datetime
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.reconcile import material
from controlplane import steps
from controlplane.steps import closed, placed, public
from lab.cluster.lab import Lab
from lab.hub import Generous, Hub
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: A reference is read again after at most 15 seconds, or 40 while it is there (see references.py).
APPEARS, VANISHES = 25.0, 50.0
HUB_TOKEN = "hf_secret_value"
KINDS = ("hub token", "certificate", "administrator")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("references")
    hub = Hub(generous=Generous(), tokens={HUB_TOKEN})
    async with World(lab, folder, operator={"flags": steps.FLAGS}, hub=hub) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest.fixture
def name() -> str:
    return f"r-{uuid.uuid4().hex[:6]}"


async def create_secret(world: World, name: str, values: Mapping[str, str]) -> None:
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": world.namespace},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
    await world.api.create(kinds.SECRET, manifest)


async def drop_key(world: World, name: str, key: str) -> None:
    await world.api.merge_patch(kinds.SECRET, world.namespace, name, {"data": {key: None}})


async def workloads(world: World, name: str) -> dict[str, tuple[str, int]]:
    """UID and generation of every Deployment and Job."""
    return {
        key[1]: (live["metadata"]["uid"], live["metadata"]["generation"])
        for key, live in (await world.children(name)).items()
        if key[0] in ("Deployment", "Job")
    }


def pair(*, ended: bool = False) -> dict[str, str]:
    """A certificate and its key, as a user would bring them."""
    now = datetime.datetime.now(datetime.UTC)
    made = now - material.LEAF_LIFETIME * 2 if ended else now
    issued = material.issue(
        material.new_authority(sandbox="given", now=made), names=["chat.example.com"], now=made
    )
    return {key: issued[key] for key in ("tls.crt", "tls.key")}


def case(name: str, which: str) -> tuple[dict[str, Any], dict[str, str], str, str]:
    """Spec, the Secret's values, a key of it, and the field that names it."""
    secret = f"{name}-given"
    match which:
        case "hub token":
            spec: dict[str, Any] = {"model": {"tokenSecretRef": {"name": secret, "key": "token"}}}
            return spec, {"token": HUB_TOKEN}, "token", "spec.model.tokenSecretRef"
        case "certificate":
            spec = {"access": {"tls": {"mode": "Secret", "secretName": secret}}}
            return spec, pair(), "tls.key", "spec.access.tls.secretName"
        case _:
            spec = {"chat": {"admin": {"secretName": secret}}}
            return spec, {"password": "a-given-password"}, "password", "spec.chat.admin.secretName"


def merged(spec: dict[str, Any]) -> dict[str, Any]:
    base = public()
    return {**base, **spec, "access": {**base["access"], **spec.get("access", {})}}


async def test_a_missing_secret_is_named_and_its_appearance_is_enough(world: World, name: str) -> None:
    cases = {
        f"{name}-{number}": (which, case(f"{name}-{number}", which)) for number, which in enumerate(KINDS)
    }
    for each, (_, (spec, _, _, _)) in cases.items():
        await world.apply(each, merged(spec))
    for each, (_, (_, _, _, field)) in cases.items():
        told = await world.until(each, "SpecValid", "False", reason="SecretNotFound")
        assert f"{field}: Secret {each}-given does not exist" in told["message"]
    await world.quiet(1.0)
    for each, (which, _) in cases.items():
        fetched = [n for n in await workloads(world, each) if "-fetch-" in n]
        assert bool(fetched) is (which != "hub token"), "only what needs the Secret waits"
        assert (await world.condition(each, "Ready"))["status"] == "False"
    for each, (_, (_, values, _, _)) in cases.items():
        await create_secret(world, f"{each}-given", values)
    for each, (_, (_, values, key, _)) in cases.items():
        await world.until(each, "SpecValid", timeout=APPEARS)
        at = await placed(world, each)
        await world.until(each, "ModelCached")
        assert closed(world, at.balancer)
        assert values[key] not in world.operator.log(), "what a Secret holds is never logged"


async def test_a_secret_that_loses_its_key_stops_nothing_and_opens_nothing(world: World, name: str) -> None:
    made: dict[str, tuple[str, str, str, dict[str, tuple[str, int]], int]] = {}
    for number, which in enumerate(KINDS):
        each = f"{name}-{number}"
        spec, values, key, field = case(each, which)
        await create_secret(world, f"{each}-given", values)
        await world.apply(each, merged(spec))
        at = await placed(world, each)
        await world.until(each, "ModelCached")
        await world.until(each, "ChatReady")
        made[each] = (f"{each}-given", key, field, await workloads(world, each), at.balancer)
    watchman = steps.Watchman(world)
    for secret, key, *_ in made.values():
        await drop_key(world, secret, key)
    for each, (secret, key, field, before, balancer) in made.items():
        told = await world.until(each, "SpecValid", "False", reason="SecretKeyMissing", timeout=VANISHES)
        assert f"{field}: Secret {secret} has no key {key}" in told["message"]
        assert await workloads(world, each) == before, "what runs keeps running"
        assert closed(world, balancer)
        # A narrowing takes effect all the same.
        await world.edit(each, {"access": {"allowlist": [{"cidr": "203.0.113.8/30"}]}})
    for _, _, _, _, balancer in made.values():

        async def narrowed(balancer: int = balancer) -> bool:
            now = world.linode.state.snapshot()
            return now.admits(balancer, "203.0.113.9", 8000) and not now.admits(
                balancer, "203.0.113.99", 8000
            )

        await world.eventually(narrowed, what="the narrowing")
    assert watchman.openings == []


async def test_a_certificate_that_clients_would_refuse_is_told_with_the_field(
    world: World, name: str
) -> None:
    good, stranger = pair(), pair()
    wrong = {
        "mixed": ({**good, "tls.key": stranger["tls.key"]}, [], "tls.key does not belong to tls.crt"),
        "old": (pair(ended=True), [], "tls.crt ended on"),
        "other": (good, ["ai.example.org"], "tls.crt is not for ai.example.org"),
        "text": ({**good, "tls.crt": "no certificate"}, [], "tls.crt is not a certificate in PEM form"),
    }
    for which, (values, hostnames, _) in wrong.items():
        await create_secret(world, f"{name}-{which}", values)
        tls = {"mode": "Secret", "secretName": f"{name}-{which}"}
        await world.apply(f"{name}-{which}", merged({"access": {"tls": tls, "hostnames": hostnames}}))
    for which, (_, _, words) in wrong.items():
        told = await world.until(f"{name}-{which}", "SpecValid", "False", reason="CertificateUnusable")
        assert f"spec.access.tls.secretName: Secret {name}-{which}: {words}" in told["message"]
    data = {key: base64.b64encode(value.encode()).decode() for key, value in good.items()}
    await world.api.merge_patch(kinds.SECRET, world.namespace, f"{name}-old", {"data": data})
    await world.until(f"{name}-old", "SpecValid", timeout=APPEARS)
