"""A gateway, its upstream and its certificate authority for each test."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from ai_sandbox_operator.desired import facts
from gateway.cases import KNOWN, Spec, sandbox, with_access
from gateway.traffic.certificates import Authority
from gateway.traffic.relay import Relay
from gateway.traffic.running import Running
from gateway.traffic.upstream import Upstream
from lab.envoy import process as envoy_process

ENCRYPTED: Spec = with_access(tls={"mode": "SelfSigned"})


def keys(**values: str) -> facts.Facts:
    """Facts with these keys."""
    return dataclasses.replace(KNOWN, material=dataclasses.replace(KNOWN.material, api_keys=values))


@dataclasses.dataclass(frozen=True)
class Site:
    """What a test has."""

    gateway: Running
    upstream: Upstream
    authority: Authority


Opening = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Opening:
    """Start a gateway of `spec` with an upstream behind it."""

    @contextlib.asynccontextmanager
    async def opening(
        spec: Spec = ENCRYPTED,
        known: facts.Facts = KNOWN,
        *,
        replacements: Mapping[str, str] | None = None,
        keep_alive: float = 5.0,
        distance: float = 0.0,
    ) -> AsyncIterator[Site]:
        if envoy_process.binary() is None:
            pytest.skip("envoy is not installed")
        async with (
            Upstream(keep_alive=keep_alive) as upstream,
            Relay([upstream.port], distance=distance) as relay,
        ):
            gateway = Running(tmp_path / "gateway", relay if distance else upstream, replacements)
            authority = Authority("first")
            authority.renew(gateway.tls)
            gateway.write(sandbox(spec), known)
            gateway.start()
            try:
                yield Site(gateway, upstream, authority)
            finally:
                gateway.stop()

    return opening
