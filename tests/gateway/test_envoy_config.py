"""The rendered configuration in the real Envoy: who gets in, with what, and to where."""

from __future__ import annotations

import pathlib

import pytest

from gateway.cases import (
    BEARER,
    ENGINE_KEY,
    KEY,
    KNOWN,
    OFFICE,
    SPEC,
    STRANGER,
    Spec,
    Start,
    external,
    internal,
    sandbox,
    with_access,
)
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")


# --- the configuration itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        {},
        {"chat": {"enabled": False}},
        with_access(allowlist=[], apiKeys=[{"name": "unmade"}], tls={"mode": "SelfSigned"}),
    ],
)
def test_envoy_accepts_the_configuration_without_a_warning(
    spec: Spec, tmp_path: pathlib.Path, upstream: envoy_process.Upstream
) -> None:
    one = envoy_process.Gateway(tmp_path, upstream)
    one.write(sandbox(spec), KNOWN)
    result = one.validate()
    assert result.returncode == 0, result.stderr
    assert "[warning]" not in result.stderr


def test_every_file_is_accepted_without_a_warning(shared: envoy_process.Gateway) -> None:
    stats = dict(line.split(": ", 1) for line in shared.admin("/stats?filter=update_").splitlines())
    assert {
        name: value for name, value in stats.items() if name.endswith("update_rejected") and value != "0"
    } == {}
    assert sum(name.endswith("update_success") and value == "1" for name, value in stats.items()) >= 6
    assert "[warning]" not in shared.log
    assert "[error]" not in shared.log


