"""From an edit of the sandbox to what a client gets: the operator, the API server and real Envoys.

The test plays the NodeBalancer: it reaches the gateway's pods at their own addresses with a PROXY header.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.observed import served
from lab.cluster.lab import Lab
from lab.envoy import process
from lab.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(process.binary() is None, reason="envoy is not installed"),
]
NAME = "demo"
OFFICE, HOME, STRANGER = "203.0.113.9", "198.51.100.7", "192.0.2.99"
ALLOWLIST = [{"cidr": "203.0.113.0/24"}, {"cidr": "198.51.100.7/32", "to": ["API"]}]
SPEC: dict[str, Any] = {
    "access": {
        "exposure": "NodeBalancer",
        "allowlist": ALLOWLIST,
        "apiKeys": [{"name": "alice"}, {"name": "bob"}],
    }
}
#: Every key of a user that a test has met.
SEEN: set[str] = set()
FLAGS = ["--nodebalancer-range", "127.0.0.1/32", "--linode-check-interval", "2"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(envoy=True) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(lab, tmp_path_factory.mktemp("gateways"), operator={"flags": FLAGS}) as made:
        await made.operator.start()
        await made.apply(NAME, SPEC)
        await made.until(NAME, "Ready", timeout=90)
        yield made
        assert made.linode.violations == []


class Site:
    """The gateway as clients meet it."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def addresses(self) -> list[str]:
        pods = await self.world.pods(NAME, "gateway")
        living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return [self.world.lab.loopback(pod["status"]["podIP"]) for pod in living]

    async def secret(self, name: str) -> dict[str, str]:
        values = await self.world.values(name)
        if name == f"{NAME}-api-keys":
            SEEN.update(key for entry in values.values() for key in entry.split())
        return values

    async def put_keys(self, data: dict[str, Any]) -> None:
        name = f"{NAME}-api-keys"
        await self.world.api.merge_patch(kinds.SECRET, self.world.namespace, name, data)

    async def trust(self) -> ssl.SSLContext:
        """A client that trusts what the status names, and nothing else."""
        shown = (await self.world.sandbox(NAME))["status"]["endpoints"]["caSecretName"]
        return ssl.create_default_context(cadata=(await self.secret(shown))["ca.crt"])

    async def ask(
        self, key: str | None, *, source: str = OFFICE, path: str = "/v1/models", target: str = "api"
    ) -> set[int]:
        """Status of the same request at every gateway pod."""
        tls, port = await self.trust(), {"api": 8443, "chat": 3443}[target]
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        def one(address: str) -> int:
            return process.request(
                port, path, headers=headers, source=source, tls=tls, address=address
            ).status

        return {await asyncio.to_thread(one, address) for address in await self.addresses()}

    async def put_key(self, name: str, text: str) -> None:
        """Write a value into the Secret of the API keys, as a user would."""
        data = {"data": {name: base64.b64encode(text.encode()).decode()}}
        await self.world.api.merge_patch(kinds.SECRET, self.world.namespace, f"{NAME}-api-keys", data)

    async def settled(self, change: Callable[[], Any]) -> float:
        """Make a change and wait until the operator says that it is in effect; the seconds it took."""
        revision = await self.world.access_revision(NAME)
        began = time.monotonic()
        await change()

        async def changed() -> bool:
            return await self.world.access_revision(NAME) != revision

        await self.world.eventually(changed, what="the new revision")
        await self.world.until(NAME, "NetworkProtected")
        return time.monotonic() - began


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


async def test_who_gets_in_with_what_and_to_where(site: Site) -> None:
    assert len(await site.addresses()) == 2
    key = (await site.secret(f"{NAME}-api-keys"))["alice"]
    assert await site.ask(key) == {200}
    assert await site.ask(key, source=HOME) == {200}
    assert await site.ask(None) == {401}
    assert await site.ask(key + "x") == {401}
    assert await site.ask(key, source=STRANGER) == {403}
    assert await site.ask(key, path="/invocations") == {404}
    assert await site.ask(None, target="chat", path="/") == {200}
    assert await site.ask(None, target="chat", path="/", source=HOME) == {403}


async def test_a_peer_that_is_no_nodebalancer_cannot_claim_an_address(site: Site) -> None:
    key, tls = (await site.secret(f"{NAME}-api-keys"))["alice"], await site.trust()
    for address in await site.addresses():
        answer = await asyncio.to_thread(
            process.request,
            8443,
            "/v1/models",
            headers={"Authorization": f"Bearer {key}"},
            source=OFFICE,
            peer="127.0.0.9",
            tls=tls,
            address=address,
        )
        assert answer.status == 403


