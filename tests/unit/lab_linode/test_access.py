"""Tokens, scopes, expiry, grants and the shared request budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from lab.linode import LinodeSimulator, RateLimits, State, Token
from lab.linode.state import CLOSED

FIREWALL = {"label": "one", "rules": CLOSED}


@pytest.mark.parametrize("token", [None, "wrong", ""])
async def test_no_or_wrong_token(api: Any, token: str | None) -> None:
    answer = await api("GET", "/profile", token=token)
    assert (answer.status, answer.reason) == (401, "Invalid Token")


@pytest.mark.parametrize("path", ["/regions", "/linode/types", "/nodebalancers/types", "/lke/versions"])
async def test_public_catalogue(api: Any, path: str) -> None:
    answer = await api("GET", path, token=None)
    assert answer.status == 200
    assert "X-OAuth-Scopes" not in answer.headers


SCOPES: list[tuple[tuple[str, ...], str, str, int]] = [
    (("firewall:read_only",), "GET", "/networking/firewalls", 200),
    (("firewall:read_write",), "GET", "/networking/firewalls", 200),
    (("firewall:read_only",), "POST", "/networking/firewalls", 403),
    (("firewall:read_write",), "POST", "/networking/firewalls", 200),
    (("nodebalancers:read_write",), "GET", "/networking/firewalls", 403),
    (("firewall:read_write",), "GET", "/nodebalancers", 403),
    (("*",), "GET", "/nodebalancers", 200),
    ((), "GET", "/profile", 200),
    (("linodes:read_only",), "GET", "/account/events", 403),
]


@pytest.mark.parametrize(("scopes", "method", "path", "status"), SCOPES)
async def test_scopes(
    sim: LinodeSimulator, api: Any, scopes: tuple[str, ...], method: str, path: str, status: int
) -> None:
    sim.state.add_token(Token("probe", "probe-token", scopes=scopes))
    body = FIREWALL if method == "POST" else None
    answer = await api(method, path, body, token="probe-token")
    assert answer.status == status
    assert answer.headers["X-OAuth-Scopes"] == " ".join(scopes)
    assert answer.headers["X-Accepted-OAuth-Scopes"]
    if status == 403:
        assert answer.reason == "Unauthorized"


async def test_expiry_in_mid_run(api: Any, sim: LinodeSimulator) -> None:
    assert (await api("GET", "/profile", token="operator-token")).status == 200
    sim.state.expire_token("operator")
    assert (await api("GET", "/profile", token="operator-token")).status == 401
    assert (await api("GET", "/profile", token="ccm-token")).status == 200


async def test_expiry_by_the_clock() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    state = State(clock=lambda: now[0])
    state.add_token(Token("probe", "probe-token", expires=now[0] + timedelta(hours=1)))
    async with LinodeSimulator(state) as sim, aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer probe-token"}
        for passed, status in ((59, 200), (60, 401)):
            now[0] = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=passed)
            async with session.get(f"{sim.url}/profile", headers=headers) as answer:
                assert answer.status == status


@pytest.fixture
def restricted(sim: LinodeSimulator) -> LinodeSimulator:
    """A user who may read firewall 101, write 102 and NodeBalancer 104, and add nothing."""
    for label in ("readable", "writable", "hidden"):
        sim.state.create_firewall(label)
    sim.state.create_nodebalancer("mine")
    sim.state.create_nodebalancer("foreign")
    sim.state.add_token(Token("guest", "guest-token", username="guest"))
    grants = {"firewall": {101: "read_only", 102: "read_write"}, "nodebalancer": {104: "read_write"}}
    sim.state.restrict_user("guest", set(), grants)
    return sim


GRANTS: list[tuple[str, str, Any, int]] = [
    ("GET", "/networking/firewalls/101", None, 200),
    ("PUT", "/networking/firewalls/101/rules", CLOSED, 403),
    ("PUT", "/networking/firewalls/102/rules", CLOSED, 200),
    ("GET", "/networking/firewalls/103", None, 403),
    ("POST", "/networking/firewalls", FIREWALL, 403),
    ("POST", "/nodebalancers", {"region": "us-ord"}, 403),
    ("POST", "/networking/firewalls/102/devices", {"id": 104, "type": "nodebalancer"}, 200),
    ("POST", "/networking/firewalls/102/devices", {"id": 105, "type": "nodebalancer"}, 403),
    ("PUT", "/nodebalancers/104/firewalls", {"firewall_ids": [102]}, 200),
    ("PUT", "/nodebalancers/104/firewalls", {"firewall_ids": [103]}, 403),
    ("PUT", "/nodebalancers/105/firewalls", {"firewall_ids": []}, 403),
    ("GET", "/nodebalancers/104/firewalls", None, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), GRANTS)
async def test_grants(
    restricted: LinodeSimulator, api: Any, method: str, path: str, body: Any, status: int
) -> None:
    answer = await api(method, path, body, token="guest-token")
    assert answer.status == status


async def test_a_restricted_user_sees_its_own_and_owns_what_it_makes(
    restricted: LinodeSimulator, api: Any
) -> None:
    listed = (await api("GET", "/networking/firewalls", token="guest-token")).body["data"]
    assert [one["id"] for one in listed] == [101, 102]
    profile = (await api("GET", "/profile", token="guest-token")).body
    grants = (await api("GET", "/profile/grants", token="guest-token")).body
    assert profile["restricted"] is True
    assert [(g["id"], g["permissions"]) for g in grants["firewall"]] == [
        (101, "read_only"),
        (102, "read_write"),
    ]
    restricted.state.users["guest"].add.add("add_firewalls")
    made = (await api("POST", "/networking/firewalls", FIREWALL, token="guest-token")).body
    path = f"/networking/firewalls/{made['id']}"
    assert (await api("DELETE", path, token="guest-token")).status == 200


async def test_an_unrestricted_user_has_no_grants(api: Any) -> None:
    assert (await api("GET", "/profile/grants")).status == 204


async def test_budget_is_shared_by_a_users_tokens() -> None:
    limits = RateLimits(collections=3, others=5, window=60)
    state = State()
    state.add_token(Token("else", "else-token", username="else"))
    async with LinodeSimulator(state, limits=limits) as sim, aiohttp.ClientSession() as session:

        async def get(path: str, token: str) -> aiohttp.ClientResponse:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get(f"{sim.url}{path}", headers=headers) as answer:
                await answer.read()
                return answer

        statuses = [
            (await get("/nodebalancers", f"{who}-token")).status for who in ("operator", "ccm", "admin")
        ]
        refused = await get("/nodebalancers", "operator-token")
        assert statuses == [200, 200, 200]
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert (await get("/nodebalancers", "else-token")).status == 200, "another user's budget"
        other = await get("/profile", "operator-token")
        assert (other.status, other.headers["X-RateLimit-Limit"]) == (200, "5"), "another budget"
        sim.limiter.clock = lambda: 1e12
        assert (await get("/nodebalancers", "operator-token")).status == 200, "a new window"


async def test_documented_limits(api: Any) -> None:
    lists = await api("GET", "/nodebalancers")
    rest = await api("GET", "/profile")
    assert lists.headers["X-RateLimit-Limit"] == "200"
    assert rest.headers["X-RateLimit-Limit"] == "1600"
    assert int(rest.headers["X-RateLimit-Reset"]) > 1_600_000_000
