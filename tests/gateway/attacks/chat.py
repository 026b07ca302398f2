"""Attacks on the chat's listeners: its hidden paths, and sockets where there are none.

What the chat would answer with one of its hidden endpoints must not be passed on. Its router, that of
Starlette, unescapes the path once, matches it with `$` (which a line feed at the end satisfies),
and heeds neither case nor path parameters.
"""

from __future__ import annotations

from gateway.attacks.case import Case
from gateway.attacks.site import FROM_STRANGER, GOOD, HOST, OUTSIDER
from gateway.attacks.wire import message

_SOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def _get(path: bytes, *headers: bytes) -> bytes:
    return message(b"GET " + path + b" HTTP/1.1", HOST, *headers)


def _case(
    name: str, path: bytes, expect: int, reaches: bytes | None = None, *headers: bytes, **more: object
) -> Case:
    listener = str(more.pop("listener", "external_chat"))
    return Case(name, _get(path, *headers), expect, (reaches,) if reaches else (), listener, **more)  # type: ignore[arg-type]


HIDDEN = ["/health", "/ready", "/metrics", "/docs", "/redoc", "/openapi.json", "/api/v1/auths/signup"]

PATHS = [
    _case("control: the first page of the chat", b"/", 200, b"/"),
    _case("control: the chat's own API", b"/api/config", 200, b"/api/config"),
    *(_case(f"the chat's {path} is hidden", path.encode(), 404) for path in HIDDEN),
    _case("the chat's health with a key of the API", b"/health", 404, None, GOOD),
    _case("the chat's health with a query", b"/health?x=/", 404),
    _case("the chat's health behind two slashes", b"//health", 404),
    _case("the chat's metrics behind a dot segment", b"/x/../metrics", 404),
    _case("the chat's metrics behind escaped dots", b"/x/%2e%2e/metrics", 404),
    _case("the chat's metrics behind a dot", b"/./metrics", 404),
    _case("the chat's metrics behind a parameter", b"/x;/../metrics", 404),
    _case("the chat's health with an escaped letter", b"/%68ealth", 404),
    _case("the chat's schema with an escaped dot", b"/openapi%2ejson", 404),
    _case("the chat's health as an absolute target", b"http://demo/health", 404),
    _case("the chat's health with an escaped slash", b"/%2fhealth", 400),
    _case("the chat's health with a fragment", b"/health#x", 400),
    _case("the chat's health with a null byte", b"/health%00", 400),
    _case("the chat's health doubly escaped is another page", b"/%2568ealth", 200, b"/%2568ealth"),
    _case("the chat's health in capitals is another page", b"/HEALTH", 200, b"/HEALTH"),
    _case("the chat's health with a parameter is another page", b"/health;x", 200, b"/health;x"),
    _case("the chat's health with a blank is another page", b"/health%20", 200, b"/health%20"),
    _case("the chat's health behind backslashes", b"/x\\..\\health", 404),
]

#: Its router takes a line feed at the end for the end, and serves more below its hidden paths.
BELOW = [
    _case("the chat's health with an escaped line feed", b"/health%0a", 404),
    _case("the chat's metrics with an escaped line feed in capitals", b"/metrics%0A", 404),
    _case("the chat's schema with an escaped line feed", b"/openapi.json%0a", 404),
    _case("the chat's health of its database", b"/health/db", 404),
    _case("a page below the chat's documentation", b"/docs/oauth2-redirect", 404),
    _case("the chat's health with an escaped line feed and a query", b"/health%0a?x", 404),
    _case("the chat's health with an escaped line feed behind a dot segment", b"/x/../health%0A", 404),
    _case("the chat's health with two escaped line feeds", b"/health%0a%0a", 404),
    _case("an escaped delete character anywhere in a path of the chat", b"/api/%7f/x", 404),
    _case("a page that only begins like a hidden one", b"/healthy", 200, b"/healthy"),
    _case(
        "control: claims of another address are replaced",
        b"/api/models",
        200,
        b"/api/models",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Real-IP: 192.0.2.1",
        b"Forwarded: for=192.0.2.1",
        b"X-Forwarded-Host: evil.example.com",
    ),
]

SOCKETS = [
    _case("control: the chat's socket", b"/ws/socket.io/?EIO=4", 101, b"/ws/socket.io/?EIO=4", *_SOCKET),
    _case("a socket at the first page", b"/", 403, None, *_SOCKET),
    _case("a socket at a terminal", b"/api/v1/terminals/1/ws", 403, None, *_SOCKET),
    _case("a socket at a path that begins like the socket's", b"/ws/socket.iox", 403, None, *_SOCKET),
    _case("a socket that leaves the socket's path", b"/ws/socket.io/../../api/x", 403, None, *_SOCKET),
    _case(
        "a socket that leaves the socket's path to a hidden one",
        b"/ws/socket.io/../../health",
        403,
        None,
        *_SOCKET,
    ),
    _case("a socket at the parent of the socket's path", b"/ws", 403, None, *_SOCKET),
    _case(
        "a socket of another protocol at the socket's path",
        b"/ws/socket.io/",
        403,
        None,
        b"Connection: Upgrade",
        b"Upgrade: tcp",
    ),
    _case("a socket for a stranger", b"/ws/socket.io/", 403, None, *_SOCKET, prefix=FROM_STRANGER),
    _case(
        "a socket for a stranger inside",
        b"/ws/socket.io/",
        403,
        None,
        *_SOCKET,
        listener="internal_chat",
        peer=OUTSIDER,
    ),
    Case("a CONNECT on the chat", message(b"CONNECT demo:80 HTTP/1.1", HOST), 403, (), "external_chat"),
    Case(
        "a request smuggled behind a refused socket",
        _get(b"/", *_SOCKET) + _get(b"/metrics"),
        403,
        (),
        "external_chat",
    ),
    Case(
        "a length and chunks on the chat",
        message(
            b"POST /api/x HTTP/1.1",
            HOST,
            b"Content-Length: 2",
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n",
        ),
        400,
        (),
        "external_chat",
    ),
    Case(
        "a stranger of the chat who claims another address",
        _get(b"/", b"X-Forwarded-For: 203.0.113.9"),
        403,
        (),
        "external_chat",
        FROM_STRANGER,
    ),
    Case(
        "a header name with an underscore on the chat",
        _get(b"/", b"X_Forwarded_For: 1.1.1.1"),
        400,
        (),
        "external_chat",
    ),
]

CASES = [*PATHS, *BELOW, *SOCKETS]
