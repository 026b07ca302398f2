"""Alerts, dashboard, runbooks and reference against what is really emitted."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client import parser

from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.runtime import metrics, sandbox_metrics
from observability import sources

REFERENCE = sources.reference()
ENTRIES = [*REFERENCE.operator_metrics(), *REFERENCE.sandbox_metric_entries()]
LABELS = {
    series: {*entry.labels, *(["le"] if series.endswith("_bucket") else [])}
    for entry in ENTRIES
    for series in entry.series
}
EXPRESSIONS = sources.expressions()
IDS = [f"{index}-{place}" for index, (place, _) in enumerate(EXPRESSIONS)]


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=IDS)
def test_an_expression_names_only_metrics_and_labels_that_are_emitted(place: str, expression: str) -> None:
    used = list(sources.selectors(expression))
    assert used, f"{place} names no metric of ours"
    everywhere: set[str] = set(sources.TARGET_LABELS)
    for name, matchers in used:
        assert name in LABELS, f"{place}: nothing emits {name}"
        assert matchers.keys() <= LABELS[name] | sources.TARGET_LABELS, f"{place}: {name} lacks a label"
        everywhere |= LABELS[name]
    assert sources.groupings(expression) <= everywhere, f"{place} groups by a label that nothing has"


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=IDS)
def test_a_condition_or_reason_that_an_expression_names_exists(place: str, expression: str) -> None:
    known = {
        "type": {str(member) for member in ConditionType},
        "reason": {reason.name for reason in Reason},
        "status": set(sandbox_metrics.STATUSES),
        "outcome": {metrics.OK, metrics.ERROR},
    }
    for name, matchers in sources.selectors(expression):
        if name.startswith(("ai_sandbox_status", "ai_sandbox_reconcile")):
            for label in matchers.keys() & known.keys():
                assert set(matchers[label].split("|")) <= known[label], f"{place}: {label}={matchers[label]}"


def test_every_metric_that_is_served_is_documented() -> None:
    body = {
        "metadata": {
            "namespace": "team",
            "name": "mistral",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "AllReady"}],
            "model": {"sizeBytes": 1},
        },
    }
    collector = sandbox_metrics.Collector(
        bodies=lambda: [body], leading=lambda: True, repairs=lambda: {"Service": 1}, missed=lambda: 0
    )
    metrics.REGISTRY.register(collector)
    try:
        served = {f.name for f in parser.text_string_to_metric_families(metrics.render().decode())}
    finally:
        metrics.REGISTRY.unregister(collector)
    page = (sources.ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    ours = {name for name in served if name.startswith("ai_sandbox") and not name.endswith("_created")}
    assert len(ours) > 20
    assert ours <= {name.removesuffix("_total") for name in documented}
    assert {name for name in served if not name.startswith(("ai_sandbox", "process_"))} == set()


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.main(["--check"]) == 0


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", sources.RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in sources.rules()]
    for rule in sources.rules():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/runbooks.md")
        assert anchor == rule["alert"].lower()


def test_every_alert_says_what_it_is_and_how_bad_it_is() -> None:
    for rule in sources.rules():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert {"summary", "description", "runbook_url"} == rule["annotations"].keys(), rule["alert"]


def test_panels_have_titles_descriptions_units_and_do_not_overlap() -> None:
    board = json.loads(sources.DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) <= 14
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
