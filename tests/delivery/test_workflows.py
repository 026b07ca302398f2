"""Workflows: least rights, pinned actions, and versions that agree."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs(workflow: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Jobs of a workflow by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def test_there_are_workflows_for_changes_and_for_releases() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_and_names_its_version(workflow: pathlib.Path) -> None:
    lines = workflow.read_text().splitlines()
    # A workflow of this repository is the same commit's.
    uses = [line for line in lines if "uses:" in line and "uses: ./.github/" not in line]
    assert uses
    assert [line for line in uses if not PINNED.search(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_has_the_rights_that_it_names_and_a_time_limit(workflow: pathlib.Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {}
    for name, job in jobs(workflow).items():
        assert job["permissions"], name
        assert "uses" in job or job["timeout-minutes"] <= 90, name


def test_nothing_is_published_that_was_not_tested() -> None:
    found = jobs(ROOT / ".github" / "workflows" / "release.yml")
    assert found["test"] == {
        "name": "Test",
        "permissions": {"contents": "read"},
        "uses": "./.github/workflows/ci.yml",
    }
    assert all(job.get("needs") == "test" for name, job in found.items() if name != "test")


def test_changes_are_checked_with_the_right_to_read_only() -> None:
    for job in jobs(ROOT / ".github" / "workflows" / "ci.yml").values():
        assert job["permissions"] == {"contents": "read"}


def test_no_checkout_leaves_its_token_behind() -> None:
    for workflow in WORKFLOWS:
        for job in jobs(workflow).values():
            for step in job.get("steps", ()):
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
