"""What scheduler, kubelet, registry and storage say comes to a reason, on recorded-like messages."""

from __future__ import annotations

from typing import Any

import pytest

from ai_sandbox_operator.api import conditions
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis, images, node_trouble

from .corpus import messages

SCHEDULER = {entry["name"]: entry for entry in messages("scheduler")}
KUBELET = {entry["name"]: entry for entry in messages("kubelet")}
#: The verdict of a condition adds the reason's remedy.
LONGEST = 600


def _pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo-engine-7c9d8f6b54-x2x4v", "uid": "u"}, "spec": {}, "status": status}


def unscheduled(entry: dict[str, Any]) -> diagnosis.Finding | None:
    condition = {"type": "PodScheduled", "status": "False", "message": entry["message"]}
    pod = _pod(phase="Pending", conditions=[condition])
    gpus = entry.get("gpus", 1)
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {"memory": "2Gi"}
    pod["spec"] = {"containers": [{"name": "engine", "resources": {"limits": limits}}]}
    if "plan" in entry:
        pod["spec"]["nodeSelector"] = {"node.kubernetes.io/instance-type": entry["plan"]}
    return diagnosis.diagnose([pod])


def told(entry: dict[str, Any]) -> diagnosis.Finding | None:
    if "failed" in entry:
        return diagnosis.diagnose([_pod(phase="Failed", **entry["failed"])])
    if "waiting" in entry:
        container = {"name": "engine", "image": "i", "state": {"waiting": entry["waiting"]}}
        return diagnosis.diagnose([_pod(phase="Pending", containerStatuses=[container])])
    creating = {"name": "engine", "state": {"waiting": {"reason": "ContainerCreating"}}}
    events = [
        {"type": "Warning", "lastTimestamp": f"2026-01-01T00:00:{n:02d}Z", **event}
        for n, event in enumerate(entry["events"])
    ]
    pod = _pod(phase="Pending", containerStatuses=[creating])
    return diagnosis.diagnose([pod], evidence=diagnosis.Evidence(events=events))


def check(entry: dict[str, Any], finding: diagnosis.Finding | None) -> None:
    assert finding is not None
    assert finding.reason.name == entry["reason"], finding
    assert finding.permanent is entry.get("permanent", False)
    for words in entry.get("says", ()):
        assert words in finding.message, finding
    if "advice" in entry:
        assert finding.advice == entry["advice"]
    assert len(f"{finding.message}. {finding.advice or finding.reason.doc.remedy}") < LONGEST


@pytest.mark.parametrize("name", SCHEDULER)
def test_the_schedulers_words_come_to_a_cause(name: str) -> None:
    check(SCHEDULER[name], unscheduled(SCHEDULER[name]))


@pytest.mark.parametrize("name", SCHEDULER)
def test_a_pod_without_a_node_is_known_to_be_unplaced(name: str) -> None:
    finding = unscheduled(SCHEDULER[name])
    assert finding is not None
    assert finding.reason in diagnosis.UNPLACED
    assert "preemption" not in finding.message


@pytest.mark.parametrize("name", KUBELET)
def test_the_words_of_node_registry_and_storage_come_to_a_cause(name: str) -> None:
    check(KUBELET[name], told(KUBELET[name]))


def _index(row: tuple[Any, ...]) -> str:
    return f"{row[-1].name}-{row[1]}"


@pytest.mark.parametrize("row", node_trouble._ENDS, ids=_index)
def test_every_end_that_a_node_reports_is_in_the_corpus(
    row: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_trouble, "_ENDS", tuple(r for r in node_trouble._ENDS if r is not row))
    assert _misunderstood()


@pytest.mark.parametrize("row", node_trouble._EVENTS, ids=_index)
def test_every_event_that_counts_is_in_the_corpus(
    row: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_trouble, "_EVENTS", tuple(r for r in node_trouble._EVENTS if r is not row))
    assert _misunderstood()


@pytest.mark.parametrize("row", images._WORDS, ids=lambda row: row[0].name)
def test_every_kind_of_failed_pull_is_in_the_corpus(
    row: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_WORDS", tuple(r for r in images._WORDS if r is not row))
    assert _misunderstood()


def _misunderstood() -> list[str]:
    wrong = []
    for name, entry in KUBELET.items():
        finding = told(entry)
        if finding is None or finding.reason.name != entry["reason"]:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("name", [*SCHEDULER, *KUBELET])
def test_a_failure_is_announced_and_what_will_pass_by_itself_is_not(name: str) -> None:
    entry = SCHEDULER.get(name) or KUBELET[name]
    calm = (Reason.Starting, Reason.NotReady, Reason.VolumePending)
    assert (Reason[entry["reason"]] in diagnosis.FAILURES) is (Reason[entry["reason"]] not in calm)


def test_a_volume_that_storage_refuses_comes_before_the_scheduler_that_waits_for_it() -> None:
    message = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    event = {"type": "Warning", "reason": "ProvisioningFailed", "message": "no quota"}
    evidence = diagnosis.Evidence(events=[event])
    finding = diagnosis.diagnose([_pod(phase="Pending", conditions=[condition])], evidence=evidence)
    assert finding is not None
    assert finding.reason is Reason.VolumeProvisioningFailed


def test_every_remedy_fits_beside_the_longest_words() -> None:
    assert [r.name for r in conditions.Reason if len(r.doc.remedy) > 220] == []
