"""A simulator per test and a caller that answers status, body and headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from lab.linode import LinodeSimulator


@dataclass
class Reply:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        return str(self.body["errors"][0]["reason"])

    @property
    def field(self) -> str | None:
        found: str | None = self.body["errors"][0].get("field")
        return found


class Api:
    """Calls as the person `admin` unless another token is named."""

    def __init__(self, sim: LinodeSimulator, session: aiohttp.ClientSession) -> None:
        self.sim, self.session = sim, session

    async def __call__(
        self, method: str, path: str, body: Any = None, *, token: str | None = "admin-token", **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        url = f"{self.sim.url}{path}"
        async with self.session.request(method, url, json=body, headers=sent) as answer:
            document = None if answer.status == 204 else await answer.json(content_type=None)
            return Reply(answer.status, document, answer.headers.copy())


@pytest.fixture
async def sim() -> AsyncIterator[LinodeSimulator]:
    async with LinodeSimulator() as simulator:
        yield simulator
        assert simulator.violations == []


@pytest.fixture
async def api(sim: LinodeSimulator) -> AsyncIterator[Api]:
    # No kept connections: aiohttp repeats idempotent requests on them by itself and would hide lost replies.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Api(sim, session)
