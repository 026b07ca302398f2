"""The PROXY header comes before TLS; inside of it, or without it, it is worth nothing."""

from __future__ import annotations

import pytest

from gateway.attacks import site, wire
from gateway.attacks.case import targets
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")

_ASK = site.get(b"/v1/models")


def test_control_a_header_before_the_handshake_is_read(encrypted_site: site.Site) -> None:
    outcome = encrypted_site.send(_ASK)
    assert (outcome.seen, targets(outcome.engine)) == ((200,), (b"/v1/models",))


@pytest.mark.parametrize("first", [site.FROM_OFFICE, site.FROM_STRANGER])
def test_a_header_inside_tls_is_a_broken_request(encrypted_site: site.Site, first: bytes) -> None:
    outcome = encrypted_site.send(site.FROM_OFFICE + _ASK, prefix=first)
    assert (outcome.seen, outcome.engine) == ((400,), ())


@pytest.mark.parametrize("peer", [site.BALANCER, site.INSIDER, site.OUTSIDER])
def test_a_handshake_without_a_header_before_it_is_not_answered(encrypted_site: site.Site, peer: str) -> None:
    mark = encrypted_site.engine.mark()
    with pytest.raises(OSError):
        wire.close(encrypted_site.dial(peer=peer, tls=encrypted_site.tls))
    encrypted_site.fence()
    assert encrypted_site.engine.since(mark) == []


def test_text_instead_of_a_handshake_is_not_answered(encrypted_site: site.Site) -> None:
    mark = encrypted_site.engine.mark()
    with encrypted_site.dial(prefix=site.FROM_OFFICE + _ASK) as connection:
        assert b"HTTP" not in (wire.more(connection, 2) or b"")
    encrypted_site.fence()
    assert encrypted_site.engine.since(mark) == []
