"""Access as it takes effect: every ready gateway must say that it serves what the spec asks for."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from controlplane import steps
from controlplane.steps import placed, public
from lab import cert_manager
from lab.cluster.lab import Lab
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: A kubelet that nobody hurries brings a changed Secret only after this long.
LAZY = 3600.0
#: The keys and certificates of sandboxes inside the cluster need no NodeBalancer.
INSIDE: dict[str, Any] = {"lifecycle": {"state": "Suspended"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("access")
    async with World(lab, folder, operator={"flags": steps.FLAGS}) as made:
        await made.operator.start()
        yield made
        lab.nodes.sync(0.5)
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest.fixture
def name(lab: Lab) -> str:
    lab.nodes.forget()
    return f"a-{uuid.uuid4().hex[:6]}"


async def put_keys(world: World, name: str, values: dict[str, str | None]) -> None:
    data = {key: value and base64.b64encode(value.encode()).decode() for key, value in values.items()}
    await world.api.merge_patch(kinds.SECRET, world.namespace, f"{name}-api-keys", {"data": data})


async def test_one_gateway_that_serves_an_earlier_allowlist_is_enough_to_deny_protection(
    world: World, name: str
) -> None:
    await world.apply(name, public())
    await placed(world, name)
    stale = (await world.pods(name, "gateway"))[0]["metadata"]["name"]
    rule = world.lab.nodes.behave("normal", prefix=stale, status="frozen")
    await world.edit(name, {"access": {"allowlist": [{"cidr": "203.0.113.8/30"}]}})
    told = await world.until(name, "NetworkProtected", "False", reason="ProtectionPending")
    told = await world.eventually(lambda: _naming(world, name, stale), what="the name of the stale pod")
    assert "1 of 2 gateway pods" in told["message"]
    await asyncio.sleep(2)
    assert (await world.condition(name, "NetworkProtected"))["status"] == "False", (
        "a proof does not come by waiting"
    )
    held = (await world.sandbox(name))["status"]["applied"]["accessHash"]
    world.lab.nodes.forget(rule)
    await world.until(name, "NetworkProtected")
    assert (await world.sandbox(name))["status"]["applied"]["accessHash"] != held


async def _naming(world: World, name: str, pod: str) -> dict[str, Any] | None:
    condition: dict[str, Any] = await world.condition(name, "NetworkProtected")
    return condition if condition["status"] == "False" and pod in condition["message"] else None


@pytest.mark.parametrize(("behaviour", "words"), [("unreachable", "status 502"), ("slow", "did not answer")])
async def test_a_gateway_that_does_not_answer_is_not_protected(
    world: World, name: str, behaviour: str, words: str
) -> None:
    await world.apply(name, {**INSIDE})
    await world.until(name, "NetworkProtected")
    pod = (await world.pods(name, "gateway"))[1]["metadata"]["name"]
    fields: dict[str, Any] = (
        {"status": "unreachable"} if behaviour == "unreachable" else {"status_seconds": 8}
    )
    rule = world.lab.nodes.behave("normal", prefix=pod, **fields)
    await world.edit(name, {"access": {"apiKeys": [{"name": "other"}]}})
    told = await world.until(name, "NetworkProtected", "False", reason="GatewayUnproven")
    assert pod in told["message"]
    assert words in told["message"]
    assert "9902" in told["message"]
    world.lab.nodes.forget(rule)
    await world.until(name, "NetworkProtected")


async def test_a_changed_allowlist_takes_effect_in_seconds_with_a_kubelet_that_syncs_hourly(
    world: World, name: str
) -> None:
    await world.apply(name, public())
    await placed(world, name)
    await world.quiet(1.0)
    world.lab.nodes.sync(LAZY)
    mark, began = len(world.proxy.journal), time.monotonic()
    await world.edit(name, {"access": {"allowlist": [{"cidr": "203.0.113.8/30"}]}})
    await world.until(name, "NetworkProtected", "False")
    await placed(world, name)
    assert time.monotonic() - began < 10
    await world.quiet(1.0)
    written = sorted(str(one) for one in world.proxy.attempts(mark))
    pods = [one["metadata"] for one in await world.pods(name, "gateway")]
    wanted = await world.access_revision(name)
    assert {one["annotations"][names.ANNOTATION_ACCESS_REVISION] for one in pods} == {wanted}
    assert sum("pods" in one for one in written) == 2, "each gateway pod is touched once"
    assert sum("networkpolicies" in one for one in written) == 1
    assert sum("secrets" in one for one in written) == 1
    world.lab.nodes.sync(0.5)


async def test_new_gateway_pods_are_not_touched(world: World, name: str) -> None:
    world.lab.nodes.sync(LAZY)
    await world.apply(name, {**INSIDE})
    await world.until(name, "NetworkProtected")
    assert not any(
        names.ANNOTATION_ACCESS_REVISION in (pod["metadata"].get("annotations") or {})
        for pod in await world.pods(name, "gateway")
    )
    world.lab.nodes.sync(0.5)


async def test_keys_are_added_rotated_and_revoked_in_the_spec_or_in_the_secret(
    world: World, name: str
) -> None:
    await world.apply(name, {**INSIDE, "access": {"apiKeys": [{"name": "alice"}, {"name": "bob"}]}})
    await world.until(name, "NetworkProtected")
    first, before = await world.values(f"{name}-api-keys"), await world.access_revision(name)
    assert set(first) == {"alice", "bob"}

    async def changed() -> bool:
        return await world.access_revision(name) != before

    # Overlap: the old key stays beside the new one.
    own = "a-key-of-ones-own-0123456789"
    await put_keys(world, name, {"alice": f"{own}\n{first['alice']}"})
    await world.eventually(changed, what="the overlap")
    await world.until(name, "NetworkProtected")
    served = (await world.values(f"{name}-gateway"))["rds-internal-api.json"]
    assert all(key in served for key in (own, first["alice"], first["bob"]))
    # The old one goes.
    await put_keys(world, name, {"alice": own})
    await world.eventually(lambda: _absent(world, name, first["alice"]), what="the end of the old key")
    # An entry that is removed from the Secret is made anew; one that the spec drops is gone.
    await put_keys(world, name, {"bob": None})
    await world.eventually(lambda: _absent(world, name, first["bob"]), what="the end of bob's first key")
    assert (await world.values(f"{name}-api-keys"))["bob"] not in ("", first["bob"])
    await world.edit(name, {"access": {"apiKeys": [{"name": "bob"}]}})
    await world.eventually(lambda: _absent(world, name, own), what="the end of alice")
    assert set(await world.values(f"{name}-api-keys")) == {"bob"}
    await world.until(name, "NetworkProtected")


async def _absent(world: World, name: str, key: str) -> bool:
    return key not in (await world.values(f"{name}-gateway"))["rds-internal-api.json"]


async def test_a_key_that_is_none_is_told_without_showing_it(world: World, name: str) -> None:
    await world.apply(name, {**INSIDE})
    await world.until(name, "NetworkProtected")
    await put_keys(world, name, {"default": "too-short"})
    told = await world.until(name, "SpecValid", "False", reason="KeyUnusable")
    assert f"Secret {name}-api-keys, entry default" in told["message"]
    assert "too-short" not in told["message"]
    await put_keys(world, name, {"default": None})
    await world.until(name, "SpecValid")


async def test_without_tls_and_open_to_everybody_is_said_at_every_look(world: World, name: str) -> None:
    everybody = [{"cidr": "0.0.0.0/0", "description": "a public demonstration"}]
    await world.apply(name, {**INSIDE, "access": {"tls": {"mode": "Disabled"}, "allowlist": everybody}})
    told = await world.until(name, "SpecValid")
    assert "TLS is disabled" in told["message"]
    assert "every address (0.0.0.0/0)" in told["message"]


async def test_the_authority_can_be_read_without_any_key(world: World, name: str) -> None:
    await world.apply(name, {**INSIDE})
    await world.until(name, "NetworkProtected")
    shown = (await world.sandbox(name))["status"]["endpoints"]["caSecretName"]
    secret = await world.api.get(kinds.SECRET, world.namespace, shown)
    assert set(secret["data"]) == {"ca.crt"}


async def test_cert_manager_is_found_when_it_comes_and_asked_for_the_certificate(
    world: World, name: str
) -> None:
    tls = {"mode": "CertManager", "issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"}}
    try:
        await world.apply(name, {**INSIDE, "access": {"tls": tls, "hostnames": ["ai.example.com"]}})
        told = await world.until(name, "SpecValid", "False", reason="CertManagerMissing")
        assert "Install cert-manager" in told["message"]
        await cert_manager.install(world.api)
        told = await world.until(name, "SpecValid", "False", reason="CertificatePending", timeout=45)
        live = await world.api.get(kinds.CERTIFICATE, world.namespace, f"{name}-gateway")
        assert live["spec"]["dnsNames"] == ["ai.example.com"]
        assert not [p for p in await world.pods(name, "gateway") if p["status"]["phase"] == "Running"], (
            "without a certificate nothing serves"
        )
        await cert_manager.say(world.api, live, "False", "the order is pending")
        await world.eventually(lambda: _pending(world, name), what="cert-manager's own words")
        await cert_manager.issue(world.api, live)
        await world.until(name, "SpecValid")
        await world.until(name, "NetworkProtected")
        mark = len(world.proxy.journal)
        await world.quiet(2.0)
        assert [str(one) for one in world.proxy.attempts(mark) if "status" not in str(one)] == []
        await world.edit(name, {"access": {"tls": {"mode": "SelfSigned", "issuerRef": None}}})

        async def withdrawn() -> bool:
            return await world.get(kinds.CERTIFICATE, f"{name}-gateway") is None

        await world.eventually(withdrawn, what="the end of the Certificate")
        await world.until(name, "NetworkProtected")
    finally:
        await cert_manager.uninstall(world.api)


async def _pending(world: World, name: str) -> bool:
    return "the order is pending" in (await world.condition(name, "SpecValid"))["message"]
