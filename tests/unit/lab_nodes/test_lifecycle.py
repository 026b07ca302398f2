from __future__ import annotations

from typing import Any

import pytest

from lab.cluster.nodes import lifecycle
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.cluster.nodes.lifecycle import Blocked, Phase, State, Times
from unit.lab_nodes.factory import pod

T0 = 1_700_000_000.0
TIMES = Times()
CRASH = Behaviour("crash")
NEVER = Behaviour("never-ready")
NO_IMAGE = Behaviour("image-pull")
MOUNT = Blocked('secret "tls" not found')
CONFIG = Blocked('secret "key" not found', container="engine")


class Life:
    """One pod; time passes only in here."""

    def __init__(self, **arguments: Any) -> None:
        self.pod = pod(**arguments)
        self.now = T0
        self.state = lifecycle.begin(T0)
        self.due: float | None = T0
        self.seen = [Phase.CREATING]

    def until(self, seconds: float, behaviour: Behaviour = NORMAL, blocked: Blocked | None = None) -> State:
        """Look at every due time up to `T0 + seconds`, beginning now, as the kubelet does."""
        due: float | None = self.now
        for _ in range(1000):
            if due is None or due > T0 + seconds:
                break
            self.now = max(self.now, due)
            self.state, due = lifecycle.advance(
                self.state, self.pod, behaviour, self.now, times=TIMES, blocked=blocked
            )
            if self.state.phase != self.seen[-1]:
                self.seen.append(self.state.phase)
        else:
            pytest.fail("asks again without end")
        self.now, self.due = T0 + seconds, due
        return self.state


def test_service_becomes_ready_and_then_needs_no_timer() -> None:
    life = Life()
    assert life.until(0.04).phase is Phase.CREATING
    assert life.until(0.1).phase is Phase.RUNNING
    assert life.until(60).phase is Phase.READY
    assert life.due is None
    assert life.seen == [Phase.CREATING, Phase.RUNNING, Phase.READY]


def test_slow_one_takes_its_time() -> None:
    life = Life()
    assert life.until(2.9, Behaviour("slow", seconds=3)).phase is Phase.RUNNING
    assert life.until(3.1, Behaviour("slow", seconds=3)).phase is Phase.READY


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_pod_that_runs_to_completion_succeeds(policy: str) -> None:
    state = Life(restart_policy=policy).until(60, Behaviour(message="done"))
    assert state.phase is Phase.SUCCEEDED
    assert state.last is not None
    assert (state.last.exit_code, state.last.reason, state.last.message) == (0, "Completed", "done")


def test_failure_of_a_pod_that_is_not_restarted_is_final() -> None:
    life = Life(restart_policy="Never")
    state = life.until(60, Behaviour("fail", exit_code=78))
    assert (state.phase, life.due, state.restarts) == (Phase.FAILED, None, 0)
    assert state.last is not None
    assert state.last.exit_code == 78
    assert life.until(90).phase is Phase.FAILED


def test_failure_is_retried_on_failure_until_it_succeeds() -> None:
    life = Life(restart_policy="OnFailure")
    assert life.until(3, CRASH).restarts > 1
    assert life.until(10).phase is Phase.SUCCEEDED


def test_crash_loop_restarts_first_at_once_then_with_growing_pauses() -> None:
    life = Life()
    pauses = []
    began = 0.0
    for tick in range(1, 4000):
        before = life.state.phase
        life.until(tick / 100, CRASH)
        if before is not Phase.BACKOFF and life.state.phase is Phase.BACKOFF:
            began = life.now
        if before is Phase.BACKOFF and life.state.phase is not Phase.BACKOFF:
            pauses.append(round(life.now - began, 1))
    assert pauses[:6] == [0.5, 1, 2, 4, 5, 5]
    assert Phase.READY not in life.seen
    assert life.state.last is not None
    assert (life.state.last.exit_code, life.state.last.reason) == (1, "Error")


def test_out_of_memory() -> None:
    state = Life().until(1, Behaviour("oom"))
    assert state.last is not None
    assert (state.last.exit_code, state.last.reason) == (137, "OOMKilled")


def test_clean_exit_of_a_service_is_a_crash_loop_too() -> None:
    state = Life().until(0.9, Behaviour("crash", exit_code=0))
    assert state.phase is Phase.BACKOFF
    assert state.last is not None
    assert (state.last.exit_code, state.last.reason) == (0, "Completed")


def test_ready_pod_crashes_at_once_and_recovers_at_once() -> None:
    life = Life()
    life.until(10)
    assert life.until(10.01, CRASH).restarts == 1
    life.until(30, CRASH)
    restarts = life.state.restarts
    assert life.until(30.2).phase is Phase.READY
    assert life.state.restarts in (restarts, restarts + 1)
    assert life.state.last is not None


def test_ready_pod_stops_being_ready_without_a_restart() -> None:
    life = Life()
    started = life.until(10).started
    assert life.until(20, NEVER).phase is Phase.RUNNING
    assert life.due is None
    state = life.until(30)
    assert (state.phase, state.restarts, state.started) == (Phase.READY, 0, started)


def test_missing_image_is_tried_then_backed_off_and_found() -> None:
    life = Life()
    assert life.until(0.2, NO_IMAGE).phase is Phase.PULL_ERROR
    assert life.until(5, NO_IMAGE).phase is Phase.PULL_BACKOFF
    assert life.until(6).phase is Phase.READY
    assert life.state.restarts == 0


def test_image_does_not_matter_once_the_container_runs() -> None:
    life = Life()
    life.until(5)
    assert life.until(6, NO_IMAGE).phase is Phase.READY


def test_missing_volume_keeps_the_pod_in_creation() -> None:
    life = Life()
    state = life.until(5, blocked=MOUNT)
    assert (state.phase, state.blocked) == (Phase.CREATING, MOUNT)
    assert life.due is not None
    assert life.due - life.now <= TIMES.retry
    assert life.until(5.2).phase is Phase.READY
    assert life.state.blocked is None


def test_missing_variable_is_a_configuration_error() -> None:
    life = Life()
    life.until(5, blocked=MOUNT)
    assert life.until(10, blocked=CONFIG).phase is Phase.CONFIG_ERROR
    assert life.until(15, blocked=MOUNT).phase is Phase.CREATING
    assert life.until(16).phase is Phase.READY


def test_waiting_for_the_same_changes_nothing() -> None:
    life = Life()
    assert life.until(1, blocked=CONFIG) == life.until(9, blocked=CONFIG)


def test_short_creation_is_not_worth_a_write() -> None:
    state = lifecycle.begin(T0)
    assert not lifecycle.worth_telling(state, TIMES)
    assert lifecycle.worth_telling(state, Times(creating=10))
    assert lifecycle.worth_telling(Life().until(1, blocked=MOUNT), TIMES)
    assert lifecycle.worth_telling(Life().until(0.1), TIMES)
