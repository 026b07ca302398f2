"""Attacks by the framing of HTTP/1: what one side takes for a body and the other for a request.

Source: RFC 9112, sections 2.2, 5.1, 6.3, 7.1 and 11.2.
"""

from __future__ import annotations

from gateway.attacks.case import CUT_OFF, OPEN, Case
from gateway.attacks.site import GOOD, HOST, ask, get
from gateway.attacks.wire import message

_POST = b"POST /v1/completions HTTP/1.1"
_DONE = (b"/v1/completions",)
_MODELS = (b"/v1/models",)
#: Requests are passed on while they arrive: a head may be there before its body turns out to be broken.
_CUT_OFF = (b"/v1/completions" + CUT_OFF,)
_CHUNKED = b"Transfer-Encoding: chunked"
#: A keyless endpoint that must never be taken for a request of its own.
_HIDDEN = message(b"POST /invocations HTTP/1.1", HOST, b"Content-Length: 0")
_TWO = b"2\r\n{}\r\n0\r\n\r\n"


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return message(_POST, HOST, GOOD, *headers, body=body)


def _length(name: str, value: bytes, expect: int | str = 400) -> Case:
    return Case(f"a length {name}", _post(b"Content-Length:" + value, body=b"{}" + _HIDDEN), expect)


def _encoding(name: str, value: bytes, expect: int = 501) -> Case:
    return Case(
        f"a transfer encoding {name}", _post(b"Transfer-Encoding:" + value, body=_TWO + _HIDDEN), expect
    )


def _chunks(name: str, body: bytes, expect: int | str = 400) -> Case:
    return Case(f"chunks {name}", _post(_CHUNKED, body=body), expect, _CUT_OFF)


def _head(name: str, raw: bytes, expect: int | str = 400) -> Case:
    return Case(name, raw, expect)


CONTROLS = [
    Case("control: a body with a length", _post(b"Content-Length: 2", body=b"{}"), 200, _DONE),
    Case("control: a body in chunks", _post(_CHUNKED, body=_TWO), 200, _DONE),
    Case("control: two requests in one piece", get(b"/v1/models") * 2, (200, 200), _MODELS * 2),
    Case(
        "control: a request in a body stays in it",
        _post(b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN),
        200,
        _DONE,
    ),
    Case("control: the encoding in capitals", _post(b"Transfer-Encoding: CHUNKED", body=_TWO), 200, _DONE),
    Case("control: an extension of a chunk", _post(_CHUNKED, body=b"2;a=b\r\n{}\r\n0\r\n\r\n"), 200, _DONE),
    Case(
        "control: what a chunk holds beyond its size is dropped",
        _post(_CHUNKED, body=b"2\r\n{}xx\r\n0\r\n\r\n"),
        200,
        _DONE,
    ),
    Case(
        "control: lines may end with a line feed alone",
        get(b"/v1/models").replace(b"\r\n", b"\n"),
        200,
        _MODELS,
    ),
    Case(
        "control: a carriage return inside a value is dropped",
        get(b"/v1/models", b"X-A: b\rX-B: c"),
        200,
        _MODELS,
    ),
    Case("control: a trailer", _post(_CHUNKED, body=b"2\r\n{}\r\n0\r\nX-Note: a\r\n\r\n"), 200, _DONE),
]

