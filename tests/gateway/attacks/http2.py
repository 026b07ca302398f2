"""Attacks by HTTP/2: headers that no HTTP/1 can say, and frames out of order."""

from __future__ import annotations

import dataclasses
import struct

from gateway.attacks import frames, site
from gateway.attacks.case import CLOSED
from gateway.attacks.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Field, frame, headers
from gateway.attacks.site import FROM_OFFICE, FROM_STRANGER, KEY

_KEY = (b"authorization", b"Bearer " + KEY.encode())
_BAD = (b"authorization", b"Bearer wrong-key-wrong-key")
_MODELS = (b"/v1/models",)


@dataclasses.dataclass(frozen=True)
class Case:
    """A row: the frames behind the first settings."""

    name: str
    raw: bytes
    expect: int | str | tuple[int | str, ...]
    reaches: tuple[bytes, ...] = ()
    prefix: bytes = FROM_OFFICE
    listener: str = "external_api"

    @property
    def expected(self) -> tuple[int | str, ...] | str:
        one = self.expect in ("closed", "open") or isinstance(self.expect, tuple)
        return self.expect if one else (self.expect,)  # type: ignore[return-value]

    def run(self, target: site.Site) -> site.Outcome:
        start = self.raw if self.raw.startswith(b"PRI") else frames.start() + self.raw
        outcome = target.send(
            start + frame(frames.PING, 0, 0, b"8" * 8),
            listener=self.listener,
            prefix=self.prefix,
            answers=len(self.expected) if isinstance(self.expected, tuple) else 1,
            read=frames.answers,
            alpn="h2",
        )
        return dataclasses.replace(outcome, ended=not frames.alive(outcome.raw))


def _fields(
    *more: Field,
    path: bytes | None = b"/v1/models",
    method: bytes = b"GET",
    authority: bytes | None = b"demo",
) -> list[Field]:
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(more)


def _case(
    name: str,
    fields: list[Field],
    expect: int | str,
    reaches: tuple[bytes, ...] = (),
    prefix: bytes = FROM_OFFICE,
) -> Case:
    return Case(name, headers(fields), expect, reaches, prefix)


def _with(*more: Field, path: bytes = b"/v1/models") -> list[Field]:
    return _fields(_KEY, *more, path=path)


def _path(name: str, path: bytes, expect: int | str = 404) -> Case:
    return _case(f"HTTP/2: {name}", _with(path=path), expect)


_SPLIT = frames.block(_with())
_POST = headers(_fields(_KEY, method=b"POST", path=b"/v1/completions"), flags=END_HEADERS)
_WITHOUT = headers(_fields(method=b"POST", path=b"/v1/completions"), flags=END_HEADERS)

CONTROLS = [
    _case("HTTP/2 control: a good request", _with(), 200, _MODELS),
    _case("HTTP/2 control: the other header", _fields((b"x-api-key", KEY.encode())), 200, _MODELS),
    Case(
        "HTTP/2 control: a good request in two frames",
        frame(HEADERS, END_STREAM, 1, _SPLIT[:30]) + frame(CONTINUATION, END_HEADERS, 1, _SPLIT[30:]),
        200,
        _MODELS,
    ),
    Case("HTTP/2 control: a body", _POST + frame(DATA, END_STREAM, 1, b"{}"), 200, (b"/v1/completions",)),
    Case(
        "HTTP/2 control: two streams", headers(_with()) + headers(_with(), stream=3), (200, 200), _MODELS * 2
    ),
]

