"""Certificate, chat, sockets of removed addresses and idle connections, all under traffic."""

from __future__ import annotations

import asyncio
import collections
import time

from gateway.cases import KEY, OFFICE, SPEC, STRANGER, Spec, sandbox, with_access
from gateway.traffic.certificates import Authority, trusting
from gateway.traffic.conftest import ENCRYPTED, Opening, Site, keys
from gateway.traffic.connection import Connection
from gateway.traffic.fleet import BROKEN, REFUSED, UNTRUSTED, Caller, Fleet
from gateway.traffic.held import SOCKET_PATH, Holding
from gateway.traffic.running import SWAP_SECONDS, until

DWELL = 0.7


async def renewed(one: Site, authority: Authority) -> None:
    """Renew the certificate and wait until every listener counts it."""
    pattern = "listener.*ssl_context_update_by_sds"
    before = await asyncio.to_thread(one.gateway.counter, pattern)
    authority.renew(one.gateway.tls)
    await until(lambda: one.gateway.counter(pattern) >= before + 4)
    await asyncio.sleep(SWAP_SECONDS)


async def test_a_renewed_certificate_breaks_nothing_that_trusts_its_authority(site: Opening) -> None:
    second = Authority("second")
    async with site() as one:
        outer, inner = one.gateway.port("external_api"), one.gateway.port("internal_api")
        old, new, both = trusting(one.authority), trusting(second), trusting(one.authority, second)
        fleet = Fleet()
        fleet.add("kept alive", Caller(outer, OFFICE, KEY, old), 200)
        fleet.add("both", Caller(outer, OFFICE, KEY, both, fresh=True), 200)
        fleet.add("both, inside", Caller(inner, None, KEY, both, fresh=True), 200)
        fleet.add("old", Caller(outer, OFFICE, KEY, old, fresh=True), 200)
        fleet.add("new", Caller(outer, OFFICE, KEY, new, fresh=True), UNTRUSTED)
        holding = Holding()
        holding.stream("stream", Caller(outer, OFFICE, KEY, old))
        holding.http2("HTTP/2", Caller(outer, OFFICE, KEY, trusting(one.authority, protocol="h2")))
        holding.socket("socket", Caller(one.gateway.port("external_chat"), OFFICE, None, old))
        async with holding, fleet:
            await asyncio.sleep(DWELL)
            for _ in range(2):
                await renewed(one, one.authority)
                await asyncio.sleep(DWELL)
            fleet.allow("old", UNTRUSTED)
            fleet.allow("new", 200)
            await renewed(one, second)
            fleet.expect("old", UNTRUSTED)
            fleet.expect("new", 200)
            await asyncio.sleep(DWELL)
        fleet.check(one.upstream.seen, at_least=200)
        assert one.gateway.counter("listener_manager.listener_(modified|removed)") == 0


async def test_the_chat_is_removed_and_added_without_a_trace_on_the_api(site: Opening) -> None:
    without: Spec = {**ENCRYPTED, "chat": {"enabled": False}}
    known = keys(alice=KEY)
    async with site() as one:
        tls = trusting(one.authority)
        api = Caller(one.gateway.port("external_api"), OFFICE, KEY, tls)
        inside = Caller(one.gateway.port("internal_api"), None, KEY, tls)
        chat = one.gateway.port("external_chat")
        fleet = Fleet()
        fleet.add("api", api, 200)
        fleet.add("api, fresh", Caller(api.port, OFFICE, KEY, tls, fresh=True), 200)
        fleet.add("api, inside", inside, 200)
        fleet.add("chat", Caller(chat, OFFICE, None, tls, fresh=True, path="/api/models"), 200)
        holding = Holding()
        holding.stream("stream", api)
        holding.stream("inner stream", inside)
        holding.http2("HTTP/2", Caller(api.port, OFFICE, KEY, trusting(one.authority, protocol="h2")))
        async with holding, fleet:
            for _ in range(2):
                await asyncio.sleep(DWELL)
                # Routes (403), upstream (503) and listener go at the same moment, in any order.
                fleet.allow("chat", 403, 503, REFUSED, BROKEN)
                await one.gateway.apply(sandbox(without), known)
                await until(lambda: "chat" not in one.gateway.admin("/listeners"))
                await asyncio.sleep(SWAP_SECONDS)
                fleet.expect("chat", REFUSED)
                await asyncio.sleep(DWELL)
                fleet.allow("chat", 200, 403, 503, BROKEN)
                await one.gateway.apply(sandbox(ENCRYPTED), known)
                await asyncio.sleep(SWAP_SECONDS)
                fleet.expect("chat", 200)
            await asyncio.sleep(DWELL)
        fleet.check(one.upstream.seen, at_least=200)


async def test_a_socket_of_a_removed_address_ends_at_the_longest_duration_of_sockets(site: Opening) -> None:
    seconds = 3.0
    shrunk = {'"max_stream_duration": "3600s"': f'"max_stream_duration": "{seconds:.0f}s"'}
    async with site(replacements=shrunk) as one:
        tls = trusting(one.authority)
        port = one.gateway.port("external_chat")
        began = time.monotonic()
        removed = await Connection.open(port(), source=OFFICE, tls=tls)
        kept = await Connection.open(port(), source=STRANGER, tls=tls)
        try:
            assert (await removed.upgrade(SOCKET_PATH)).status == 101
            assert (await kept.upgrade(SOCKET_PATH)).status == 403
            kept.close()
            spec = with_access(tls={"mode": "SelfSigned"}, allowlist=[{"cidr": f"{STRANGER}/32"}])
            await one.gateway.apply(sandbox(spec), keys(alice=KEY))
            # The socket was admitted when it was opened, and is not judged again.
            assert await removed.echo("still here") == "still here"
            assert time.monotonic() - began < seconds
            async with asyncio.timeout(seconds + 5):
                await removed.ended()
            # One second is Envoy's patience with a client that does not close by itself.
            assert seconds - 0.1 < time.monotonic() - began < seconds + 2
            again = await Connection.open(port(), source=OFFICE, tls=tls)
            assert (await again.upgrade(SOCKET_PATH)).status == 403
            again.close()
        finally:
            removed.close()
            kept.close()


async def test_requests_never_meet_an_upstream_connection_that_is_just_being_closed(site: Opening) -> None:
    """The engine closes idle connections; the gateway must have let go of them before."""
    # The times of gateway and engine, 4 s and 5 s, at a tenth. A closing engine is 50 ms away, or the
    # moment would be too short to be met.
    shrunk = {'"idle_timeout": "4s"': '"idle_timeout": "0.4s"'}
    async with site(SPEC, replacements=shrunk, keep_alive=0.5, distance=0.05) as one:
        port = one.gateway.ports["external_api"]
        clients = [await Connection.open(port, source=OFFICE) for _ in range(30)]

        async def ask(client: Connection) -> int:
            head = await client.send("POST", "/v1/completions?silence=0.02", {"x-api-key": KEY}, b"{}")
            await client.body(head)
            return head.status

        try:
            statuses: list[int] = []
            # After each burst as many connections are idle, for as long as the pause.
            for pause in (0.36, 0.39, 0.4, 0.42, 0.46, 0.49, 0.5, 0.51, 0.52, 0.53, 0.54, 0.56):
                statuses += await asyncio.gather(*(ask(client) for client in clients))
                await asyncio.sleep(pause)
        finally:
            for client in clients:
                client.close()
        assert collections.Counter(statuses) == {200: 360}
