"""What is checked: alerts, dashboard and metrics, and what an expression refers to."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = ROOT / "charts/ai-sandbox/files/alerts.yaml"
DASHBOARD = ROOT / "charts/ai-sandbox/files/dashboard.json"
RUNBOOKS = ROOT / "docs/runbooks.md"

#: Labels that Prometheus adds to what it scrapes, or that a histogram has.
TARGET_LABELS = frozenset({"job", "instance"})
_SELECTOR = re.compile(r"(ai_sandbox_\w+)\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")


def reference() -> ModuleType:
    """scripts/metrics.py."""
    spec = importlib.util.spec_from_file_location("metrics_reference", ROOT / "scripts/metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_expressions() -> list[tuple[str, str]]:
    """Title of the panel and expression, with the dashboard's variables filled in."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [
        (p["title"], t["expr"].replace("$namespace", ".*")) for p in board["panels"] for t in p["targets"]
    ]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert inner is not None, variable
            found.append((variable["name"], f"count by ({inner[2]}) ({inner[1]})"))
    return found


def expressions() -> list[tuple[str, str]]:
    """Every expression of alerts and dashboard with the name of its place."""
    return [*((rule["alert"], rule["expr"]) for rule in rules()), *panel_expressions()]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Metrics that an expression names, with the labels that it matches."""
    for name, inside in _SELECTOR.findall(expression):
        yield name, {label: value for label, _, value in _MATCHER.findall(inside)}


def groupings(expression: str) -> set[str]:
    """Labels by which it aggregates or joins."""
    return {label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",")} - {""}
