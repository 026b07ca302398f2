"""Whatever a connection begins with: only a header of the balancer for an allowed address opens the engine."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from gateway.attacks import fuzzing, site, wire
from gateway.attacks.test_fuzz_requests import edited
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

_ADDRESSES = [
    ipaddress.ip_address(text).packed
    for text in (
        *(
            "203.0.113.9",
            "203.0.113.0",
            "203.0.113.255",
            "2001:db8:1::9",
            "203.0.114.0",
            "198.51.100.9",
            "127.0.0.1",
        ),
        *("127.0.0.4", "0.0.0.0", "2001:db8:2::9", "::ffff:203.0.113.9", "::203.0.113.9", "::1", "fe80::1"),
    )
]
_PEERS = st.sampled_from([site.BALANCER] * 4 + [site.INSIDER, site.OUTSIDER])
_BITS = [wire.SIGNATURE, wire.SIGNATURE[:5], b"\0", b"\xff", b"\x21", b"\x20", b"\x11", b"\x12", b"\x21\x11\0\x0c",
         b"\r\n", b"PROXY TCP4 203.0.113.9 192.0.2.80 1 2\r\n", b"PROXY UNKNOWN\r\n", site.FROM_OFFICE,
         site.FROM_STRANGER, b"\x04\0\0", b"\xea\0\x04abcd"]  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header whose every field may be wrong, then perhaps some of its bytes."""
    block = draw(st.sampled_from(_ADDRESSES) | st.sampled_from(_ADDRESSES[:4]) | st.binary(max_size=40))
    tail = b"".join(
        wire.tlv(kind, value, length)
        for kind, value, length in draw(
            st.lists(
                st.tuples(st.sampled_from([0x01, 0x02, 0x04, 0x20, 0xEA]), st.binary(max_size=12),
                          st.none() | st.none() | st.integers(0, 300)), max_size=2,
            )
        )
    )  # fmt: skip
    one = wire.proxy(
        block,
        command=draw(st.sampled_from([0x21] * 20 + [0x20, 0x11, 0x31, 0x22, 0x01, 0x2F])),
        family=draw(st.sampled_from([None] * 20 + [0x11, 0x12, 0x21, 0x22, 0x31, 0x00, 0x10, 0x41, 0x13])),
        length=draw(st.sampled_from([None] * 24 + [0, 11, 12, 13, 35, 36, 216, 500, 0xFFFF])),
        tail=tail,
    )
    if draw(st.integers(0, 3)) == 0:
        one = draw(edited(one, _BITS, 2))
    return one


@pytest.mark.parametrize("examples", fuzzing.RUNS)
def test_no_first_bytes_but_a_header_of_the_balancer_for_an_allowed_address_open_the_engine(
    examples: int, plain: site.Site, record_property: Callable[[str, object], None]
) -> None:
    tally = fuzzing.Tally()

    def each(one: tuple[bytes, str]) -> None:
        fuzzing.check(plain, tally, site.get(b"/v1/models"), *one)

    anything = st.one_of(headers(), headers(), headers(), st.binary(max_size=64), st.sampled_from(_BITS))
    fuzzing.sweep(examples, st.tuples(anything, _PEERS), each)
    fuzzing.report(tally, examples, record_property)
