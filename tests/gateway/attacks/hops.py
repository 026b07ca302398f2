"""Attacks by headers of the connection: the host, what counts for one hop only, and upgrades."""

from __future__ import annotations

from gateway.attacks.case import OPEN, Case
from gateway.attacks.site import FROM_STRANGER, GOOD, HOST, OUTSIDER, ask, get
from gateway.attacks.wire import message

MODELS = (b"/v1/models",)

HOSTS = [
    Case("no host", message(b"GET /v1/models HTTP/1.1", GOOD), 400),
    Case("an empty host", message(b"GET /v1/models HTTP/1.1", b"Host:", GOOD), 200, MODELS),
    Case("two hosts", message(b"GET /v1/models HTTP/1.1", HOST, b"Host: other", GOOD), 200, MODELS),
    Case("a host with a user", message(b"GET /v1/models HTTP/1.1", b"Host: user@demo", GOOD), 200, MODELS),
    Case("a host with a path", message(b"GET /invocations HTTP/1.1", b"Host: demo/v1/models?", GOOD), 400),
    Case(
        "a host with a way into an allowed path",
        message(b"GET /ping HTTP/1.1", b"Host: x/v1/models?a=", GOOD),
        400,
    ),
    Case("a host with a blank", message(b"GET /v1/models HTTP/1.1", b"Host: de mo", GOOD), 400),
    Case("a host with a null byte", message(b"GET /v1/models HTTP/1.1", b"Host: demo\x00", GOOD), 400),
    Case(
        "the host of the admin interface",
        message(b"GET /config_dump HTTP/1.1", b"Host: 127.0.0.1:9901", GOOD),
        404,
    ),
    Case(
        "an absolute target of another host without a key",
        message(b"GET http://127.0.0.1:9901/v1/models HTTP/1.1", HOST),
        401,
    ),
]

HOPS = [
    Case(
        "a key that is named as a header of this hop only",
        get(b"/v1/models", b"Connection: authorization"),
        401,
    ),
    Case("a host that is named as a header of this hop only", get(b"/ping", b"Connection: host"), 400),
    Case(
        "a stranger whose address is a header of this hop only",
        get(b"/v1/models", b"Connection: x-forwarded-for"),
        400,
        prefix=FROM_STRANGER,
    ),
    Case("a hop header without a key", ask(b"Connection: close, authorization"), 401),
    Case(
        "an expectation without a key",
        message(b"POST /v1/completions HTTP/1.1", HOST, b"Expect: 100-continue", b"Content-Length: 2"),
        401,
    ),
    Case("an expectation that nobody knows without a key", ask(b"Expect: 200-ok"), 401),
    Case(
        "an upgrade to h2c",
        get(
            b"/v1/models",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        200,
        MODELS,
    ),
    Case("an upgrade to h2c without a key", ask(b"Connection: Upgrade", b"Upgrade: h2c"), 401),
    Case(
        "an upgrade to a socket on the API",
        get(
            b"/v1/models",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        403,
    ),
    Case(
        "an upgrade to a socket at vLLM's realtime endpoint",
        get(
            b"/v1/realtime",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        403,
    ),
    Case(
        "an upgrade to a socket in capitals",
        get(b"/v1/models", b"Connection: UPGRADE", b"Upgrade: WebSocket"),
        403,
    ),
    Case(
        "an upgrade to two protocols",
        get(b"/v1/models", b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
        403,
    ),
    Case("an upgrade to TLS", get(b"/v1/models", b"Connection: Upgrade", b"Upgrade: TLS/1.2"), 403),
    Case(
        "an upgrade to TCP by CONNECT-UDP",
        get(b"/v1/models", b"Connection: Upgrade", b"Upgrade: connect-udp"),
        404,
    ),
    Case("trailers are announced and there is no key", ask(b"TE: trailers", b"Trailer: Authorization"), 401),
    Case(
        "a key in the trailers",
        message(
            b"POST /v1/completions HTTP/1.1",
            HOST,
            b"Transfer-Encoding: chunked",
            b"Trailer: Authorization",
            body=b"0\r\n" + GOOD + b"\r\n\r\n",
        ),
        401,
    ),
    Case(
        "a claim in an internal header by a stranger inside",
        get(b"/v1/models", b"X-Envoy-Internal: true", b"X-Forwarded-For: 127.0.0.1"),
        403,
        listener="internal_api",
        peer=OUTSIDER,
    ),
    Case(
        "a bare question to the internal listener by a stranger",
        b"\r\n\r\n" + get(b"/v1/models"),
        403,
        listener="internal_api",
        peer=OUTSIDER,
    ),
    Case("nothing but blank lines", b"\r\n" * 200, OPEN),
]

CASES = [*HOSTS, *HOPS]
