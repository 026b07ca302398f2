"""Tables of the docs that tests fill: docs/reference/tested.md.

A test takes the fixture `results` and calls `results.row("gitops", {"Check": "...", "Outcome": "..."})` for what it
has just seen. `tests/recorded/TABLE.json` holds the rows that the docs show. An ordinary run fails where a row is
not among them, cells of measured columns apart; with `make results TESTS=tests/gitops` the rows of the test files
that run replace those that these files gave before, and the page is written anew.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

RECORDED = pathlib.Path(__file__).resolve().parent / "recorded"
#: Folder into which a run writes its rows instead of comparing them.
VARIABLE = "AI_SANDBOX_RESULTS"

Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """One table: `measured` columns are shown and not compared."""

    title: str
    text: str
    columns: tuple[str, ...]
    measured: tuple[str, ...] = ()


TABLES = {
    "helm": Table(
        "Helm",
        "The chart with both Helms on a real API server.",
        ("Operation", "Helm", "Outcome"),
    ),
    "install": Table(
        "Install",
        "A fresh control plane, one of the ways to install, one sample.",
        ("Way", "Sample", "Outcome"),
    ),
    "versions": Table(
        "Versions of Kubernetes",
        "One API server of 1.37 offers the APIs and features of earlier versions; the other tests run on 1.37 itself.",
        ("Kubernetes", "Outcome", "Measured"),
        measured=("Measured",),
    ),
    "gitops": Table(
        "GitOps",
        "What tools that compare and correct find on sandboxes that a running operator keeps.",
        ("Check", "As", "Outcome"),
    ),
    "rights": Table(
        "Rights",
        "Each right of the operator, and what was refused first when it was taken away.",
        ("Scope", "Resource", "Verb", "Without it"),
    ),
    "upgrade": Table(
        "Upgrade and back",
        "From the version before to this one and back, by Helm, while sandboxes serve.",
        ("Step", "Sandboxes", "Outcome", "Measured"),
        measured=("Measured",),
    ),
    "node-life": Table(
        "On a real node",
        "The operator from its chart, its sandbox's pods in real containers.",
        ("Step", "Outcome", "Measured"),
        measured=("Measured",),
    ),
    "node-request": Table(
        "Who gets what",
        "Requests by way of a NodeBalancer's data path to a sandbox on a real node.",
        ("Client", "Path", "Credential", "Outcome"),
    ),
    "node-traffic": Table(
        "Changes under traffic",
        "What requests saw while something was changed on a real node.",
        ("Change", "Outcome", "Measured"),
        measured=("Measured",),
    ),
}


@dataclasses.dataclass(frozen=True)
class Results:
    """What one test saw. `file` is its file, relative to tests/."""

    file: str

    def row(self, table: str, cells: Mapping[str, str]) -> None:
        """Say what was seen; `cells` holds every column of the table.

        Raises:
            AssertionError: the docs do not show this row; `make results` writes them anew.
        """
        kind = TABLES[table]
        assert tuple(cells) == kind.columns, f"table {table} has the columns {kind.columns}"
        row = {column: str(cells[column]) for column in kind.columns}
        if folder := os.environ.get(VARIABLE):
            _append(pathlib.Path(folder) / f"{table}.jsonl", {"file": self.file, "row": row})
            return
        known = [_compared(kind, entry["row"]) for entry in recorded(table) if entry["file"] == self.file]
        assert _compared(kind, row) in known, (
            f"docs/reference/tested.md does not show {row}; if it is right, run: make results TESTS=tests/{self.file}"
        )


def recorded(table: str) -> list[Any]:
    """The rows in the docs: `{"file": test file, "row": its cells}` each."""
    path = RECORDED / f"{table}.json"
    return json.loads(path.read_text()) if path.exists() else []


def take(folder: pathlib.Path) -> None:
    """Put the rows of a run in the place of those that the same test files gave before."""
    for path in sorted(folder.glob("*.jsonl")):
        table = path.stem
        fresh = [json.loads(line) for line in path.read_text().splitlines()]
        files = {entry["file"] for entry in fresh}
        entries = [entry for entry in recorded(table) if entry["file"] not in files] + fresh
        unique = {json.dumps(entry, sort_keys=True): entry for entry in entries}
        ordered = sorted(unique.values(), key=lambda entry: entry["file"])
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{table}.json").write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def _compared(table: Table, row: Mapping[str, str]) -> Row:
    return {column: row[column] for column in table.columns if column not in table.measured}


def _append(path: pathlib.Path, entry: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(json.dumps(entry, ensure_ascii=False) + "\n")
