"""Attacks by the PROXY protocol. Source: HAProxy, "The PROXY protocol", versions 1 and 2."""

from __future__ import annotations

import ipaddress

from gateway.attacks.case import CLOSED, OPEN, Case
from gateway.attacks.site import BALANCER, FROM_OFFICE, FROM_STRANGER, INSIDER, OFFICE, OUTSIDER, get
from gateway.attacks.wire import SIGNATURE, proxy, tlv

_IN, _OUT = ipaddress.ip_address(OFFICE).packed, FROM_STRANGER[16:20]
_MAPPED = ipaddress.ip_address(f"::ffff:{OFFICE}").packed
_COMPATIBLE = ipaddress.ip_address(f"::{OFFICE}").packed
_NAT64 = ipaddress.ip_address(f"64:ff9b::{OFFICE}").packed
_V6_IN, _V6_OUT = (ipaddress.ip_address(text).packed for text in ("2001:db8:1::9", "2001:db8:2::9"))
_RAW = get(b"/v1/models")
_MODELS = (b"/v1/models",)
_UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def _line(text: str) -> bytes:
    return text.encode() + b"\r\n"


def _case(name: str, prefix: bytes, expect: int | str, reaches: tuple[bytes, ...] = (), **more: str) -> Case:
    return Case(name, _RAW, expect, reaches, prefix=prefix, **more)


CONTROLS = [
    _case("control: a header of the balancer for a client on the allowlist", FROM_OFFICE, 200, _MODELS),
    _case("control: a header of IPv6", proxy(_V6_IN), 200, _MODELS),
    _case("control: the transport in a header does not matter", proxy(_IN, family=0x12), 200, _MODELS),
    _case(
        "control: fields behind the addresses are read over",
        proxy(_IN, tail=tlv(0x04, b"\0" * 8)),
        200,
        _MODELS,
    ),
]

WHO = [
    _case("a stranger behind the balancer", FROM_STRANGER, 403),
    _case("a stranger with IPv6", proxy(_V6_OUT), 403),
    _case("a header forged by somebody who is not the balancer", FROM_OFFICE, 403, peer=OUTSIDER),
    _case("a header forged by a client that is itself on the allowlist", FROM_OFFICE, 403, peer=INSIDER),
    _case("a header of IPv6 forged by somebody else", proxy(_V6_IN), 403, peer=OUTSIDER),
    _case(
        "a forged header that names the balancer",
        proxy(ipaddress.ip_address(BALANCER).packed),
        403,
        peer=OUTSIDER,
    ),
    _case(
        "a client on the allowlist that names itself",
        proxy(ipaddress.ip_address(INSIDER).packed),
        403,
        peer=INSIDER,
    ),
    _case("the balancer for itself", proxy(ipaddress.ip_address(BALANCER).packed), 403),
    _case("an allowed address mapped into IPv6", proxy(_MAPPED), 403),
    _case("an allowed address in the compatible form of IPv6", proxy(_COMPATIBLE), 403),
    _case("an allowed address behind NAT64", proxy(_NAT64), 403),
    _case("the address of nobody", proxy(b"\0" * 4), CLOSED),
    _case("the address of everybody", proxy(b"\xff" * 4), CLOSED),
    _case("the address of nobody in IPv6", proxy(b"\0" * 16), CLOSED),
    _case(
        "the address just above the allowed network", proxy(ipaddress.ip_address("203.0.114.0").packed), 403
    ),
    _case(
        "the address just below the allowed network", proxy(ipaddress.ip_address("203.0.112.255").packed), 403
    ),
    _case("an allowed address with its bytes reversed", proxy(_IN[::-1]), 403),
    _case("an allowed address as the destination only", proxy(_OUT + _IN + b"\xc3\x50\x01\xbb"), 403),
]

