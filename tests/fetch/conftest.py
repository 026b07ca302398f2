"""A hub and a volume for each test."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest

from fetch.rig import Rig, hub_of
from lab.hub import HubServer

_TWICE = pytest.StashKey[list[tuple[int, int]]]()


@pytest.fixture
def fetched_twice(request: pytest.FixtureRequest) -> Callable[[int, int], None]:
    """Takes the bytes that a kill made be fetched twice, and the model's; told after all tests."""

    def note(again: int, size: int) -> None:
        request.config.stash.setdefault(_TWICE, []).append((max(0, again), size))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(_TWICE, []):
        again, size = sum(one for one, _ in figures), sum(size for _, size in figures)
        most = max(one / size for one, size in figures)
        terminalreporter.write_line(
            f"{len(figures)} kills of a fetch: {again / size:.1%} of the model fetched twice per kill, "
            f"at most {most:.1%}"
        )


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    hub = hub_of()
    with HubServer(hub) as url:
        yield Rig(hub, url, tmp_path)
