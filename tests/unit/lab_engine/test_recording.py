"""What the stand-in answers, next to what vLLM answered: recordings/ in tests/lab/engine says of which release."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from lab.engine import compare, plan, probes
from lab.engine.probes import Probe
from lab.engine.script import Script
from unit.lab_engine.conftest import KEY, MODEL, Served

REAL: dict[str, Any] = json.loads(compare.RECORDING.read_text())
TINY = Script(context=2048, heads=4)


#: Metrics are compared after requests, when every label is there.
@pytest.mark.parametrize(
    "probe", [one for one in probes.ALL if one.path != "/metrics"], ids=lambda probe: probe.name
)
async def test_it_answers_like_vllm(served: Served, probe: Probe) -> None:
    answer = await probes.ask(served.url, probe, model=MODEL, key=KEY)
    assert answer == REAL["answers"][probe.name]


async def test_its_metrics_have_the_names_and_labels_of_vllm_after_the_same_requests(served: Served) -> None:
    answers = await probes.ask_all(served.url, model=MODEL, key=KEY)
    assert answers["metrics"] == REAL["answers"]["metrics"]
    assert "vllm:request_success_total" in answers["metrics"]["body"]


def made(*flags: str, script: Script = TINY) -> plan.Plan:
    argv = ("/models/tiny", "--served-model-name", MODEL, "--max-model-len", "auto", *flags)
    return plan.make(argv, {}, script, total=10, began=0)


def test_its_start_has_the_markers_of_vllm_in_the_same_order() -> None:
    assert compare.markers("\n".join(made().log(math.inf))) == REAL["markers"]


@pytest.mark.parametrize("name", compare.REFUSED)
def test_it_refuses_like_vllm(name: str) -> None:
    refused = made(*compare.REFUSED[name])
    assert refused.failure is not None
    cause = compare.cause("\n".join(refused.log(math.inf)))
    assert {"code": refused.failure.exit_code, "cause": cause} == REAL["refused"][name]


def test_every_probe_was_recorded_and_nothing_else() -> None:
    assert REAL["answers"].keys() == {probe.name for probe in probes.ALL} | {"metrics"}
