"""Both gateway pods are replaced under traffic, one after the other, as a rolling update does it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import ssl
import time
from collections.abc import AsyncIterator

import pytest

from ai_sandbox_operator.desired import gateway
from gateway.cases import KEY, KNOWN, OFFICE, sandbox
from gateway.traffic.certificates import Authority, trusting
from gateway.traffic.conftest import ENCRYPTED
from gateway.traffic.fleet import Caller, Fleet
from gateway.traffic.relay import Relay
from gateway.traffic.running import Running
from gateway.traffic.upstream import Upstream
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

#: Seconds of the hook in which traffic still comes, and how long the way to the gateway needs to learn.
LEAVE, LEARN = 1.5, 1.0


def script(one: Running) -> str:
    """The hook as rendered, with its waiting at a tenth."""
    text = gateway.DRAIN
    shorter = {
        "/9901": f"/{one.admin_port}",
        "sleep 15\n": f"sleep {LEAVE}\n",
        "sleep 1\n": "sleep 0.1\n",
    }
    for old, new in shorter.items():
        assert old in text
        text = text.replace(old, new)
    return text


async def replace(relay: Relay, old: Running, new: Running) -> float:
    """Surge, then drain: what Kubernetes does with one pod. Returns the seconds that the drain took."""
    await asyncio.to_thread(new.start)
    relay.backends = [*relay.backends, new.ports["external_api"]]
    await asyncio.sleep(0.5)

    async def leave() -> float:
        began = time.monotonic()
        hook = await asyncio.create_subprocess_exec("bash", "-c", script(old))
        assert await hook.wait() == 0
        await asyncio.to_thread(old.stop)
        return time.monotonic() - began

    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(leave())
        await asyncio.sleep(LEARN)
        relay.backends = [port for port in relay.backends if port != old.ports["external_api"]]
    return leaving.result()


@dataclasses.dataclass(frozen=True)
class Scene:
    """Gateways, of which `running` are behind the relay at first."""

    gateways: list[Running]
    relay: Relay
    upstream: Upstream
    tls: ssl.SSLContext

    def caller(self, *, path: str = "/v1/completions", pause: float = 0.02, fresh: bool = False) -> Caller:
        return Caller(lambda: self.relay.port, None, KEY, self.tls, fresh=fresh, path=path, pause=pause)


@contextlib.asynccontextmanager
async def scene(directory: pathlib.Path, *, running: int, count: int) -> AsyncIterator[Scene]:
    authority = Authority("first")
    async with Upstream() as upstream:
        gateways = [Running(directory / str(number), upstream) for number in range(count)]
        for one in gateways:
            authority.renew(one.tls)
            one.write(sandbox(ENCRYPTED), KNOWN)
        try:
            for one in gateways[:running]:
                one.start()
            ports = [one.ports["external_api"] for one in gateways[:running]]
            async with Relay(ports, source=OFFICE) as relay:
                yield Scene(gateways, relay, upstream, trusting(authority))
        finally:
            for one in gateways:
                one.stop()


async def test_a_rolling_restart_of_both_gateways_fails_no_request(tmp_path: pathlib.Path) -> None:
    async with scene(tmp_path, running=2, count=4) as one:
        first, second, third, fourth = one.gateways
        fleet = Fleet()
        fleet.add("kept alive", one.caller(), 200, count=6)
        fleet.add("fresh", one.caller(fresh=True), 200, count=4)
        fleet.add("now and then", one.caller(pause=0.5), 200, count=6)
        fleet.add("slow", one.caller(path="/v1/completions?silence=0.4"), 200, count=6)
        fleet.add("streams", one.caller(path="/v1/completions?events=10&pause=0.15"), 200, count=6)
        async with fleet:
            await asyncio.sleep(0.5)
            drains = [await replace(one.relay, first, third), await replace(one.relay, second, fourth)]
            await asyncio.sleep(0.5)
        print(f"drained in {drains} s; connections by gateway {list(one.relay.served.values())}")
        fleet.check(one.upstream.seen, at_least=200)
        assert len(one.relay.served) == 4


async def test_a_gateway_without_requests_still_waits_until_nobody_is_sent_to_it(
    tmp_path: pathlib.Path,
) -> None:
    async with scene(tmp_path, running=1, count=2) as one:
        fleet = Fleet()
        fleet.add("now and then", one.caller(fresh=True, pause=0.1), 200, count=2)
        async with fleet:
            await asyncio.sleep(0.2)
            drain = await replace(one.relay, *one.gateways)
            await asyncio.sleep(0.2)
        fleet.check(one.upstream.seen, at_least=30)
        assert LEAVE <= drain < LEAVE + 1.5