LENGTHS = [
    Case("a length and chunks", _post(b"Content-Length: 2", _CHUNKED, body=_TWO + _HIDDEN), 400),
    Case("chunks and a length", _post(_CHUNKED, b"Content-Length: 200", body=_TWO + _HIDDEN), 400),
    Case("chunks and no length at all", _post(_CHUNKED, b"Content-Length:", body=_TWO + _HIDDEN), 400),
    Case(
        "two different lengths", _post(b"Content-Length: 2", b"Content-Length: 99", body=b"{}" + _HIDDEN), 400
    ),
    Case("the same length twice", _post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"), 400),
    _length("that is a list", b" 2, 2"),
    _length("that is a list of different numbers", b" 2, 99"),
    _length("below zero", b" -2"),
    _length("with a plus", b" +2"),
    _length("with a blank inside", b" 2 2"),
    _length("with a tab inside", b" 2\t2"),
    _length("with a vertical tab before it", b" \x0b2"),
    _length("in hexadecimal", b" 0x2"),
    _length("with a fraction", b" 2.0"),
    _length("with an exponent", b" 2e0"),
    _length("with an underscore", b" 2_0"),
    _length("with a letter behind it", b" 2a"),
    _length("with a null byte behind it", b" 2\x00"),
    _length("beyond 64 bits", b" 18446744073709551618"),
    _length("in digits beyond ASCII", b" \xd9\xa2"),
]

ENCODINGS = [
    Case("chunked twice in two headers", _post(_CHUNKED, _CHUNKED, body=_TWO + _HIDDEN), 501),
    Case(
        "chunked, then identity in another header",
        _post(_CHUNKED, b"Transfer-Encoding: identity", body=_TWO + _HIDDEN),
        501,
    ),
    _encoding("that is chunked twice", b" chunked, chunked"),
    _encoding("that ends with identity", b" chunked, identity"),
    _encoding("that begins with identity", b" identity, chunked"),
    _encoding("that is identity alone", b" identity"),
    _encoding("with compression", b" gzip, chunked"),
    _encoding("that nobody knows", b" xchunked"),
    _encoding("with a letter behind it", b" chunkedx"),
    _encoding("with a vertical tab before it", b" \x0bchunked", 400),
    _encoding("with a vertical tab behind it", b" chunked\x0b", 400),
    _encoding("in quotes", b' "chunked"'),
    _encoding("with a parameter", b" chunked;a=b"),
    _encoding("with a null byte", b" chunked\x00", 400),
    _encoding("that is empty", b""),
    _encoding("with a comma before it", b" ,chunked"),
    _encoding("in two words", b" chun ked"),
    Case("an encoding with a blank before the colon", _post(b"Transfer-Encoding : chunked", body=_TWO), 400),
    Case(
        "an encoding in a folded line",
        _post(b"X-Note: a", b" Transfer-Encoding: chunked", b"Content-Length: 0") + _TWO,
        (200, 400),
        _DONE,
    ),
    Case(
        "an encoding with an underscore",
        _post(b"Transfer_Encoding: chunked", b"Content-Length: 0") + _TWO,
        400,
    ),
    Case(
        "an encoding in HTTP/1.0",
        message(
            b"POST /v1/completions HTTP/1.0",
            HOST,
            GOOD,
            b"Connection: keep-alive",
            _CHUNKED,
            body=_TWO + _HIDDEN,
        ),
        426,
    ),
]

CHUNKS = [
    _chunks("of a size that is no number", b"g\r\n{}\r\n0\r\n\r\n"),
    _chunks("of a size below zero", b"-2\r\n{}\r\n0\r\n\r\n"),
    _chunks("of a size with a prefix", b"0x2\r\n{}\r\n0\r\n\r\n"),
    _chunks("of a size with a plus", b"+2\r\n{}\r\n0\r\n\r\n"),
    _chunks("of a size with a blank before it", b" 2\r\n{}\r\n0\r\n\r\n"),
    _chunks("of a size beyond 64 bits", b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    _chunks("of an empty size", b"\r\n{}\r\n0\r\n\r\n"),
    _chunks("whose line ends with a line feed alone", b"2\n{}\r\n0\r\n\r\n"),
    _chunks("whose extension holds a line feed", b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    _chunks("whose extension holds a carriage return", b"2;a\rb\r\n{}\r\n0\r\n\r\n"),
    _chunks("that end without the last line", b"2\r\n{}\r\n0\r\n", OPEN),
    _chunks("with a trailer without a colon", b"2\r\n{}\r\n0\r\nnonsense\r\n\r\n"),
]

HEADS = [
    _head("a carriage return as the end of a line", get(b"/v1/models").replace(b"\r\n", b"\r"), OPEN),
    _head("a header without a colon", get(b"/v1/models", b"nonsense")),
    _head("a first header that is folded", message(b"GET /v1/models HTTP/1.1", b" x: y", HOST, GOOD)),
    _head("the version 0.9", b"GET /v1/models\r\n\r\n", 426),
    _head("the version 9.9", message(b"GET /v1/models HTTP/9.9", HOST, GOOD), 426),
    _head("the version 2.0 in a line of text", message(b"GET /v1/models HTTP/2.0", HOST, GOOD), 426),
    _head("the version 1.2", message(b"GET /v1/models HTTP/1.2", HOST, GOOD), 426),
    _head("a version in small letters", message(b"GET /v1/models http/1.1", HOST, GOOD)),
    _head("a version of another protocol", message(b"GET /v1/models ICY/1.1", HOST, GOOD)),
    _head("a version with a letter behind it", message(b"GET /v1/models HTTP/1.1x", HOST, GOOD)),
    _head("a request line of two targets", message(b"GET /v1/models /invocations HTTP/1.1", HOST, GOOD)),
    _head("a request line with a line feed inside", message(b"GET /v1/models\nHTTP/1.1", HOST, GOOD), 426),
    _head("an answer instead of a request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    _head(
        "a request over TLS on a port in clear", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64
    ),
    _head("random bytes", bytes(range(1, 256))),
    _head("HTTP/1.0 without a host", message(b"GET /v1/models HTTP/1.0", GOOD), 426),
    _head(
        "HTTP/1.0 with a host",
        message(b"GET /v1/models HTTP/1.0", HOST, GOOD, b"Connection: keep-alive"),
        426,
    ),
]

PIPELINES = [
    Case("a second request without a key", get(b"/v1/models") + ask(), (200, 401), _MODELS),
    Case("a third request without a key", get(b"/v1/models") * 2 + ask(), (200, 200, 401), _MODELS * 2),
    Case("a second request to a keyless endpoint", get(b"/v1/models") + _HIDDEN, (200, 404), _MODELS),
    Case(
        "a second request with a wrong key",
        get(b"/v1/models") + ask(b"Authorization: Bearer x"),
        (200, 401),
        _MODELS,
    ),
    Case("a first request without a key gives nothing to the second", ask() + ask(), (401, 401)),
    Case(
        "a GET with a body that is a request",
        message(b"GET /v1/models HTTP/1.1", HOST, GOOD, b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN),
        200,
        _MODELS,
    ),
    Case(
        "a GET with a request behind it that it does not announce",
        get(b"/v1/models") + _HIDDEN,
        (200, 404),
        _MODELS,
    ),
    Case(
        "a HEAD with a request behind it",
        message(b"HEAD /v1/models HTTP/1.1", HOST, GOOD) + _HIDDEN,
        (200, 404),
        _MODELS,
    ),
    Case(
        "a refused body that holds a request",
        message(_POST, HOST, b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN),
        401,
    ),
    Case(
        "a refused body in chunks that holds a request",
        message(_POST, HOST, _CHUNKED, body=b"%x\r\n" % len(_HIDDEN) + _HIDDEN + b"\r\n0\r\n\r\n"),
        401,
    ),
    Case("a body shorter than it says", message(_POST, HOST, b"Content-Length: 500", body=_HIDDEN), 401),
    Case("a good request after a bad one on the connection", b"nonsense\r\n\r\n" + get(b"/v1/models"), 400),
    Case(
        "an upgrade that is refused and a request behind it",
        get(b"/v1/models", b"Connection: Upgrade", b"Upgrade: websocket") + _HIDDEN,
        403,
    ),
    Case(
        "a CONNECT that is refused and a request behind it",
        message(b"CONNECT demo:80 HTTP/1.1", HOST, GOOD) + get(b"/v1/models"),
        403,
    ),
    Case(
        "an expectation, then a request instead of the body",
        message(_POST, HOST, b"Expect: 100-continue", b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN),
        401,
    ),
]

CASES = [*CONTROLS, *LENGTHS, *ENCODINGS, *CHUNKS, *HEADS, *PIPELINES]
