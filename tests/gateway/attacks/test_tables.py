"""Every row of every table against the real Envoy: its answer, and what of it reached an upstream."""

from __future__ import annotations

import re

import pytest

from gateway.attacks import chat, headers, hops, http2, paths, proxy_protocol, site, smuggling
from gateway.attacks.case import Case, targets
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

TABLES = {
    "paths": paths.CASES,
    "headers": headers.CASES,
    "hops": hops.CASES,
    "proxy_protocol": proxy_protocol.CASES,
    "smuggling": smuggling.CASES,
    "chat": chat.CASES,
}
ROWS = [pytest.param(row, id=row.name) for rows in TABLES.values() for row in rows]
STREAMS = [pytest.param(row, id=row.name) for row in http2.CASES]
_FORWARDING = {b"forwarded", b"x-real-ip", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-server"}
_CREDENTIALS = {b"x-api-key", b"cookie"}


@pytest.mark.parametrize("row", ROWS)
def test_attack(row: Case, plain: site.Site) -> None:
    outcome = row.run(plain)
    assert (outcome.seen, targets(outcome.engine + outcome.chat)) == (row.expected, row.reaches)
    check_what_the_engine_saw(outcome.engine)
    check_what_the_chat_saw(outcome.chat)


@pytest.mark.parametrize("row", STREAMS)
@pytest.mark.parametrize("encrypted", [False, True], ids=["in clear", "over TLS"])
def test_attack_by_http2(
    row: http2.Case, encrypted: bool, plain: site.Site, request: pytest.FixtureRequest
) -> None:
    target: site.Site = request.getfixturevalue("encrypted_site") if encrypted else plain
    outcome = row.run(target)
    assert (outcome.seen, targets(outcome.engine + outcome.chat)) == (row.expected, row.reaches)
    check_what_the_engine_saw(outcome.engine)


def check_what_the_engine_saw(requests: tuple[bytes, ...]) -> None:
    """The engine's own key once, and nothing by which a client could pass for another one."""
    for head, fields in map(_read, requests):
        assert [value for name, value in fields if name == b"authorization"] == [b"Bearer " + b"e" * 40]
        names = [name for name, _ in fields]
        assert not set(names) & (_FORWARDING | _CREDENTIALS)
        assert names.count(b"x-forwarded-for") == names.count(b"host") == 1
        assert site.KEY.encode() not in head


def check_what_the_chat_saw(requests: tuple[bytes, ...]) -> None:
    """The address of the client once, as the gateway sees it, and never the engine's key."""
    for head, fields in map(_read, requests):
        assert [value for name, value in fields if name == b"x-forwarded-for"] == [site.OFFICE.encode()]
        assert not {name for name, _ in fields} & _FORWARDING
        assert b"e" * 40 not in head


def _read(request: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    head = request.partition(b"\r\n\r\n")[0]
    assert not re.search(rb"[\x00\r\n]", head.replace(b"\r\n", b""))
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return head, [(name, value) for name, _, value in lines]


def test_the_tables_are_long_and_say_what_they_try() -> None:
    names = [row.name for rows in TABLES.values() for row in rows] + [row.name for row in http2.CASES]
    written = [name for name in names if " is hidden from a client " not in name]
    assert len(written) >= 300
    assert len(names) == len(set(names))


@pytest.mark.parametrize("table", [*TABLES.values(), http2.CASES], ids=[*TABLES, "http2"])
def test_a_table_has_rows_that_reach_the_upstream_and_many_more_that_do_not(
    table: list[Case] | list[http2.Case],
) -> None:
    through = [row for row in table if row.reaches]
    assert 2 <= len(through) <= len(table) / 2
