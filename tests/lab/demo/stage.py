"""What the show is told with: chapters, claims and live tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table


class ClaimFailed(Exception):
    """Something differs from what the show says."""


class Stage:
    """Prints the story and counts what was proved."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(width=110, highlight=False)
        self.claims = 0
        self._began = time.monotonic()

    def chapter(self, title: str, text: str) -> None:
        """Open a chapter."""
        self.console.print()
        self.console.print(
            Panel(text, title=f"[bold]{title}[/bold]", title_align="left", border_style="cyan")
        )

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(f"   {text}")

    def claim(self, holds: bool, text: str) -> None:
        """A checked statement.

        Raises:
            ClaimFailed: it does not hold.
        """
        if not holds:
            self.console.print(f" [red]✗ {text}[/red]")
            raise ClaimFailed(text)
        self.claims += 1
        self.console.print(f" [green]✓[/green] {text}")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A finished table."""
        self.console.print(make_table(title, columns, rows))

    def live(self, render: Callable[[], Table]) -> Live:
        """A table that grows while things happen; on a terminal in place, elsewhere printed once at the end."""
        return Live(
            get_renderable=render,
            console=self.console,
            refresh_per_second=8,
            auto_refresh=self.console.is_terminal,
        )

    def finish(self) -> None:
        """The last word."""
        seconds = time.monotonic() - self._began
        self.console.print()
        self.console.print(
            f"[bold green]{self.claims} claims checked, none failed, in {seconds:.0f} s.[/bold green]"
        )


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a title."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="cyan")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table