FORM = [
    _case("no header at all", b"", CLOSED),
    _case("version 1", _line(f"PROXY TCP4 {OFFICE} 192.0.2.80 50000 443"), CLOSED),
    _case("version 1 of IPv6", _line("PROXY TCP6 2001:db8:1::9 2001:db8::80 50000 443"), CLOSED),
    _case("version 1 of an unknown client", _line("PROXY UNKNOWN"), CLOSED),
    _case(
        "version 1 before version 2",
        _line(f"PROXY TCP4 {OFFICE} 192.0.2.80 50000 443") + FROM_STRANGER,
        CLOSED,
    ),
    _case(
        "version 1 after version 2", FROM_STRANGER + _line(f"PROXY TCP4 {OFFICE} 192.0.2.80 50000 443"), 400
    ),
    _case("version 2 twice, the good one last", FROM_STRANGER + FROM_OFFICE, 400),
    _case("version 2 twice, the good one first", FROM_OFFICE + FROM_STRANGER, 400),
    _case("version 2 twice, both good", FROM_OFFICE * 2, 400),
    _case("a signature with a wrong last byte", FROM_OFFICE[:11] + b"X" + FROM_OFFICE[12:], CLOSED),
    _case("a signature with a wrong first byte", b"X" + FROM_OFFICE[1:], CLOSED),
    _case("a signature without its first byte", FROM_OFFICE[1:], CLOSED),
    _case("a byte before the signature", b"\n" + FROM_OFFICE, CLOSED),
    _case("blank lines before the signature", b"\r\n\r\n" + FROM_OFFICE, CLOSED),
    _case("a request before the signature", _RAW + FROM_OFFICE, CLOSED),
    _case("protocol version 1 in a binary header", proxy(_IN, command=0x11), CLOSED),
    _case("protocol version 3 in a binary header", proxy(_IN, command=0x31), CLOSED),
    _case("protocol version 0 in a binary header", proxy(_IN, command=0x01), CLOSED),
    _case("a command that nobody knows", proxy(_IN, command=0x22), CLOSED),
    _case("the command LOCAL without addresses", proxy(b"", command=0x20, family=0x00), 403),
    _case("the command LOCAL with the address of the office", proxy(_IN, command=0x20), 403),
    _case("the command LOCAL by somebody else", proxy(_IN, command=0x20), 403, peer=OUTSIDER),
    _case(
        "the command LOCAL by a client on the allowlist",
        proxy(b"", command=0x20, family=0x00),
        403,
        peer=INSIDER,
    ),
    _case("no family", proxy(b"", family=0x00), CLOSED),
    _case("no family with the address of the office", proxy(_IN, family=0x00), CLOSED),
    _case("the family of UNIX sockets", proxy(_UNIX, family=0x31), CLOSED),
    _case("the family of UNIX sockets with an address of IPv4", proxy(_IN, family=0x31), CLOSED),
    _case("a stranger with IPv4 over UDP", proxy(_OUT, family=0x12), 403),
    _case("a stranger with IPv6 over UDP", proxy(_V6_OUT, family=0x22), 403),
    _case("IPv4 without a transport", proxy(_IN, family=0x10), CLOSED),
    _case("a family that nobody knows", proxy(_IN, family=0x41), CLOSED),
    _case("a transport that nobody knows", proxy(_IN, family=0x13), CLOSED),
    _case("the family of IPv6 with an address of IPv4", proxy(_IN, family=0x21), CLOSED),
    _case("the family of IPv4 with an address of IPv6", proxy(_V6_IN, family=0x11), CLOSED),
    _case("addresses of no length", proxy(b"", family=0x11), CLOSED),
    _case("addresses that are one byte short", proxy(_IN, length=11), CLOSED),
    _case("a length that swallows the request", proxy(_IN, length=12 + len(_RAW)), CLOSED),
    _case("the greatest length with too few bytes", proxy(_IN, length=0xFFFF), OPEN),
    _case("a field longer than the header", proxy(_IN, tail=tlv(0x04, b"", length=500)), CLOSED),
    _case("a field cut off in its length", proxy(_IN, tail=b"\x04\x00"), CLOSED),
    _case("a stranger with a field that names an authority", proxy(_OUT, tail=tlv(0x02, b"demo")), 403),
    _case(
        "a stranger with a field that claims TLS",
        proxy(_OUT, tail=tlv(0x20, b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3"))),
        403,
    ),
    _case("a stranger with a field of Linode's own range", proxy(_OUT, tail=tlv(0xEA, _IN)), 403),
    _case("a stranger with a header in a field", proxy(_OUT, tail=tlv(0x04, FROM_OFFICE)), 403),
    _case("a stranger with a thousand fields", proxy(_OUT, tail=tlv(0x04, b"") * 1000), 403),
    _case("random bytes of the length of a header", bytes(range(128, 156)), CLOSED),
]

CUT = [
    Case(f"a header that ends after {length} bytes", b"", OPEN, prefix=FROM_OFFICE[:length])
    for length in (1, 11, 12, 13, 15, 16, 17, 20, 27)
]

INSIDE = [
    _case("a header on the internal listener", FROM_OFFICE, 400, listener="internal_api"),
    _case(
        "a header on the internal listener by a stranger",
        FROM_OFFICE,
        400,
        listener="internal_api",
        peer=OUTSIDER,
    ),
    _case(
        "version 1 on the internal listener by a stranger",
        _line(f"PROXY TCP4 {INSIDER} 127.0.0.1 50000 443"),
        400,
        listener="internal_api",
        peer=OUTSIDER,
    ),
    _case(
        "a header on the internal chat by a stranger",
        FROM_OFFICE,
        400,
        listener="internal_chat",
        peer=OUTSIDER,
    ),
    _case("a stranger on the internal listener", b"", 403, listener="internal_api", peer=OUTSIDER),
    _case("the balancer itself on the internal listener", b"", 403, listener="internal_api", peer=BALANCER),
    _case(
        "a pod that no rule selects on the internal listener",
        b"",
        403,
        listener="internal_api",
        peer="127.0.0.2",
    ),
    _case(
        "the header on the external chat by somebody else",
        FROM_OFFICE,
        403,
        listener="external_chat",
        peer=OUTSIDER,
    ),
    _case(
        "an address of IPv6 that may use the API only, on the chat",
        proxy(_V6_IN),
        403,
        listener="external_chat",
    ),
    _case("no header on the external chat", b"", CLOSED, listener="external_chat"),
]

AROUND = [
    Case(
        "a header in front of every request of a connection", _RAW + FROM_OFFICE + _RAW, (200, 400), _MODELS
    ),
    Case("the signature alone in front of a request", SIGNATURE + _RAW, 400),
]

CASES = [*CONTROLS, *WHO, *FORM, *CUT, *INSIDE, *AROUND]
