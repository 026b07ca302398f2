from __future__ import annotations

import json

import pytest

from lab.cluster.nodes import logs, voices
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.cluster.nodes.lifecycle import End, Phase, State
from unit.lab_nodes.factory import pod

T0 = 1_700_000_000.0
ERROR = End(1, "Error", None, T0, T0 + 9)
FETCH = [{"name": "fetch", "image": "op", "args": ["fetch", "--model", "Qwen/Q", "--revision", "v1"]}]


def _state(phase: Phase, **fields: object) -> State:
    return State(phase, since=T0, seen=T0, started=T0, **fields)  # type: ignore[arg-type]


def test_engine_that_serves_has_told_its_whole_start() -> None:
    text = "\n".join(voices.log(pod(), "engine", _state(Phase.READY), NORMAL, T0 + 60))
    for marker in (
        "non-default args:",
        "Resolved architecture:",
        "Loading safetensors checkpoint shards:",
        "Model loading took",
        "torch.compile took",
        "GPU KV cache size:",
        "Graph capturing finished in",
        "Starting vLLM server on",
        "Application startup complete.",
    ):
        assert marker in text


def test_log_of_a_slow_start_grows() -> None:
    slow = Behaviour("slow", seconds=10)
    lengths = [
        len(voices.log(pod(), "engine", _state(Phase.RUNNING), slow, T0 + age)) for age in (0, 3, 6, 9)
    ]
    assert lengths == sorted(set(lengths))


def test_fetch_reports_progress_and_leaves_a_summary() -> None:
    job = pod(component="fetch", restart_policy="Never", containers=FETCH)
    end = voices.finish(job, End(0, "Completed", None, T0, T0 + 1), NORMAL)
    events = [json.loads(line)["event"] for line in end.log]
    assert (events[0], events[-1]) == ("start", "complete")
    summary = json.loads(end.message or "")
    assert (summary["model"], summary["revision"]) == ("Qwen/Q", "v1")


@pytest.mark.parametrize(("policy", "from_log"), [("File", False), ("FallbackToLogsOnError", True)])
def test_termination_message_falls_back_to_the_log(policy: str, from_log: bool) -> None:
    one = pod(containers=[{"name": "engine", "image": "x", "terminationMessagePolicy": policy}])
    message = voices.finish(one, ERROR, Behaviour("crash", log="a\nroot cause")).message
    assert message == ("a\nroot cause" if from_log else None)
    said = voices.finish(one, End(1, "Error", "said", T0, T0), Behaviour("crash"))
    assert said.message == "said"


def test_log_of_an_end_stays_when_the_rule_is_gone() -> None:
    end = voices.finish(pod(), ERROR, Behaviour("crash", log="root cause"))
    assert voices.log(pod(), "engine", _state(Phase.BACKOFF, last=end), NORMAL, T0) == ["root cause"]
    assert voices.previous_log(end, NORMAL) == ["root cause"]
    assert voices.previous_log(end, Behaviour(previous_log="x\ny")) == ["x", "y"]


def test_logs_that_are_not_there() -> None:
    waiting = (pod(), _state(Phase.CREATING), NORMAL)
    with pytest.raises(logs.Refused, match="is waiting to start: ContainerCreating"):
        logs.read(waiting, "engine", previous=False, now=T0)
    with pytest.raises(logs.Refused, match="previous terminated container"):
        logs.read((pod(), _state(Phase.READY), NORMAL), "engine", previous=True, now=T0)