KEYS = [
    _case("HTTP/2: no key", _fields(), 401),
    _case("HTTP/2: a wrong key", _fields(_BAD), 401),
    _case("HTTP/2: a good key, then a wrong one", _fields(_KEY, _BAD), 401),
    _case("HTTP/2: a wrong key, then a good one", _fields(_BAD, _KEY), 401),
    _case("HTTP/2: a key in a name in capitals", _fields((b"Authorization", _KEY[1])), CLOSED),
    _case("HTTP/2: a key in a name with an underscore", _fields((b"x_api_key", KEY.encode())), "reset"),
    _case("HTTP/2: a key in a name of its own", _fields((b":authorization", _KEY[1])), CLOSED),
    _case(
        "HTTP/2: a key behind a line feed", _fields((b"x-note", b"a\r\nauthorization: " + _KEY[1])), CLOSED
    ),
    _case("HTTP/2: a key behind a null byte", _fields((b"authorization", b"\0" + _KEY[1])), CLOSED),
    _case(
        "HTTP/2: a name that holds a key", _fields((b"authorization: " + _KEY[1] + b"\r\nx", b"y")), CLOSED
    ),
    _case("HTTP/2: a name with a colon", _fields((b"authorization:", _KEY[1])), CLOSED),
    _case("HTTP/2: a key with blanks around it", _fields((b"x-api-key", b" " + KEY.encode() + b" ")), 401),
    _case("HTTP/2: an empty name", _fields((b"", _KEY[1])), CLOSED),
    Case("HTTP/2: a key in the trailers", _WITHOUT + frame(DATA, 0, 1, b"{}") + headers([_KEY]), 401),
    Case(
        "HTTP/2: a second stream without a key",
        headers(_with()) + headers(_fields(), stream=3),
        (401, 200),
        _MODELS,
    ),
    _case("HTTP/2: a stranger", _with(), 403, (), FROM_STRANGER),
    _case(
        "HTTP/2: a stranger who claims another address",
        _with((b"x-forwarded-for", b"203.0.113.9")),
        403,
        (),
        FROM_STRANGER,
    ),
]

PATHS = [
    _path("a keyless endpoint", b"/invocations"),
    _path("a dot segment", b"/v1/../invocations"),
    _path("an escaped slash", b"/v1%2fmodels", 400),
    _path("a path without a slash", b"v1/models", CLOSED),
    _path("an empty path", b"", CLOSED),
    _path("a path that is a URL", b"http://demo/v1/models", CLOSED),
    _path("a path with a blank", b"/v1/models HTTP/1.1", CLOSED),
    _path("a path that holds a request", b"/v1/models HTTP/1.1\r\nhost: x\r\n\r\nGET /ping", CLOSED),
    _path("a path with a fragment", b"/v1/models#x", 400),
    _path("a path with a byte beyond ASCII", b"/v1/models\xff", 404),
    _path("the asterisk", b"*", CLOSED),
    _case("HTTP/2: no path", _fields(_KEY, path=None), CLOSED),
    _case("HTTP/2: two paths", [*_fields(_KEY)[:4], (b":path", b"/invocations"), _KEY], CLOSED),
    _case("HTTP/2: no method", [one for one in _with() if one[0] != b":method"], CLOSED),
    _case("HTTP/2: two methods", [(b":method", b"POST"), *_with()], CLOSED),
    _case("HTTP/2: no scheme", [one for one in _with() if one[0] != b":scheme"], CLOSED),
    _case(
        "HTTP/2: a scheme that is a URL",
        [
            (b":method", b"GET"),
            (b":scheme", b"http://demo/v1/models?"),
            (b":authority", b"demo"),
            (b":path", b"/ping"),
            _KEY,
        ],
        CLOSED,
    ),
    _case("HTTP/2: a method with a blank", _fields(_KEY, method=b"GET /v1/models HTTP/1.1"), CLOSED),
    _case("HTTP/2: a path after the other headers", [*_with()[:3], _KEY, (b":path", b"/v1/models")], CLOSED),
    _case("HTTP/2: a header of an answer", [(b":status", b"200"), *_with()], CLOSED),
    _case("HTTP/2: a pseudo header that nobody knows", [(b":role", b"admin"), *_with()], CLOSED),
    _case("HTTP/2: no authority and no host", _fields(_KEY, authority=None), CLOSED),
    _case(
        "HTTP/2: an authority with a path", _fields(_KEY, authority=b"demo/v1/models?", path=b"/ping"), CLOSED
    ),
    _case("HTTP/2: an authority with a line feed", _fields(_KEY, authority=b"demo\r\nx: y"), CLOSED),
]

