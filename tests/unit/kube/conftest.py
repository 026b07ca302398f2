"""A small API server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_sandbox_operator.kube.client import KubeClient
from unit.kube.apiserver import ApiServer


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer().serving() as server:
        yield server


@pytest.fixture
async def client(api: ApiServer) -> AsyncIterator[KubeClient]:
    async with api.client() as client:
        yield client
