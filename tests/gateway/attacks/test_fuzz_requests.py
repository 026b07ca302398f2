"""Whatever path, headers or bytes are sent: only what has a key and an allowed path reaches the engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from gateway.attacks import fuzzing, oracle, site
from gateway.attacks.paths import KEYLESS
from gateway.attacks.wire import message
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

Record = Callable[[str, object], None]
_KEY = site.KEY.encode()
_ALLOWED = sorted(oracle.PATHS)

# --- paths ------------------------------------------------------------------------------------------

_BITS = [
    b"/",
    b"//",
    b"/./",
    b"/../",
    b"..",
    b".",
    b"\\",
    b";",
    b";a=b",
    b"..;/",
    b"%2e",
    b"%2E%2e",
    b"%2f",
    b"%5c",
    b"%252e",
    b"%00",
    b"%0a",
    b"%0d%0a",
    b"%20",
    b"%",
    b"%zz",
    b"%c0%af",
    b"%c0%ae",
    b"%ef%bc%8f",
    b"?",
    b"#",
    b"%3f",
    b"%23",
    b"&",
    b"v1",
    b"V1",
    b"models",
    b"invocations",
    b"metrics",
    b"x",
    b"*",
    b"@",
    b":",
    b"http://",
    b"http://demo",
    b" ",
    b"\t",
    b"\x00",
    b"\xff",
    b"~",
    b"$",
    b"|",
    b"^",
    b"(",
    b"chat",
    b"completions",
]
_BASES = st.sampled_from([*_ALLOWED, *_ALLOWED, *(text.encode() for text in KEYLESS)])


@st.composite
def edited(draw: st.DrawFn, base: bytes, bits: list[bytes], most: int = 3) -> bytes:
    """The base with some bits put in, taken out, escaped, in another case or doubled."""
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, len(base)))
        kind = draw(st.integers(0, 6))
        before, after = base[:place], base[place:]
        if kind <= 2:
            base = before + draw(st.sampled_from(bits)) + after
        elif kind == 3:
            base = before + after[draw(st.integers(1, 3)) :]
        elif kind == 4:
            base = before + b"".join(b"%%%02x" % byte for byte in after[:1]) + after[1:]
        elif kind == 5:
            base = before + after[:1].swapcase() + after[1:]
        else:
            base = before + after[:4] + after
    return base


_PATH = _BASES.flatmap(lambda base: edited(base, _BITS))
_KEYS = st.sampled_from([(site.GOOD,), (site.GOOD,), (b"X-API-Key: " + _KEY,), ()])


@pytest.mark.parametrize("examples", fuzzing.RUNS)
def test_no_path_but_an_allowed_one_reaches_the_engine(
    examples: int, plain: site.Site, record_property: Record
) -> None:
    tally = fuzzing.Tally()

    def each(one: tuple[bytes, bytes, tuple[bytes, ...]]) -> None:
        method, path, key = one
        raw = message(method + b" " + path + b" HTTP/1.1", site.HOST, *key)
        fuzzing.check(plain, tally, raw, site.FROM_OFFICE)

    methods = st.sampled_from([b"GET", b"GET", b"POST", b"POST", b"TRACE"])
    fuzzing.sweep(examples, st.tuples(methods, _PATH, _KEYS), each)
    fuzzing.report(tally, examples, record_property)


# --- headers ----------------------------------------------------------------------------------------

_MARKS = [
    b" ",
    b"\t",
    b",",
    b", ",
    b";",
    b":",
    b"\x00",
    b"\r",
    b"\n",
    b"\r\n ",
    b"\r\n",
    b"_",
    b"-",
    b'"',
    b"=",
    b"x",
    b"\xa0",
    b"\xc3\xa9",
    b"%2d",
    b".",
    b"*",
    b"Bearer ",
    b"bearer",
    _KEY,
    site.FORMER.encode(),
]
_LINES = [
    b"Authorization: Bearer " + _KEY,
    b"Authorization: Bearer " + _KEY,
    b"X-API-Key: " + _KEY,
    b"authorization: bearer " + _KEY,
    b"Authorization: Bearer wrong-key-wrong-key",
    b"Authorization: Basic " + _KEY,
    b"X-API-Key: " + site.FORMER.encode(),
    b"Cookie: key=" + _KEY,
    b"X_API_Key: " + _KEY,
    b"Connection: authorization",
    b"Connection: keep-alive",
    b"X-Forwarded-For: 203.0.113.9",
    b"Proxy-Authorization: Bearer " + _KEY,
    b"X-Note: nothing",
    b"Content-Length: 0",
    b"Host: demo",
]
_LINE = st.sampled_from(_LINES).flatmap(lambda line: edited(line, _MARKS, 2))


@pytest.mark.parametrize("examples", fuzzing.RUNS)
def test_no_header_but_a_key_in_its_place_opens_the_engine(
    examples: int, plain: site.Site, record_property: Record
) -> None:
    tally = fuzzing.Tally()

    def each(lines: list[bytes]) -> None:
        fuzzing.check(plain, tally, site.ask(*lines), site.FROM_OFFICE)

    fuzzing.sweep(examples, st.lists(_LINE, min_size=1, max_size=4), each)
    fuzzing.report(tally, examples, record_property)


# --- streams ----------------------------------------------------------------------------------------

_INNER = message(b"POST /v1/completions?inner HTTP/1.1", site.HOST, site.GOOD, b"Content-Length: 0")
_HIDDEN = message(b"POST /invocations HTTP/1.1", site.HOST, site.GOOD, b"Content-Length: 0")
_PIECES = [
    site.get(b"/v1/models"),
    site.ask(),
    _HIDDEN,
    message(b"POST /v1/completions HTTP/1.1", site.HOST, site.GOOD, b"Content-Length: 2", body=b"{}"),
    *(
        message(b"POST /v1/completions HTTP/1.1", site.HOST, *key, framing, body=body)
        for key in ((site.GOOD,), ())
        for inner in (_INNER, _HIDDEN)
        for framing, body in (
            (b"Content-Length: %d" % len(inner), inner),
            (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
        )
    ),
]
_SPLITS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\x0b",
    b"\x00",
    b"0",
    b"1",
    b"+",
    b"-",
    b",",
    b";a=b",
    b":",
    b"Content-Length: 0\r\n",
    b"Content-Length: 999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"chunked",
    b"\xff",
    b"HTTP/1.0",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
]
_STREAM = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=3).flatmap(
    lambda pieces: edited(b"".join(pieces), _SPLITS, 3)
)


@pytest.mark.parametrize("examples", fuzzing.RUNS)
def test_no_stream_of_bytes_brings_a_request_past_the_gateway(
    examples: int, plain: site.Site, record_property: Record
) -> None:
    tally = fuzzing.Tally()

    def each(raw: bytes) -> None:
        fuzzing.check(plain, tally, raw, site.FROM_OFFICE)

    fuzzing.sweep(examples, _STREAM, each)
    fuzzing.report(tally, examples, record_property)