METHODS = [
    _case(
        "HTTP/2: a socket on the API",
        [*_fields(method=b"CONNECT"), (b":protocol", b"websocket"), _KEY],
        CLOSED,
    ),
    _case("HTTP/2: a CONNECT", [(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:8000"), _KEY], 403),
    _case("HTTP/2: a CONNECT with a path", _fields(_KEY, method=b"CONNECT"), CLOSED),
    _case("HTTP/2: the header Connection", _with((b"connection", b"close")), CLOSED),
    _case("HTTP/2: the header Upgrade", _with((b"upgrade", b"websocket")), CLOSED),
    _case("HTTP/2: the header Transfer-Encoding", _with((b"transfer-encoding", b"chunked")), CLOSED),
    _case("HTTP/2: the header Keep-Alive", _with((b"keep-alive", b"1")), CLOSED),
    _case("HTTP/2: the header Proxy-Connection", _with((b"proxy-connection", b"x")), CLOSED),
    _case("HTTP/2: the header TE with anything but trailers", _with((b"te", b"gzip")), CLOSED),
    _case("HTTP/2: a length and no body", _with((b"content-length", b"5")), CLOSED),
    _case("HTTP/2: two lengths", _with((b"content-length", b"0"), (b"content-length", b"5")), CLOSED),
    Case(
        "HTTP/2: a body longer than its length",
        headers(
            _fields((b"content-length", b"1"), method=b"POST", path=b"/v1/completions"), flags=END_HEADERS
        )
        + frame(DATA, END_STREAM, 1, b"{}"),
        "reset",
    ),
]

FRAMES = [
    Case(
        "HTTP/2: a frame longer than allowed", frame(DATA, 0, 1, b"", length=1 << 20) + b"x" * 100, "goaway"
    ),
    Case("HTTP/2: data before headers", frame(DATA, END_STREAM, 1, b"{}"), "goaway"),
    Case("HTTP/2: headers on the stream of the connection", headers(_with(), stream=0), CLOSED),
    Case("HTTP/2: headers on an even stream", headers(_with(), stream=2), CLOSED),
    Case("HTTP/2: a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, _SPLIT), "goaway"),
    Case(
        "HTTP/2: headers cut by another frame",
        frame(HEADERS, END_STREAM, 1, _SPLIT[:30]) + frame(frames.PING, 0, 0, b"8" * 8),
        "goaway",
    ),
    Case(
        "HTTP/2: a promise by the client",
        frame(frames.PUSH, END_HEADERS, 1, struct.pack("!I", 2) + _SPLIT),
        CLOSED,
    ),
    Case(
        "HTTP/2: a window that grows beyond its limit",
        frame(frames.WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
        CLOSED,
    ),
    Case("HTTP/2: a window that grows by nothing", frame(frames.WINDOW, 0, 0, b"\0" * 4), CLOSED),
    Case(
        "HTTP/2: an index into an empty table",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\x80\x01"),
        "goaway",
    ),
    Case(
        "HTTP/2: a table larger than allowed",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xff\xff\x7f"),
        "goaway",
    ),
    Case(
        "HTTP/2: an integer without end", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 12), "goaway"
    ),
    Case("HTTP/2: settings of a broken length", frame(frames.SETTINGS, 0, 0, b"\0" * 5), "goaway"),
    Case("HTTP/2: settings on a stream", frame(frames.SETTINGS, 0, 1), CLOSED),
    Case(
        "HTTP/2: padding longer than the frame",
        frame(HEADERS, END_HEADERS | END_STREAM | frames.PADDED, 1, b"\xff" + _SPLIT),
        "goaway",
    ),
    Case(
        "HTTP/2: a stream that depends on itself and has no key",
        frame(
            HEADERS, END_HEADERS | END_STREAM | 0x20, 1, struct.pack("!IB", 1, 16) + frames.block(_fields())
        ),
        CLOSED,
    ),
    Case("HTTP/2: the preface twice", frames.PREFACE * 2, "goaway"),
    Case("HTTP/2: text behind the preface", frames.PREFACE + site.get(b"/v1/models"), "goaway"),
]

CASES = [*CONTROLS, *KEYS, *PATHS, *METHODS, *FRAMES]