async def test_the_engine_is_asked_with_its_own_key_and_never_with_a_clients(site: Site) -> None:
    key = (await site.secret(f"{NAME}-api-keys"))["alice"]
    await site.ask(key)
    seen = site.world.lab.nodes.upstream(site.world.namespace, NAME)
    engine = [one["headers"] for one in seen if one["component"] == "engine"]
    own = (await site.secret(f"{NAME}-engine-key"))["key"]
    assert {headers["authorization"] for headers in engine} == {f"Bearer {own}"}
    assert key not in str(seen)


async def test_a_revoked_key_ends_and_the_others_stay(site: Site) -> None:
    site.world.lab.nodes.sync(3600)
    keys = await site.secret(f"{NAME}-api-keys")
    edit = {"access": {"apiKeys": [{"name": "bob"}, {"name": "carol"}]}}
    assert await site.settled(lambda: site.world.edit(NAME, edit)) < 15
    assert await site.ask(keys["alice"]) == {401}
    assert await site.ask(keys["bob"]) == {200}
    assert await site.ask((await site.secret(f"{NAME}-api-keys"))["carol"]) == {200}
    site.world.lab.nodes.sync(0.5)


async def test_a_key_is_rotated_in_its_secret_with_an_overlap(site: Site) -> None:
    old, new = (await site.secret(f"{NAME}-api-keys"))["bob"], "bobs-own-key-0123456789abcdef"
    for text, expected in ((f"{new}\n{old}", {200}), (new, {401})):
        await site.settled(functools.partial(site.put_key, "bob", text))
        assert await site.ask(new) == {200}
        assert await site.ask(old) == expected


async def test_an_address_that_is_taken_off_the_list_is_refused_by_every_layer(site: Site) -> None:
    site.world.lab.nodes.sync(3600)
    key = (await site.secret(f"{NAME}-api-keys"))["bob"]
    edit = {"access": {"allowlist": [{"cidr": "198.51.100.7/32"}]}}
    await site.settled(lambda: site.world.edit(NAME, edit))
    assert await site.ask(key, source=OFFICE) == {403}
    assert await site.ask(key, source=HOME) == {200}
    assert await site.ask(None, source=HOME, target="chat", path="/") == {200}
    linode = (await site.world.sandbox(NAME))["status"]["linode"]
    snapshot = site.world.linode.state.snapshot()
    assert not snapshot.admits(linode["nodeBalancerID"], OFFICE, 8000)
    assert snapshot.admits(linode["nodeBalancerID"], HOME, 8000)
    site.world.lab.nodes.sync(0.5)


async def test_the_certificate_names_the_nodebalancer_and_a_renewed_one_is_served(site: Site) -> None:
    tls = await site.trust()
    address = (await site.addresses())[0]

    def served() -> dict[str, Any]:
        with process.connect(8443, prefix=process.proxy_header(HOME), tls=tls, address=address) as connection:
            return connection.getpeercert() or {}  # type: ignore[attr-defined]

    before = await asyncio.to_thread(served)
    service = await site.world.api.get(kinds.SERVICE, site.world.namespace, NAME)
    public = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    assert ("IP Address", public) in before["subjectAltName"]
    await site.world.edit(NAME, {"access": {"hostnames": ["ai.example.com"]}})

    async def renewed() -> bool:
        return ("DNS", "ai.example.com") in (await asyncio.to_thread(served))["subjectAltName"]

    await site.world.eventually(renewed, timeout=15, what="the new certificate")
    assert (await asyncio.to_thread(served))["serialNumber"] != before["serialNumber"]


async def test_a_gateway_pod_that_is_replaced_serves_the_same(site: Site) -> None:
    key = (await site.secret(f"{NAME}-api-keys"))["bob"]
    gone = (await site.world.pods(NAME, "gateway"))[0]["metadata"]
    await site.world.api.delete(kinds.POD, site.world.namespace, gone["name"], uid=gone["uid"])

    async def replaced() -> bool:
        now = await site.world.pods(NAME, "gateway")
        return len([pod for pod in now if served.ready(pod)]) == 2 and gone["uid"] not in [
            p["metadata"]["uid"] for p in now
        ]

    await site.world.eventually(replaced, what="the new pod")
    await site.world.until(NAME, "NetworkProtected")
    assert await site.ask(key, source=HOME) == {200}
    assert await site.ask(key, source=OFFICE) == {403}


async def test_no_log_of_a_gateway_shows_a_key_and_each_names_it(site: Site) -> None:
    engine = await site.secret(f"{NAME}-engine-key")
    logs = [path.read_text() for path in site.world.lab.plane.folder.glob("envoy/**/log")]
    assert len(logs) >= 2
    assert len(SEEN) >= 4
    for text in logs:
        assert not [value for value in (*SEEN, *engine.values()) if value in text]
    assert any('"key":"bob"' in text and f'"client":"{HOME}"' in text for text in logs)
