"""Fixtures of the control plane tests: one lab per worker, one world per test."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from lab.cluster.lab import Lab
from lab.world import World


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane with fake nodes, for all tests of this worker."""
    with Lab() as running:
        yield running


@pytest.fixture
async def world(lab: Lab, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    """A namespace, Linode, its controller and an operator that is not started yet."""
    lab.nodes.forget()
    async with World(lab, tmp_path) as made:
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest.fixture
async def started(lab: Lab, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    """A world whose operator runs, without a Lease, so that a killed one is replaced at once."""
    lab.nodes.forget()
    async with World(lab, tmp_path, operator={"flags": ["--no-leader-elect"]}) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []
