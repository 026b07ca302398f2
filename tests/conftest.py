"""What every test must leave behind: nothing.

A task that outlives its test is a task that outlives its owner in the operator; pytest-asyncio would
cancel it in silence.
"""

from __future__ import annotations

import asyncio
import inspect
import pathlib
from collections.abc import AsyncIterator

import hypothesis
import pytest

from results import Results

# How long one example takes says more of the machine than of the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

#: Seconds that connections of a server which was just closed may take to end.
_GRACE = 1.0


@pytest.fixture
async def _leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left: set[asyncio.Task[object]] = set()
    deadline = asyncio.get_running_loop().time() + _GRACE
    while asyncio.get_running_loop().time() < deadline:
        left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0.01)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    pytest.fail(f"tasks were left behind: {sorted(task.get_name() + ' ' + repr(task) for task in left)}")


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test that leaves tasks behind; set up first, so it looks last."""
    if isinstance(request.node, pytest.Function) and inspect.iscoroutinefunction(request.node.obj):
        request.getfixturevalue("_leaked_tasks")


@pytest.fixture
def results(request: pytest.FixtureRequest) -> Results:
    """Where a test says what the docs shall show of it."""
    return Results(str(request.path.relative_to(pathlib.Path(__file__).parent)))
