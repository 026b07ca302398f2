"""The client against the simulator: what it sends, what it repeats, and what it never repeats."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import traceback
from collections.abc import Callable

import pytest
from aiohttp import test_utils, web

from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode import errors, models, token
from lab.linode import LinodeSimulator, Token, faults

from . import conftest

RULES = models.FirewallRules(
    inbound=(
        models.Rule(
            action="ACCEPT",
            protocol="TCP",
            ports="8000",
            addresses=models.Addresses(ipv4=("203.0.113.0/24",)),
            label="allow-api-1",
        ),
    )
)


def asked(sim: LinodeSimulator, since: int = 0) -> list[str]:
    return [f"{entry.method} {entry.path}" for entry in sim.journal.since(since)]


async def test_the_life_of_a_firewall(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    made = await client.create_firewall(label="aisb-1", tags=["ai-sandbox"], rules=RULES)
    assert made.rules.inbound == RULES.inbound
    assert made.created is not None
    assert made.created.tzinfo is not None
    assert await client.get_firewall(made.id) == made
    assert (await client.update_firewall(made.id, status="disabled")).status == "disabled"
    assert (await client.update_firewall(made.id, tags=["b", "a"])).tags == ("a", "b")
    replaced = await client.replace_rules(made.id, models.FirewallRules())
    assert replaced.version == 2
    assert await client.get_rules(made.id) == replaced
    await client.delete_firewall(made.id)
    assert await client.get_firewall(made.id) is None
    await client.delete_firewall(made.id)  # gone is done


async def test_a_nodebalancer_and_its_firewall(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    one = sim.state.create_firewall("one-1", tags=["x"])
    two = sim.state.create_firewall("two-2")
    live = sim.state.create_nodebalancer("ccm-0123456789ab", tags=["aisb-uid-1"])
    found = await client.find_nodebalancers(ipv4=live.ipv4)
    assert [one.id for one in found] == [live.id]
    assert [one.id for one in await client.find_nodebalancers(tag="aisb-uid-1")] == [live.id]
    assert await client.find_nodebalancers(tag="aisb-uid-2") == []
    device = await client.attach_firewall(one.id, nodebalancer_id=live.id)
    assert device.entity.id == live.id
    assert [one.id for one in await client.firewall_devices(one.id)] == [device.id]
    assert [one.id for one in await client.set_nodebalancer_firewalls(live.id, [two.id])] == [two.id]
    assert [one.id for one in await client.nodebalancer_firewalls(live.id)] == [two.id]
    shown = await client.get_firewall(two.id)
    assert shown is not None
    assert shown.nodebalancer_ids == (live.id,)
    await client.delete_nodebalancer(live.id)
    assert await client.get_nodebalancer(live.id) is None
    await client.delete_nodebalancer(live.id)


async def test_a_search_needs_a_criterion(client: api.LinodeClient) -> None:
    with pytest.raises(ValueError, match="needed"):
        await client.find_nodebalancers()


async def test_lists_are_filtered_by_header_never_by_query(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    sim.state.create_firewall("mine-1", tags=["aisb-uid-1"])
    sim.state.create_firewall("other-1", tags=["mine-1"])
    assert [one.label for one in await client.list_firewalls(label="mine-1")] == ["mine-1"]
    assert [one.label for one in await client.list_firewalls(label="other-1", tag="aisb-uid-1")] == [
        "mine-1",
        "other-1",
    ]
    assert {entry.query for entry in sim.journal} == {"page=1&page_size=500"}
    assert [entry.filter for entry in sim.journal] == [
        '{"label": "mine-1"}',
        '{"+or": [{"label": "other-1"}, {"tags": "aisb-uid-1"}]}',
    ]


async def test_all_pages_are_read(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    for number in range(501):
        sim.state.create_firewall(f"fw-{number:04}")
    assert len(await client.list_firewalls()) == 501
    assert [entry.query for entry in sim.journal] == ["page=1&page_size=500", "page=2&page_size=500"]


async def test_a_list_that_shrinks_while_it_is_read_ends(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    for number in range(501):
        sim.state.create_firewall(f"fw-{number:04}")
    sim.faults.add(faults.Fault(status=404, reason="Not found", path="/networking/firewalls", skip=1))
    assert len(await client.list_firewalls()) == 500


async def test_the_profile_tells_scopes_and_grants(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    profile = await client.profile()
    assert not profile.restricted
    assert "firewall:read_write" in profile.scopes
    assert await client.grants() is None
    sim.state.restrict_user("sandbox", add={"add_firewalls"}, grants={})
    assert (await client.profile()).restricted
    grants = await client.grants()
    assert grants is not None
    assert grants.global_.add_firewalls


# Repeating

REPEATED: list[tuple[str, faults.Fault, list[float]]] = [
    ("status 502 once", faults.Fault(status=502, body="<html>Bad Gateway</html>"), [0.25]),
    ("status 503 twice", faults.unavailable(times=2), [0.25, 0.5]),
    ("busy once", faults.busy(), [0.25]),
    ("a short 429", faults.throttled(1), [1.0]),
]


@pytest.mark.parametrize(("sentence", "fault", "slept"), REPEATED, ids=[one[0] for one in REPEATED])
async def test_a_get_is_repeated_after(
    sentence: str,
    fault: faults.Fault,
    slept: list[float],
    sim: LinodeSimulator,
    client: api.LinodeClient,
    clock: conftest.Clock,
) -> None:
    made = sim.state.create_firewall("one-1")
    sim.faults.add(fault)
    assert (await client.get_firewall(made.id)) is not None
    assert clock.slept == pytest.approx(slept)


async def test_a_put_and_a_delete_are_repeated_when_the_reply_is_lost(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    made = sim.state.create_firewall("one-1")
    sim.faults.add(faults.gateway_timeout("PUT", "/networking/firewalls/*"))
    sim.faults.add(faults.lost_reply("DELETE", "/networking/firewalls/*"))
    assert (await client.update_firewall(made.id, tags=("x",))).tags == ("x",)
    await client.delete_firewall(made.id)
    assert sim.state.firewalls == {}


async def test_rules_are_never_sent_twice(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    """The allowlist may be narrower by the second time."""
    made = sim.state.create_firewall("one-1")
    sim.faults.add(faults.unavailable("/networking/firewalls/*/rules"))
    with pytest.raises(errors.Unavailable):
        await client.replace_rules(made.id, RULES)
    assert len(sim.journal) == 1


async def test_a_call_gives_up_after_three_tries(
    sim: LinodeSimulator, client: api.LinodeClient, clock: conftest.Clock
) -> None:
    sim.faults.add(faults.unavailable(times=None, retry_after="7"))
    with pytest.raises(errors.Unavailable, match=r"status 503.*tries again in 7 seconds") as caught:
        await client.get_firewall(1)
    assert caught.value.retry_after == 7
    assert len(sim.journal) == 3
    assert sum(clock.slept) < 5


async def test_no_repetition_starts_after_the_window(sim: LinodeSimulator, clock: conftest.Clock) -> None:
    sim.faults.add(faults.unavailable(times=None))

    def slow() -> float:
        clock.now += 1.5
        return clock.now

    slow_client = api.LinodeClient(
        sim.url, token_provider=lambda: conftest.TOKEN, clock=slow, wall=clock, sleep=clock.sleep
    )
    async with slow_client:
        with pytest.raises(errors.Unavailable):
            await slow_client.get_firewall(1)
    assert len(sim.journal) == 1


async def test_maintenance_is_not_repeated(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    sim.faults.add(faults.maintenance())
    with pytest.raises(errors.Unavailable, match=r"maintenance.*60 seconds"):
        await client.get_firewall(1)
    assert len(sim.journal) == 1


LOST: list[tuple[str, faults.Fault, int]] = [
    ("the reply is lost", faults.lost_reply("POST", "/networking/firewalls"), 1),
    ("the connection breaks before the effect", faults.reset("POST", "/networking/firewalls"), 0),
    ("a gateway gives up after the effect", faults.gateway_timeout("POST", "/networking/firewalls"), 1),
    ("the server fails", faults.Fault(status=500, method="POST"), 0),
    ("the server cannot answer", faults.Fault(status=503, method="POST"), 0),
    ("no answer in time", faults.hang("POST", "/networking/firewalls", after_effect=True), 1),
]


@pytest.mark.parametrize(("sentence", "fault", "firewalls"), LOST, ids=[one[0] for one in LOST])
async def test_hazard_9_a_creation_is_never_repeated_when(
    sentence: str, fault: faults.Fault, firewalls: int, sim: LinodeSimulator
) -> None:
    sim.faults.add(fault)
    policy = api.Policy(total=1.5 if fault.kind == "hang" else 10)
    async with api.LinodeClient(sim.url, token_provider=lambda: conftest.TOKEN, policy=policy) as client:
        with pytest.raises(errors.Ambiguous, match="looks before it tries again"):
            await client.create_firewall(label="one-1", tags=[], rules=RULES)
    assert asked(sim) == ["POST /networking/firewalls"], sentence
    assert len(sim.state.firewalls) == firewalls


REFUSED: list[tuple[str, faults.Fault, type[errors.LinodeError]]] = [
    ("busy", faults.busy(), errors.Busy),
    ("maintenance", faults.maintenance(times=1), errors.Unavailable),
    ("too many requests", faults.throttled(1), errors.RateLimited),
]


@pytest.mark.parametrize(("sentence", "fault", "kind"), REFUSED, ids=[one[0] for one in REFUSED])
async def test_a_refused_creation_is_not_ambiguous_and_not_repeated(
    sentence: str,
    fault: faults.Fault,
    kind: type[errors.LinodeError],
    sim: LinodeSimulator,
    client: api.LinodeClient,
) -> None:
    sim.faults.add(fault)
    with pytest.raises(kind):
        await client.create_firewall(label="one-1", tags=[], rules=RULES)
    assert asked(sim) == ["POST /networking/firewalls"]
    assert sim.state.firewalls == {}


async def test_a_creation_without_a_connection_is_not_ambiguous(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v4"
    async with api.LinodeClient(url, token_provider=lambda: conftest.TOKEN) as client:
        with pytest.raises(errors.Unavailable, match="cannot connect"):
            await client.create_firewall(label="one-1", tags=[], rules=RULES)


async def test_i9_a_hanging_api_costs_the_time_out_and_no_more(sim: LinodeSimulator) -> None:
    sim.faults.add(faults.hang(times=None))
    policy = api.Policy(total=0.2, window=0.1)
    async with api.LinodeClient(sim.url, token_provider=lambda: conftest.TOKEN, policy=policy) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.Unavailable, match="no answer in time"):
            await client.get_firewall(1)
        assert asyncio.get_running_loop().time() - began < 2


# Tokens


async def test_a_rotated_token_is_used_at_once(sim: LinodeSimulator, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "token"
    async with api.LinodeClient(sim.url, token_provider=token.from_file(path)) as client:
        with pytest.raises(errors.NoToken, match=r"there is none.*exposure ClusterIP"):
            await client.profile()
        path.write_text("operator-token\n")
        await client.profile()
        path.write_text("admin-token\n")
        await client.profile()
        path.write_text("\n")
        with pytest.raises(errors.NoToken):
            await client.profile()
    assert [entry.token for entry in sim.journal] == ["operator", "admin"]


async def test_a_401_is_tried_once_more_if_the_token_has_changed(sim: LinodeSimulator) -> None:
    given = iter(["revoked-token", "operator-token"])
    async with api.LinodeClient(sim.url, token_provider=lambda: next(given)) as client:
        await client.create_firewall(label="one-1", tags=[], rules=RULES)
    assert [entry.status for entry in sim.journal] == [401, 200]


async def test_a_401_with_the_same_token_is_final(sim: LinodeSimulator) -> None:
    async with api.LinodeClient(sim.url, token_provider=lambda: "revoked-token") as client:
        with pytest.raises(errors.Unauthorized, match="wrong, expired or revoked"):
            await client.profile()
    assert len(sim.journal) == 1


@pytest.mark.parametrize("text", ["two words", "line\nbreak-inside", "short", "ünicode-token", "x" * 513])
async def test_i6_what_is_no_token_is_refused_without_showing_it(text: str, sim: LinodeSimulator) -> None:
    async with api.LinodeClient(sim.url, token_provider=lambda: text) as client:
        with pytest.raises(errors.NoToken) as caught:
            await client.profile()
    assert text not in str(caught.value)
    assert len(sim.journal) == 0


async def test_a_missing_scope_is_named(sim: LinodeSimulator) -> None:
    made = sim.state.create_firewall("one-1")
    sim.state.add_token(Token("reader", "reader-token", scopes=("firewall:read_only",)))
    async with api.LinodeClient(sim.url, token_provider=lambda: "reader-token") as client:
        with pytest.raises(errors.Forbidden, match="lacks the scope firewall:read_write") as caught:
            await client.delete_firewall(made.id)
    assert caught.value.needed == ("firewall:read_write",)


async def test_a_missing_grant_is_told_apart_from_a_missing_scope(sim: LinodeSimulator) -> None:
    made = sim.state.create_firewall("one-1")
    sim.state.restrict_user("sandbox", add=set(), grants={"firewall": {made.id: "read_only"}})
    async with api.LinodeClient(sim.url, token_provider=lambda: conftest.TOKEN) as client:
        with pytest.raises(errors.Forbidden, match=r"lacks a grant.*read_write"):
            await client.update_firewall(made.id, status="disabled")


async def test_a_refusal_names_the_field(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    with pytest.raises(errors.Invalid) as caught:
        await client.create_firewall(label="a--b", tags=[], rules=RULES)
    assert caught.value.reasons[0].field == "label"
    assert "(field label)" in str(caught.value)


async def test_a_taken_label_is_recognised(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    sim.state.create_firewall("one-1")
    with pytest.raises(errors.Invalid) as caught:
        await client.create_firewall(label="one-1", tags=[], rules=RULES)
    assert api.is_duplicate_label(caught.value)


async def test_the_observer_sees_route_templates_only(
    sim: LinodeSimulator, client: api.LinodeClient, calls: list[api.Call]
) -> None:
    # aiohttp sends a request a second time by itself when its connection breaks: four resets, two attempts.
    sim.faults.add(faults.reset("GET", "/networking/firewalls/*", times=4))
    await client.get_firewall(12345)
    assert [(call.method, call.route, call.status) for call in calls] == [
        ("GET", "/networking/firewalls/{id}", 0),
        ("GET", "/networking/firewalls/{id}", 0),
        ("GET", "/networking/firewalls/{id}", 404),
    ]


FAILURES: list[tuple[str, Callable[[], faults.Fault]]] = [
    ("400 that echoes the token", lambda: faults.Fault(status=400, reason="bad operator-token here")),
    ("401", lambda: faults.Fault(status=401, reason="Invalid Token operator-token")),
    ("403", lambda: faults.Fault(status=403, reason="Unauthorized")),
    ("429", lambda: faults.throttled(60)),
    ("500", lambda: faults.Fault(status=500)),
    ("a reset", lambda: faults.reset("*", "*", times=None)),
    ("a hang", lambda: faults.hang("*", "*", times=None)),
    ("a redirect", lambda: faults.Fault(status=302, times=None)),
    ("an answer that is not JSON", lambda: faults.Fault(status=200, body="<html>operator-token</html>")),
]


@pytest.mark.parametrize(("sentence", "fault"), FAILURES, ids=[one[0] for one in FAILURES])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_i6_no_error_log_or_observation_holds_the_token(
    sentence: str,
    fault: Callable[[], faults.Fault],
    method: str,
    sim: LinodeSimulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    calls: list[api.Call] = []
    striking = sim.faults.add(fault())
    striking.times = None
    policy = api.Policy(total=0.5 if striking.kind == "hang" else 10, backoff=0.01)
    async with api.LinodeClient(
        sim.url, token_provider=lambda: conftest.TOKEN, policy=policy, observer=calls.append
    ) as client:
        call = (
            client.get_firewall(1)
            if method == "GET"
            else client.create_firewall(label="one-1", tags=[], rules=RULES)
        )
        with pytest.raises(errors.LinodeError) as caught:
            await call
    seen = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    assert conftest.TOKEN not in seen
    assert conftest.TOKEN not in caplog.text
    assert conftest.TOKEN not in repr(calls)
    assert caught.value.__cause__ is None
    assert str(caught.value).rstrip().endswith((".", ")"))


async def test_i6_a_redirect_is_not_followed() -> None:
    """It would hand the token to whatever host the answer names."""
    asked_for: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked_for.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    async with test_utils.TestServer(app) as server:
        url, policy = str(server.make_url("/v4")), api.Policy(tries=1)
        async with api.LinodeClient(url, token_provider=lambda: conftest.TOKEN, policy=policy) as client:
            with pytest.raises(errors.Unavailable, match="status 307"):
                await client.profile()
    assert asked_for == ["/v4/profile"]


@pytest.mark.parametrize(
    "body", ["[]", '{"id": 1, "label": "x", "status": "enabled", "rules": {"inbound": []}, "tags": []}', "{"]
)
async def test_an_answer_that_is_not_understood_is_no_success(
    body: str, sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    """Rules without their policy could be open; nothing is guessed."""
    sim.faults.add(faults.Fault(status=200, body=body))
    with pytest.raises(errors.Unavailable, match="not understood"):
        await client.get_firewall(1)


def test_a_base_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        api.LinodeClient("api.linode.com/v4", token_provider=lambda: None)
