from __future__ import annotations

import pytest

from lab.cluster.nodes import plans


def test_smallest_gpu_plan_leaves_what_was_measured() -> None:
    left = plans.find("g2-gpu-rtx4000a1-s").allocatable
    assert left["cpu"] == "3900m"
    assert left["memory"] == f"{int(12.9 * 1024)}Mi"
    assert left["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("plan", plans.PLANS.values(), ids=lambda plan: plan.name)
def test_gpus_are_those_in_the_name(plan: plans.Plan) -> None:
    expected = str(plan.name.split("rtx4000a")[1][0]) if "gpu" in plan.name else None
    assert plan.allocatable.get("nvidia.com/gpu") == expected
    assert plan.capacity.get("nvidia.com/gpu") == expected


@pytest.mark.parametrize("plan", plans.PLANS.values(), ids=lambda plan: plan.name)
def test_pods_get_less_than_the_machine_has(plan: plans.Plan) -> None:
    assert int(plan.allocatable["cpu"].removesuffix("m")) < 1000 * int(plan.capacity["cpu"])
    assert int(plan.allocatable["memory"].removesuffix("Mi")) < 1024 * int(plan.capacity["memory"][:-2])


def test_unknown_plan_names_the_known() -> None:
    with pytest.raises(ValueError, match="g6-standard-4"):
        plans.find("g6-nanode-0")
