"""The simulated Linode API on a real socket, and a keeper before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lab.linode import LinodeSimulator
from unit.reconcile.linode_world import World


@pytest.fixture
async def sim() -> AsyncIterator[LinodeSimulator]:
    async with LinodeSimulator() as simulator:
        yield simulator
        assert simulator.violations == []


@pytest.fixture
async def world(sim: LinodeSimulator) -> AsyncIterator[World]:
    made = World(sim)
    yield made
    await made.close()
