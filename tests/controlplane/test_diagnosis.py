"""A cause that stands in a log comes into the conditions, through a real API server's logs."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.api.conditions import Reason
from lab.cluster.nodes.behaviour import Behaviour
from lab.engine.script import Script
from lab.world import World
from unit.observed.corpus import engine_logs

NAME = "diagnosis"
#: Logs whose cause stands in the engine's process, in the server's, and in the words of argparse.
LOGS = ("kv-cache-too-small", "bad-parallelism", "bad-flag")
#: One log for every other signature, of those that hold no secret that only the corpus knows.
OTHERS = sorted({one.row: log for log, one in engine_logs().items() if one.row and not one.secrets}.values())


@pytest.mark.parametrize(
    "log", [*LOGS, *(pytest.param(log, marks=pytest.mark.slow) for log in OTHERS if log not in LOGS)]
)
async def test_a_failed_start_is_told_with_its_cause_and_what_to_do_and_recovers(
    started: World, log: str
) -> None:
    expected = engine_logs()[log]
    behaviour = Behaviour(engine=Script(fail=log))
    rule = started.lab.nodes.behave(behaviour, component="engine", namespace=started.namespace)
    await started.apply(NAME, {})
    told = await started.until(NAME, "EngineReady", "False", reason=expected.reason, timeout=30)
    for words in expected.says:
        assert words in told["message"]
    advice = expected.advice or Reason[expected.reason].doc.remedy
    assert told["message"].endswith(f" {advice}")
    await started.until(NAME, "Ready", "False", reason=expected.reason)
    # The cause goes away, and nobody does anything else.
    started.lab.nodes.forget(rule)
    await started.until(NAME, "Ready", timeout=90)


async def test_the_phase_of_a_start_is_told(started: World) -> None:
    behaviour = Behaviour(engine=Script(hang="load"))
    started.lab.nodes.behave(behaviour, component="engine", namespace=started.namespace)
    await started.apply(NAME, {})

    async def loading() -> bool:
        return "loading the weights" in (await started.condition(NAME, "EngineReady"))["message"]

    await started.eventually(loading, timeout=30, what="the phase")
    assert (await started.condition(NAME, "EngineReady"))["reason"] == "Starting"
