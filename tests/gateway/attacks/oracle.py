"""What may reach the engine, judged from the bytes that were sent; written without the renderer.

It knows the allowlist, the balancer, the key and the paths by heart, and reads more strictly than
Envoy wherever that is possible. Where RFC 9112 leaves a choice it knows Envoy's: lines may end with a
line feed alone (2.2), blanks of any kind and number part the words of the first line (3), folded lines
become one value (5.2), a carriage return inside a header is dropped.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import struct

from gateway.attacks import site, wire

PATHS = frozenset(
    f"/v1/{name}".encode()
    for name in ("chat/completions", "completions", "embeddings", "responses", "messages", "models")
)
_NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("203.0.113.0/24", "2001:db8:1::/48", "127.0.0.1/32")
)
_UNRESERVED = re.compile(rb"%(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEY = site.KEY.encode()


def client(prefix: bytes, peer: str) -> tuple[bool, bytes]:
    """Whether these first bytes of a connection admit its client, and what is left of them."""
    if len(prefix) < 16 or prefix[:12] != wire.SIGNATURE or peer != site.BALANCER:
        return False, b""
    command, family, length = struct.unpack("!BBH", prefix[12:16])
    block, rest = prefix[16 : 16 + length], prefix[16 + length :]
    size = {0x1: 4, 0x2: 16}.get(family >> 4)
    if command != 0x21 or size is None or family & 0xF not in (1, 2) or len(block) < length:
        return False, b""
    if length < 2 * size + 4 or not _fields_fit(block[2 * size + 4 :]):
        return False, b""
    source = ipaddress.ip_address(block[:size])
    return any(source in network for network in _NETWORKS if network.version == source.version), rest


def _fields_fit(tail: bytes) -> bool:
    while tail:
        if len(tail) < 3 or len(tail) < 3 + struct.unpack("!H", tail[1:3])[0]:
            return False
        tail = tail[3 + struct.unpack("!H", tail[1:3])[0] :]
    return True


def path(target: bytes) -> bytes | None:
    """The path that a target stands for, None if it must be refused."""
    if absolute := re.match(rb"https?://[^/?#\\]+", target, re.IGNORECASE):
        target = target[absolute.end() :] or b"/"
    if re.search(rb"[\x00-\x20#\x7f-\xff]", target) or not target.startswith(b"/"):
        return None
    bare = target.partition(b"?")[0]
    if re.search(rb"%(2f|5c|00)", bare, re.IGNORECASE):
        return None
    bare = _UNRESERVED.sub(lambda found: bytes.fromhex(found[1].decode()), bare).replace(b"\\", b"/")
    bare = re.sub(rb"/+", b"/", bare)
    parts: list[bytes] = []
    for part in bare.split(b"/")[1:]:
        bare = part.partition(b";")[0]  # a dot segment is one with parameters, too
        if bare == b"..":
            parts = parts[:-1]
        elif bare != b".":
            parts.append(part)
    return b"/" + b"/".join(parts)


def has_key(fields: list[tuple[bytes, bytes]]) -> bool:
    """One Authorization, and it is the key; or a line of X-API-Key that is the key."""
    bearer = [value for name, value in fields if name == b"authorization"]
    other = [value for name, value in fields if name == b"x-api-key"]
    return (
        len(bearer) == 1 and bearer[0][:7].lower() == b"bearer " and bearer[0][7:] == _KEY
    ) or _KEY in other


@dataclasses.dataclass(frozen=True)
class Request:
    """One request of a stream, as far as it can be read."""

    target: bytes
    admitted: bool


def requests(raw: bytes) -> list[Request]:
    """The requests of a stream; it ends at the first one that cannot be read."""
    found: list[Request] = []
    while True:
        raw = raw.lstrip(b"\r\n")
        end = re.search(rb"\n\r?\n", raw)
        if not end:
            return found
        head, rest = raw[: end.start()], raw[end.end() :]
        first, *lines = head.split(b"\n")
        words = re.split(rb"[ \t\r]+", first.strip(b" \t\r"))
        fields = _fields([line.replace(b"\r", b"") for line in lines])
        if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or words[2] != b"HTTP/1.1" or fields is None:
            return found
        body = _body(fields, rest)
        where = path(words[1])
        found.append(Request(words[1], where in PATHS and has_key(fields)))
        if body is None:
            return found
        raw = rest[body:]


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], (fields[-1][1] + b" " + line.strip(b" \t")).strip(b" \t"))
        elif not colon or not _TOKEN.fullmatch(name) or b"_" in name or b"\0" in value:
            return None
        else:
            fields.append((name.lower(), value.strip(b" \t")))
    return fields


def _body(fields: list[tuple[bytes, bytes]], rest: bytes) -> int | None:
    """Length of the body as sent; None if what is behind it must not be read."""
    encodings = [value for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if encodings:
        whole = re.match(rb"(?:[0-9a-fA-F]{1,8}[^\n]*\n)", rest)
        return _chunks(rest) if whole and not lengths and encodings[0].lower() == b"chunked" else None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rb"\d{1,9}", lengths[0]) or int(lengths[0]) > len(rest):
        return None
    return int(lengths[0])


def _chunks(rest: bytes) -> int | None:
    place = 0
    while size := re.match(rb"([0-9a-fA-F]{1,8})(;[^\r\n]*)?\r\n", rest[place:]):
        length = int(size[1], 16)
        place += size.end()
        if not length:
            trailer = re.match(rb"(?:[^\n]*[^\r\n][^\n]*\n)*\r*\n", rest[place:])
            return place + trailer.end() if trailer else None
        behind = re.match(rb"[^\n]*\n", rest[place + length :])  # what a chunk holds beyond its size
        if not behind:
            return None
        place += length + behind.end()
    return None
