"""The operator from its chart, from an image of the Dockerfile's steps, in real containers."""

from __future__ import annotations

import json

from chart import helm
from lab.node import NodeLab
from lab.node.sandbox import PROBE
from results import Results


def test_two_operator_pods_run_in_a_namespace_that_enforces_the_restricted_profile(
    node: NodeLab, results: Results
) -> None:
    pods = node.operators()
    assert len(pods) == 2
    for pod in pods:
        (state,) = pod["status"]["containerStatuses"]
        assert state["ready"]
        assert state["restartCount"] == 0
    results.row(
        "node-life",
        {
            "Step": "helm install of the chart, with Helm waiting",
            "Outcome": "two pods are ready and were never restarted; their namespace enforces the restricted profile",
            "Measured": f"{node.timings['operator']:.0f} s",
        },
    )


def test_the_operator_runs_as_nobody_without_capabilities_and_writes_to_its_tmp_only(node: NodeLab) -> None:
    for pod in node.operators():
        said = node.kubectl(
            "exec", "-n", helm.NAMESPACE, pod["metadata"]["name"], "--", "python3", "-c", PROBE
        )
        assert json.loads(said) == {"uid": 65532, "capabilities": 0, "sealed": True}


def test_one_operator_holds_the_lease(node: NodeLab) -> None:
    leases = node.get("leases", "-n", helm.NAMESPACE)["items"]
    (holder,) = [one["spec"]["holderIdentity"] for one in leases]
    assert [pod["metadata"]["name"] for pod in node.operators() if holder.startswith(pod["metadata"]["name"])]


def test_helm_test_reaches_the_operator_by_its_service_name(node: NodeLab, results: Results) -> None:
    said = node.helm.run("test", helm.RELEASE, "--namespace", helm.NAMESPACE, "--timeout", "90s")
    assert "Succeeded" in said, said
    outcome = "its pod finds the operator by DNS and Service, and succeeds"
    results.row("node-life", {"Step": "helm test", "Outcome": outcome, "Measured": ""})
