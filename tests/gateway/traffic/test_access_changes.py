"""Keys and allowlist change under traffic: nobody who is admitted notices, nobody else gets through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ai_sandbox_operator.desired import facts
from gateway.cases import KEY, OFFICE, OTHER_KEY, STRANGER, Spec, sandbox, with_access
from gateway.traffic.certificates import trusting
from gateway.traffic.conftest import ENCRYPTED, Opening, Site, keys
from gateway.traffic.fleet import Caller, Fleet, Outcome
from gateway.traffic.held import Holding
from gateway.traffic.running import SWAP_SECONDS, edited

#: Seconds of traffic between two changes.
DWELL = 0.7
OLD, NEW = "key-" + "1" * 40, "key-" + "2" * 40


def encrypted(**access: object) -> Spec:
    return with_access(**{"tls": {"mode": "SelfSigned"}, **access})


@contextlib.asynccontextmanager
async def traffic(one: Site, fleet: Fleet, key: str, *, at_least: int = 200) -> AsyncIterator[None]:
    """Streams over HTTP/1.1 and HTTP/2, WebSockets, and the fleet; all judged at the end."""
    gateway, tls = one.gateway, trusting(one.authority)
    api = Caller(gateway.port("external_api"), OFFICE, key, tls)
    chat = Caller(gateway.port("external_chat"), OFFICE, tls=tls)
    h2 = Caller(gateway.port("external_api"), OFFICE, key, trusting(one.authority, protocol="h2"))
    holding = Holding()
    holding.stream("stream", api)
    holding.stream("inner stream", Caller(gateway.port("internal_api"), None, key, tls))
    holding.http2("HTTP/2 stream", h2)
    holding.socket("socket", chat)
    async with holding, fleet:
        await asyncio.sleep(DWELL)
        yield
        await asyncio.sleep(DWELL)
    fleet.check(one.upstream.seen, at_least=at_least)
    assert gateway.counter("listener_manager.listener_(modified|removed)") == 0


async def change(
    one: Site, fleet: Fleet, spec: Spec, known: facts.Facts, then: Mapping[str, Outcome]
) -> None:
    """A change after which these groups have another outcome."""
    for name, outcome in then.items():
        fleet.allow(name, outcome)
    seconds = await one.gateway.apply(sandbox(spec), known)
    print(f"served after {seconds * 1000:.0f} ms")
    await asyncio.sleep(SWAP_SECONDS)
    for name, outcome in then.items():
        fleet.expect(name, outcome)
    await asyncio.sleep(DWELL)


async def test_a_key_is_rotated_with_an_overlap_and_then_revoked(site: Opening) -> None:
    both = encrypted(apiKeys=[{"name": "old"}, {"name": "new"}])
    known = keys(old=OLD, new=NEW, other=KEY)
    first = encrypted(apiKeys=[{"name": "old"}, {"name": "other"}])
    async with site(first, known) as one:
        outer, inner = one.gateway.port("external_api"), one.gateway.port("internal_api")
        tls = trusting(one.authority)
        fleet = Fleet()
        fleet.add("old", Caller(outer, OFFICE, OLD, tls), 200)
        fleet.add("old, fresh", Caller(outer, OFFICE, OLD, tls, fresh=True), 200)
        fleet.add("old, inside", Caller(inner, None, OLD, tls), 200)
        fleet.add("new", Caller(outer, OFFICE, NEW, tls), 401)
        fleet.add("new, inside", Caller(inner, None, NEW, tls), 401)
        fleet.add("other", Caller(outer, OFFICE, KEY, tls), 200)
        fleet.add("never", Caller(outer, OFFICE, OTHER_KEY, tls), 401)
        fleet.add("outside", Caller(outer, STRANGER, OLD, tls), 403)
        olds, news = ("old", "old, fresh", "old, inside"), ("new", "new, inside")
        all_three = encrypted(apiKeys=[{"name": "old"}, {"name": "new"}, {"name": "other"}])
        async with traffic(one, fleet, KEY):
            await change(one, fleet, all_three, known, dict.fromkeys(news, 200))
            rotated = encrypted(apiKeys=[{"name": "new"}, {"name": "other"}])
            await change(one, fleet, rotated, known, dict.fromkeys(olds, 401))
            # The value under one name is replaced without an overlap.
            replaced = keys(new=OLD, other=KEY)
            await change(
                one, fleet, rotated, replaced, {**dict.fromkeys(olds, 200), **dict.fromkeys(news, 401)}
            )
            # The last change revokes the key under which the streams were begun.
            await change(one, fleet, both, keys(), {**dict.fromkeys(olds, 401), "other": 401})


def office_and_stranger(one: Site) -> Fleet:
    outer, chat = one.gateway.port("external_api"), one.gateway.port("external_chat")
    tls = trusting(one.authority)
    fleet = Fleet()
    fleet.add("office", Caller(outer, OFFICE, KEY, tls), 200)
    fleet.add("office, fresh", Caller(outer, OFFICE, KEY, tls, fresh=True), 200)
    fleet.add("office, chat", Caller(chat, OFFICE, tls=tls, path="/api/models"), 200)
    fleet.add("stranger", Caller(outer, STRANGER, KEY, tls), 403)
    return fleet


async def test_the_allowlist_is_widened_and_narrowed(site: Opening) -> None:
    async with site() as one:
        outer, chat = one.gateway.port("external_api"), one.gateway.port("external_chat")
        tls = trusting(one.authority)
        fleet = office_and_stranger(one)
        fleet.add("stranger, fresh", Caller(outer, STRANGER, KEY, tls, fresh=True), 403)
        fleet.add("stranger, chat", Caller(chat, STRANGER, tls=tls, path="/api/models"), 403)
        fleet.add("inside", Caller(one.gateway.port("internal_api"), None, KEY, tls), 200)
        office, local, stranger = (
            {"cidr": "203.0.113.0/24"},
            {"cidr": "127.0.0.1/32"},
            {"cidr": f"{STRANGER}/32"},
        )
        known = keys(alice=KEY)
        offices = ("office", "office, fresh", "office, chat")
        strangers = ("stranger", "stranger, fresh", "stranger, chat")

        async def to(allowlist: list[dict[str, str]], then: dict[str, Outcome]) -> None:
            await change(one, fleet, encrypted(allowlist=allowlist), known, then)

        async with traffic(one, fleet, KEY):
            await to([office, local, stranger], dict.fromkeys(strangers, 200))
            await to([office, local], dict.fromkeys(strangers, 403))
            await to([local, stranger], {**dict.fromkeys(offices, 403), **dict.fromkeys(strangers, 200)})
            await to([local], dict.fromkeys(strangers, 403))
            await to([], {"inside": 403})
            await to([office, local], {**dict.fromkeys(offices, 200), "inside": 200})


async def test_of_many_edits_in_quick_succession_the_last_one_holds(site: Opening) -> None:
    async with site() as one:
        outer = one.gateway.port("external_api")
        tls = trusting(one.authority)
        fleet = Fleet()
        fleet.add("office", Caller(outer, OFFICE, KEY, tls), 200, count=4)
        fleet.add("stranger", Caller(outer, STRANGER, KEY, tls), 403, count=4)
        open_to_both = encrypted(allowlist=[{"cidr": "203.0.113.0/24"}, {"cidr": f"{STRANGER}/32"}])
        known = keys(alice=KEY)
        async with traffic(one, fleet, KEY):
            fleet.allow("stranger", 200, 403)
            for number in range(30):
                spec = open_to_both if number % 2 else ENCRYPTED
                await asyncio.to_thread(one.gateway.write, sandbox(spec), known)
                await asyncio.sleep(0.005 * (number % 5))
            await change(one, fleet, ENCRYPTED, known, {"stranger": 403})
            rejected = one.gateway.counter("update_rejected")
        assert rejected == 0
        assert fleet.outcomes()["stranger"][200] > 0


async def test_an_invalid_update_is_rejected_and_the_old_one_stays(site: Opening) -> None:
    async with site() as one:
        fleet = office_and_stranger(one)
        outer, tls = one.gateway.port("external_api"), trusting(one.authority)
        fleet.add("without key", Caller(outer, OFFICE, None, tls), 401)
        wider = encrypted(allowlist=[{"cidr": "0.0.0.0/0"}])
        damages = {
            "not JSON": {"rds-external-api.json": lambda text: text[:-20]},
            "a resource of another name": {"rds-external-api.json": edited(_renamed)},
            "a route without a cluster": {"rds-external-api.json": edited(_unknown_cluster)},
            "no such regular expression": {"rds-external-api.json": edited(_bad_expression)},
            "a listener without an address": {"lds.json": edited(_no_address)},
            "a cluster with an impossible time": {"cds.json": edited(_bad_cluster)},
        }
        async with traffic(one, fleet, KEY):
            for what, edits in damages.items():
                before = one.gateway.counter("update_(rejected|failure)")
                # Only the damaged file differs: everything beside it is what is already served.
                damaged = wider if "rds-external-api.json" in edits else ENCRYPTED
                await asyncio.to_thread(one.gateway.damage, sandbox(damaged), keys(alice=KEY), edits)
                await asyncio.sleep(0.4)
                assert one.gateway.counter("update_(rejected|failure)") > before, what
            assert not one.gateway.serving("edited", "external_api")
            # A valid one is taken afterwards.
            await change(one, fleet, wider, keys(alice=KEY), {"stranger": 200})


def _renamed(resource: dict[str, Any]) -> None:
    resource["name"] = "unknown"


def _unknown_cluster(resource: dict[str, Any]) -> None:
    routes = resource["virtual_hosts"][0]["routes"]
    next(route["route"] for route in routes if "route" in route)["cluster"] = ""


def _bad_expression(resource: dict[str, Any]) -> None:
    resource["virtual_hosts"][0]["routes"][0]["match"]["safe_regex"]["regex"] = "("


def _no_address(resource: dict[str, Any]) -> None:
    resource.pop("address")


def _bad_cluster(resource: dict[str, Any]) -> None:
    resource["connect_timeout"] = "-1s"
