"""What the real Envoy limits, and how it says so."""

from __future__ import annotations

import contextlib
import dataclasses
import socket

import pytest

from ai_sandbox_operator.desired import envoy_listeners
from gateway.cases import BEARER, KEY, KNOWN, OFFICE, OTHER_KEY, Start, external, internal, with_access
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

TWO_KEYS = dataclasses.replace(
    KNOWN, material=dataclasses.replace(KNOWN.material, api_keys={"alice": KEY, "bob": OTHER_KEY})
)


def test_a_key_with_a_limit_gets_its_share_and_others_are_not_touched(start: Start) -> None:
    one = start(with_access(apiKeys=[{"name": "alice", "requestsPerMinute": 4}, {"name": "bob"}]), TWO_KEYS)
    # Both ways to present a key draw on one bucket; one of two pods gives half of four.
    statuses = [
        external(one, "/v1/models", headers=BEARER).status,
        external(one, "/v1/models", headers={"X-API-Key": KEY}).status,
    ]
    assert statuses == [200, 200]
    refused = external(one, "/v1/models", headers=BEARER)
    assert refused.status == 429
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "10"
    other = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert [external(one, "/v1/models", headers=other).status for _ in range(10)] == [200] * 10
    assert external(one, "/v1/models").status == 401


def test_without_a_limit_nothing_is_counted(shared: envoy_process.Gateway) -> None:
    assert [external(shared, "/v1/models", headers=BEARER).status for _ in range(50)] == [200] * 50


def test_an_old_and_a_new_value_of_a_key_overlap(start: Start) -> None:
    both = {"alice": f"{OTHER_KEY}\n{KEY}\n"}
    one = start(known=dataclasses.replace(KNOWN, material=dataclasses.replace(KNOWN.material, api_keys=both)))
    for value in (KEY, OTHER_KEY):
        assert external(one, "/v1/models", headers={"Authorization": f"Bearer {value}"}).status == 200
    for value in (f"{OTHER_KEY} {KEY}", f"{OTHER_KEY}{KEY}"):
        assert external(one, "/v1/models", headers={"Authorization": f"Bearer {value}"}).status == 401
    envoy_process.wait_for(lambda: len(one.access_log()) == 4)
    assert [line["key"] for line in one.access_log()] == ["alice", "alice", None, None]


def test_one_listener_at_its_limit_leaves_the_others_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy_listeners, "MAX_CONNECTIONS", 3)
    one = start()
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(
                envoy_process.connect(one.ports["external_api"], prefix=envoy_process.proxy_header(OFFICE))
            )
        envoy_process.wait_for(
            lambda: "external_api.active_connections: 3" in one.admin("/stats?filter=connection_limit")
        )
        with pytest.raises((ConnectionError, socket.timeout)):
            external(one, "/v1/models", headers=BEARER)
        assert external(one, "/", target="chat").status == 200
        assert internal(one, "/v1/models", headers=BEARER).status == 200
        assert one.status("/ready").status == 200
    envoy_process.wait_for(lambda: external(one, "/v1/models", headers=BEARER).status == 200)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1%2fmodels", BEARER, 400, "bad_request"),
        ("/v1/models", {**BEARER, "a_b": "c"}, 400, "bad_request"),
        ("/v1/models", {**BEARER, "X-Large": "x" * 40000}, 431, "headers_too_large"),
        ("/v1/models", {**BEARER, **{f"X-{n}": "x" for n in range(120)}}, 431, "headers_too_large"),
        ("/v1/models", {**BEARER, "Upgrade": "websocket", "Connection": "Upgrade"}, 403, "not_allowed"),
    ],
)
def test_a_refusal_by_envoy_itself_has_a_body_that_clients_understand(
    shared: envoy_process.Gateway, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = external(shared, path, headers=headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["code"] == code


def test_answers_of_the_engine_tell_nothing_of_envoy(shared: envoy_process.Gateway) -> None:
    answer = external(shared, "/v1/models", headers=BEARER)
    assert not [name for name in answer.headers if name.startswith("x-envoy")]
