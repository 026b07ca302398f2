"""The alerts, evaluated by Prometheus' own tool on made-up series."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml

from observability import promtool, sources

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "alert_cases.yaml").read_text(encoding="utf-8"))
IDS = [f"{index}-{case['alert']}" for index, case in enumerate(CASES)]
SANDBOX = {"job": "op", "namespace": "team", "name": "mistral"}
_MATCHERS = ", ".join(f'{label}="{text}"' for label, text in SANDBOX.items())

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def program() -> pathlib.Path:
    """promtool; the first build takes some minutes."""
    return promtool.ensure()


def test_the_rules_and_the_expressions_of_the_dashboard_are_valid(
    program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    records = [{"record": f"panel:{i}", "expr": e} for i, (_, e) in enumerate(sources.panel_expressions())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    good, said = promtool.run(
        program, "check", "rules", "--lint-fatal", str(sources.ALERTS), "panels.yaml", folder=tmp_path
    )
    assert good, said
    assert f"{len(sources.rules())} rules found" in said


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_an_alert_fires_when_it_should_and_only_then(
    case: dict[str, Any], program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    moments = {**{minute: [] for minute in case.get("silent", ())}, **case.get("fires", {})}
    wanted = [
        {
            "alertname": case["alert"],
            "eval_time": f"{minute}m",
            "exp_alerts": [{"exp_labels": _labels(case["alert"], fired)} for fired in firing],
        }
        for minute, firing in moments.items()
    ]
    rules = yaml.safe_load(sources.ALERTS.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    series = [
        {"series": name.replace("SANDBOX", _MATCHERS), "values": values}
        for name, values in case["series"].items()
    ]
    test = {"interval": "1m", "input_series": series, "alert_rule_test": wanted}
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    good, said = promtool.run(program, "test", "rules", "test.yaml", folder=tmp_path)
    assert good, said


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    alerts = {rule["alert"] for rule in sources.rules()}
    assert {case["alert"] for case in CASES if case.get("fires")} == alerts
    assert {case["alert"] for case in CASES if case.get("silent")} == alerts


def test_the_words_of_an_alert_can_be_filled_in() -> None:
    """Every label that an annotation names is one that the expression keeps."""
    for rule in sources.rules():
        text = " ".join(rule["annotations"].values())
        named = {part.split(" ")[0] for part in text.split("$labels.")[1:]}
        named = {label.strip("}./,") for label in named}
        named = {label.split("}")[0].split("/")[0] for label in named}
        assert named <= sources.groupings(rule["expr"]), rule["alert"]


def _labels(alert: str, fired: dict[str, str] | str) -> dict[str, str]:
    severity = next(rule["labels"]["severity"] for rule in sources.rules() if rule["alert"] == alert)
    return {**(SANDBOX if fired == "SANDBOX" else fired), "severity": severity}  # type: ignore[dict-item]
