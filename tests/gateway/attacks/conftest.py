"""The gateways under attack: one for each worker of pytest, shared by all cases that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.attacks import site
from lab.envoy import process as envoy_process


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[site.Site]:
    """A gateway that speaks in clear."""
    if envoy_process.binary() is None:
        pytest.skip("envoy is not installed")
    one = site.Site(tmp_path_factory.mktemp("plain"))
    one.gateway.start()
    yield one
    one.close()


@pytest.fixture(scope="session")
def encrypted_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[site.Site]:
    """A gateway that speaks TLS."""
    one = site.Site(tmp_path_factory.mktemp("encrypted"), encrypted=True)
    one.gateway.start()
    yield one
    one.close()
