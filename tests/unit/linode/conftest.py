"""Shared pieces: the Linode simulator, and a client whose sleeps are recorded instead of slept."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import hypothesis
import pytest

from ai_sandbox_operator.linode import client as api
from lab.linode import LinodeSimulator

TOKEN = "operator-token"

# A busy machine is no defect: examples are bounded by their number, not by wall time.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@dataclasses.dataclass
class Clock:
    """Monotonic and wall time that only moves when something sleeps."""

    now: float = 1000.0
    slept: list[float] = dataclasses.field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sim() -> AsyncIterator[LinodeSimulator]:
    async with LinodeSimulator() as simulator:
        yield simulator
        assert simulator.violations == []


@pytest.fixture
def calls() -> list[api.Call]:
    return []


@pytest.fixture
async def client(
    sim: LinodeSimulator, clock: Clock, calls: list[api.Call]
) -> AsyncIterator[api.LinodeClient]:
    async with api.LinodeClient(
        sim.url,
        token_provider=lambda: TOKEN,
        clock=clock,
        wall=clock,
        sleep=clock.sleep,
        rand=lambda: 0.5,
        observer=calls.append,
    ) as made:
        yield made
