"""Tables that tests fill: what a run may say, and what taking it does."""

from __future__ import annotations

import json
import pathlib

import pytest

import results

STEP = {"Step": "suspend", "Outcome": "no pods", "Measured": "3 s"}


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Empty tables, and where a run writes."""
    monkeypatch.setattr(results, "RECORDED", tmp_path / "recorded")
    monkeypatch.setenv(results.VARIABLE, str(tmp_path / "run"))
    return tmp_path / "run"


def test_a_row_holds_whatever_was_measured_and_nothing_else(
    store: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.Results("node/test_life.py").row("node-life", STEP)
    results.take(store)
    monkeypatch.delenv(results.VARIABLE)
    results.Results("node/test_life.py").row("node-life", {**STEP, "Measured": "4 s"})
    with pytest.raises(AssertionError, match=r"make results TESTS=tests/node/test_life.py"):
        results.Results("node/test_life.py").row("node-life", {**STEP, "Outcome": "one pod"})
    with pytest.raises(AssertionError, match="does not show"):
        results.Results("node/test_other.py").row("node-life", STEP)


def test_a_row_has_every_column_of_its_table(store: pathlib.Path) -> None:
    with pytest.raises(AssertionError, match="columns"):
        results.Results("node/test_life.py").row("node-life", {"Step": "suspend"})


def test_taking_a_run_replaces_the_rows_of_its_files_only(store: pathlib.Path) -> None:
    results.Results("node/test_life.py").row("node-life", STEP)
    results.Results("node/test_b.py").row("node-life", {**STEP, "Step": "resume"})
    results.take(store)
    (store / "node-life.jsonl").unlink()
    results.Results("node/test_life.py").row("node-life", {**STEP, "Step": "delete"})
    results.Results("node/test_life.py").row("node-life", {**STEP, "Step": "delete"})
    results.take(store)
    assert [entry["row"]["Step"] for entry in results.recorded("node-life")] == ["resume", "delete"]


def test_the_recorded_rows_are_of_tables_and_of_test_files_that_exist() -> None:
    tests = pathlib.Path(results.__file__).parent
    for path in results.RECORDED.glob("*.json"):
        table = results.TABLES[path.stem]
        for entry in json.loads(path.read_text()):
            assert tuple(entry["row"]) == table.columns
            assert (tests / str(entry["file"])).is_file()
