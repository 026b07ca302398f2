"""The endpoints: whom they call alive, and that a scrape delays nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from ai_sandbox_operator.runtime import health, metrics


class Signs:
    """What the endpoints judge."""

    def __init__(self) -> None:
        self.age = 0.0
        self.started = True
        self.refused = False


@pytest.fixture
def signs() -> Signs:
    return Signs()


@pytest_asyncio.fixture
async def url(signs: Signs) -> AsyncIterator[str]:
    status = health.Health(
        resync_age=lambda: signs.age,
        resync_interval=10.0,
        started=lambda: signs.started,
        refused=lambda: signs.refused,
        before_scrape=lambda: None,
    )
    runner, port = await status.serve("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def asked(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("started", "age", "alive", "ready"),
    [(False, 1000.0, 200, 503), (True, 1.0, 200, 200), (True, 39.0, 200, 200), (True, 41.0, 503, 503)],
)
async def test_a_process_lives_until_its_view_is_old_and_is_ready_once_it_is_whole(
    url: str, signs: Signs, started: bool, age: float, alive: int, ready: int
) -> None:
    signs.started, signs.age = started, age
    assert (await asked(f"{url}/healthz"))[0] == alive
    assert (await asked(f"{url}/readyz"))[0] == ready


async def test_a_process_whose_watch_is_refused_lives_and_is_not_ready(url: str, signs: Signs) -> None:
    signs.refused = True
    assert await asked(f"{url}/healthz") == (200, "ok\n")
    assert await asked(f"{url}/readyz") == (503, "the API server refuses the credentials of the watch\n")


async def test_a_scrape_that_takes_long_delays_nothing_else(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> bytes:
        time.sleep(1.0)
        return b"# slow\n"

    monkeypatch.setattr(metrics, "render", slow)
    scrape = asyncio.create_task(asked(f"{url}/metrics"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    assert await asked(f"{url}/healthz") == (200, "ok\n")
    assert time.monotonic() - began < 0.8
    assert await scrape == (200, "# slow\n")