# --- the API ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer {KEY}"),
        ("X-API-Key", KEY),
    ],
)
def test_address_and_key_reach_the_engine_with_its_own_key(
    shared: envoy_process.Gateway, header: str, value: str
) -> None:
    answer = external(
        shared, "/v1/chat/completions?x=1", method="POST", headers={header: value, "Cookie": "c"}
    )
    assert answer.status == 200
    seen = answer.json["headers"]
    assert answer.json["path"] == "/v1/chat/completions?x=1"
    assert seen["authorization"] == f"Bearer {ENGINE_KEY}"
    assert "x-api-key" not in seen
    assert "cookie" not in seen
    assert KEY not in answer.body.decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {ENGINE_KEY}"},
        {"X-API-Key": f"{KEY} "[:-2]},
        {"X-API-Key": ""},
        {"Cookie": f"token={KEY}"},
    ],
)
def test_without_a_key_401(shared: envoy_process.Gateway, headers: dict[str, str]) -> None:
    answer = external(shared, "/v1/models", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json == {
        "error": {
            "message": "Missing or invalid API key.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }


@pytest.mark.parametrize("headers", [BEARER, {}, {**BEARER, "X-Forwarded-For": OFFICE}])
@pytest.mark.parametrize("path", ["/v1/models", "/invocations"])
def test_a_foreign_address_403(shared: envoy_process.Gateway, headers: dict[str, str], path: str) -> None:
    answer = external(shared, path, headers=headers, source=STRANGER)
    assert answer.status == 403
    assert answer.json["error"]["code"] == "ip_not_allowed"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/invocations", 404),
        ("/v1/load_lora_adapter", 404),
        ("/v1/models/", 404),
        ("/v1/models/x", 404),
        ("/V1/models", 404),
        ("/metrics", 404),
        ("/health", 404),
        ("/", 404),
        ("/v1/../invocations", 404),
        ("/v1/models/../../invocations", 404),
        ("/v1/models;/../../invocations", 404),
        ("/v1/models/..;/invocations", 404),
        ("//invocations", 404),
        ("/v1/models%2f..%2f..%2finvocations", 400),
        ("/v1%5c..%5cinvocations", 400),
        ("/v1/%6dodels", 200),
        ("/v1//models", 200),
        ("/x/../v1/models", 200),
    ],
)
def test_paths(shared: envoy_process.Gateway, path: str, status: int) -> None:
    answer = external(shared, path, headers=BEARER)
    assert answer.status == status
    if status == 404:
        assert answer.json["error"]["code"] == "not_found"
    if status == 200:
        assert answer.json["path"] == "/v1/models"


def test_ipv6_clients_by_target(shared: envoy_process.Gateway) -> None:
    assert external(shared, "/v1/models", headers=BEARER, source="2001:db8:1::9").status == 200
    assert external(shared, "/v1/models", headers=BEARER, source="2001:db8:2::9").status == 403
    assert external(shared, "/", target="chat", source="2001:db8:1::9").status == 403


def test_headers_with_underscores_are_refused(shared: envoy_process.Gateway) -> None:
    assert external(shared, "/v1/models", headers={**BEARER, "x_api_key": "x"}).status == 400


# --- the PROXY protocol -----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"", f"PROXY TCP4 {OFFICE} 192.0.2.80 50000 443\r\n".encode()])
def test_without_a_version_2_header_the_connection_is_closed(
    shared: envoy_process.Gateway, prefix: bytes
) -> None:
    with pytest.raises(ConnectionError):
        external(shared, "/v1/models", headers=BEARER, source=None, prefix=prefix)


def test_a_header_from_anybody_but_the_nodebalancer_is_worthless(shared: envoy_process.Gateway) -> None:
    assert external(shared, "/v1/models", headers=BEARER, peer="127.0.0.2").status == 403
    assert external(shared, "/", target="chat", peer="127.0.0.2").status == 403


def test_a_connection_check_without_header_harms_nobody(shared: envoy_process.Gateway) -> None:
    for _ in range(5):
        with envoy_process.connect(shared.ports["external_api"]):
            pass
    assert external(shared, "/v1/models", headers=BEARER).status == 200


def test_inside_a_proxy_header_is_not_understood(shared: envoy_process.Gateway) -> None:
    assert internal(shared, "/v1/models", headers=BEARER).status == 200
    try:
        status = internal(
            shared, "/v1/models", headers=BEARER, prefix=envoy_process.proxy_header(OFFICE)
        ).status
    except ConnectionError:
        status = 400  # refused, and closed before the answer could be read
    assert status == 400


# --- inside -----------------------------------------------------------------------------------------


def test_pods_are_admitted_only_where_the_policy_selects_some(start: Start) -> None:
    one = start(with_access(inCluster=[{"namespaceSelector": {}, "to": ["API"]}]))
    assert internal(one, "/v1/models", headers=BEARER, peer="127.0.0.2").status == 200
    assert internal(one, "/v1/models", peer="127.0.0.2").status == 401
    assert internal(one, "/", target="chat", peer="127.0.0.2").status == 403
    assert internal(one, "/v1/models", headers=BEARER, peer="127.0.0.3").status == 403
    # Being a pod is no way in from outside.
    assert external(one, "/v1/models", headers=BEARER, source="127.0.0.2").status == 403


def test_no_claim_of_another_address_counts(shared: envoy_process.Gateway) -> None:
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Envoy-External-Address", "True-Client-IP"):
        answer = internal(shared, "/v1/models", headers={**BEARER, header: "127.0.0.1"}, peer="127.0.0.3")
        assert answer.status == 403


# --- the chat ---------------------------------------------------------------------------------------


def test_the_chat_needs_no_key_and_sees_the_client(shared: envoy_process.Gateway) -> None:
    forged = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Real-IP": "192.0.2.1",
        "X-Forwarded-Host": "evil.example.com",
        "X-Forwarded-Proto": "https",
        "Authorization": "Bearer user-token",
    }
    answer = external(shared, "/api/models", target="chat", headers=forged)
    assert answer.status == 200
    seen = answer.json["headers"]
    assert seen["x-forwarded-for"] == OFFICE
    assert seen["x-forwarded-proto"] == "http"
    assert seen["authorization"] == "Bearer user-token"
    assert not {"x-real-ip", "x-forwarded-host"} & seen.keys()
    assert ENGINE_KEY not in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/health", 404), ("/metrics", 404), ("/docs", 404)]
)
def test_paths_of_the_chat(shared: envoy_process.Gateway, path: str, status: int) -> None:
    assert external(shared, path, target="chat").status == status
    assert external(shared, path, target="chat", source=STRANGER).status == 403


def upgrade(port: int, path: str, source: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: demo",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    with envoy_process.connect(port, prefix=envoy_process.proxy_header(source)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = connection.recv(4096)
        if b" 101 " in answer:
            connection.sendall(b"ping")
            while b"PING" not in answer and (chunk := connection.recv(4096)):
                answer += chunk
    return answer


@pytest.mark.parametrize(
    ("target", "path", "source", "status"),
    [
        ("chat", "/ws/socket.io/?EIO=4&transport=websocket", OFFICE, 101),
        ("chat", "/ws/socket.io/?EIO=4&transport=websocket", STRANGER, 403),
        ("chat", "/ws/socket.iox", OFFICE, 403),
        ("chat", "/api/v1/terminal", OFFICE, 403),
        ("api", "/ws/socket.io/", OFFICE, 403),
    ],
)
def test_websockets(shared: envoy_process.Gateway, target: str, path: str, source: str, status: int) -> None:
    answer = upgrade(shared.ports[f"external_{target}"], path, source)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"PING" in answer) == (status == 101)
