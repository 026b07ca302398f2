"""The figures of the gateway, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: dict[str, Any]) -> None:
    """A table for each group."""
    console = Console(width=130)
    for title, group in results.items():
        table = Table(title=title, show_header=False, title_justify="left")
        for key, value in (group if isinstance(group, dict) else {title: group}).items():
            shown = "  ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key, shown)
        console.print(table)
