"""SIGKILL anywhere, then another run: nothing partial is ever seen, and what is complete is kept.

Half of the points are steps on the volume, counted in a run that is not killed; the others are amounts of
bytes that have left the hub. All points come from one seed.
"""

from __future__ import annotations

import pathlib
import random
import signal
import time
from collections.abc import Callable

import pytest

from ai_sandbox_operator.fetch import store
from fetch.rig import Rig, hub_of, published, wanted
from fetch.watcher import Watcher
from lab.hub import Fault, Hub, HubServer, small_model

SEED, ALL, FAST = 20261124, 50, 12
MODEL_FILES = small_model(1_200_000, shards=6, seed="kills")
WANTED = wanted(MODEL_FILES)
SIZE = sum(map(len, WANTED.values()))
WORKERS = 4
LARGEST = max(map(len, WANTED.values()))
FRACTIONS = [random.Random(SEED + n).random() for n in range(ALL)]
POINTS = [
    pytest.param(n, fraction, marks=[pytest.mark.slow] if n >= FAST else [], id=f"{n:02}-{fraction:.3f}")
    for n, fraction in enumerate(FRACTIONS)
]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Steps on the volume of a run that nobody kills."""
    hub = hub_of(MODEL_FILES)
    with HubServer(hub) as url:
        rig = Rig(hub, url, tmp_path_factory.mktemp("steps"))
        count = rig.directory / "count"
        with rig.killing(0, count) as running:
            running.communicate(timeout=60)
        return int(count.read_text())


@pytest.mark.parametrize(("number", "fraction"), POINTS)
def test_after_a_kill_the_next_run_completes(
    number: int,
    fraction: float,
    steps: int,
    fetched_twice: Callable[[int, int], None],
    tmp_path: pathlib.Path,
) -> None:
    hub = hub_of(MODEL_FILES)
    with HubServer(hub) as url:
        rig = Rig(hub, url, tmp_path)
        with Watcher(rig.target, WANTED) as watcher:
            if number % 2:
                kill_at_step(rig, 1 + int(fraction * steps))
            else:
                kill_at_bytes(rig, int(fraction * SIZE))
            there = rig.complete_files() if not rig.target.exists() else set(WANTED)
            settle(hub)
            hub.requests.clear()
            code, said = rig.finish()
        assert code == 0, said
        assert published(rig.target) == WANTED
        assert watcher.partial == []
        assert watcher.looks > 100
        assert rig.names() == [store.LOCK, "tiny"]
        # Each file that was not complete once, and no other.
        assert sorted(hub.downloads()) == sorted(set(WANTED) - there)
        again = sum(hub.sent.values()) - SIZE
        # What the network still held when the process died counts as sent.
        assert again <= WORKERS * LARGEST
        fetched_twice(again, SIZE)


def settle(hub: Hub) -> None:
    """Until the hub has taken note of the last request that the killed process sent."""
    seen = -1
    while seen != len(hub.requests):
        seen = len(hub.requests)
        time.sleep(0.1)


def kill_at_step(rig: Rig, step: int) -> None:
    with rig.killing(step, "/dev/null") as running:
        running.communicate(timeout=60)
        # Threads make the number of steps vary by a few, so the last ones may not be reached.
        assert running.returncode in (-signal.SIGKILL, 0)


def kill_at_bytes(rig: Rig, amount: int) -> None:
    rig.hub.faults.append(Fault(at=("cdn",), bytes_per_second=600_000))
    with rig.process() as running:
        deadline = time.monotonic() + 60
        while sum(rig.hub.sent.values()) < amount and time.monotonic() < deadline:
            time.sleep(0.002)
        running.kill()
        running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL
    rig.hub.faults.clear()


def test_a_model_that_is_replaced_is_whole_until_it_goes(tmp_path: pathlib.Path) -> None:
    hub = hub_of(MODEL_FILES)
    with HubServer(hub) as url:
        rig = Rig(hub, url, tmp_path)
        assert rig.finish()[0] == 0
        other = "e" * 40
        rig.repository.older[other] = small_model(60_000, shards=2, seed="other")
        new = wanted(rig.repository.older[other])
        with Watcher(rig.target, WANTED, new) as watcher:
            code, said = rig.finish(commit=other)
        assert code == 0, said
        assert watcher.partial == []
        assert published(rig.target) == new
