"""Each fault, and above all whether the effect happened."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from lab.linode import Fault, LinodeSimulator, faults
from lab.linode.state import CLOSED

POST = ("POST", "/networking/firewalls", {"label": "one", "rules": CLOSED})


async def outcome(call: Any) -> Any:
    """Status, or the client's error."""
    try:
        return (await call).status
    except aiohttp.ClientError as error:
        return type(error)


STRIKES: list[tuple[Fault, Any, bool]] = [
    (faults.busy(), 400, False),
    (faults.unavailable(times=1), 503, False),
    (faults.throttled(7), 429, False),
    (faults.gateway_timeout("POST", "/networking/firewalls"), 504, True),
    (faults.reset("POST", "/networking/firewalls"), aiohttp.ClientError, False),
    (faults.lost_reply("POST", "/networking/firewalls"), aiohttp.ClientError, True),
    (faults.slow(0.02, times=1), 200, True),
]


@pytest.mark.parametrize(
    ("fault", "wanted", "effect"), STRIKES, ids=["busy", "503", "429", "504", "reset", "lost", "slow"]
)
async def test_strikes(sim: LinodeSimulator, api: Any, fault: Fault, wanted: Any, effect: bool) -> None:
    sim.faults.add(Fault(**{**fault.render(), "struck": 0}))
    found = await outcome(api(*POST))
    assert found == wanted or issubclass(found, wanted)
    assert bool(sim.state.firewalls) == effect
    entry = sim.journal.entries[-1]
    assert (entry.wrote, entry.fault) == (effect, fault.kind)
    assert entry.status == (wanted if isinstance(wanted, int) else None)


async def test_a_lost_reply_is_a_reset_and_a_repetition_fails(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(faults.lost_reply("POST", "/networking/firewalls"))
    with pytest.raises(aiohttp.ClientError):
        await api(*POST)
    again = await api(*POST)
    assert again.reason == "Label must be unique among your Cloud Firewalls"


async def test_headers_of_refusals(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(faults.maintenance(times=1))
    sim.faults.add(faults.throttled(7))
    sim.faults.add(faults.unavailable(times=1, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))
    down, slow, date = [await api("GET", "/profile") for _ in range(3)]
    assert (down.status, down.headers["X-Maintenance-Mode"]) == (503, "Whole system maintenance")
    assert slow.headers["Retry-After"] == "7"
    assert date.headers["Retry-After"] == "Wed, 21 Oct 2026 07:28:00 GMT"
    assert (await api("GET", "/profile")).status == 200


async def test_a_proxys_page(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(Fault(status=502, body="<html>Bad Gateway</html>"))
    async with api.session.get(f"{sim.url}/regions") as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")


async def test_hang_until_the_client_gives_up(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(faults.hang("POST", "/networking/firewalls", after_effect=True))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await api(*POST)
    assert time.monotonic() - started < 1
    assert sim.journal.entries[0].status is None, "seen although never answered"
    assert len(sim.state.firewalls) == 1


async def test_slow_nodebalancer_exists_before_its_reply(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(faults.slow_nodebalancer(0.1))
    creation = asyncio.create_task(api("POST", "/nodebalancers", {"region": "us-ord"}))
    await asyncio.sleep(0.05)
    assert len(sim.state.nodebalancers) == 1
    assert not creation.done()
    assert (await creation).status == 200


async def test_token_expires_in_mid_run(sim: LinodeSimulator, api: Any) -> None:
    sim.faults.add(faults.token_expires("operator", skip=2))
    statuses = [(await api("GET", "/profile", token="operator-token")).status for _ in range(4)]
    assert statuses == [200, 200, 401, 401]


MATCHES: list[tuple[dict[str, Any], str, str, bool]] = [
    ({"path": "/networking/firewalls/{firewallId}"}, "GET", "/networking/firewalls/101", True),
    ({"path": "/networking/firewalls/{firewallId}"}, "GET", "/networking/firewalls/101/rules", False),
    ({"path": "/networking/firewalls/*"}, "GET", "/networking/firewalls/101/rules", True),
    ({"path": "/networking/firewalls"}, "GET", "/networking/firewalls/101", False),
    ({"method": "PUT"}, "GET", "/profile", False),
    ({"token": "ccm"}, "GET", "/profile", False),
    ({"token": "admin"}, "GET", "/profile", True),
]


@pytest.mark.parametrize(("fields", "method", "path", "strikes"), MATCHES)
async def test_matching(
    sim: LinodeSimulator, api: Any, fields: dict[str, Any], method: str, path: str, strikes: bool
) -> None:
    sim.state.create_firewall("one")
    sim.faults.add(Fault(status=503, **fields))
    assert ((await api(method, path)).status == 503) == strikes


async def test_counts(sim: LinodeSimulator, api: Any) -> None:
    fault = sim.faults.add(Fault(status=503, skip=1, times=2))
    assert [(await api("GET", "/profile")).status for _ in range(4)] == [200, 503, 503, 200]
    assert fault.struck == 2
    sim.faults.add(faults.unavailable())
    assert (await api("GET", "/profile")).status == 503
    sim.faults.clear()
    assert (await api("GET", "/profile")).status == 200
