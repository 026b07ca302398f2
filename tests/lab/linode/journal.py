"""What was asked of the API, in order: the ground truth of every test that counts writes.

One entry per request, written when the request arrives (so a hanging one is seen) and completed when it is
answered. `wrote` says whether the account really changed: a PUT of what is there already is no write.
Token values never appear, only their names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from lab.linode.errors import Json


@dataclass
class Entry:
    index: int
    time: float
    token: str | None
    method: str
    path: str  # without the version prefix
    query: str
    filter: str | None
    body: Json
    version: str = "v4"
    template: str | None = None
    status: int | None = None  # None: not answered (yet), or the connection was cut
    wrote: bool = False
    revision: int | None = None  # of the account after the request
    fault: str | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        mark = "W" if self.wrote else " "
        query = f"?{self.query}" if self.query else ""
        return (
            f"{self.index:4} {mark} {self.token or '-':9} {self.method:6} {self.path}{query} -> {self.status}"
        )


@dataclass
class Journal:
    entries: list[Entry] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _next: int = 1

    def open(self, **values: Json) -> Entry:
        entry = Entry(index=self._next, time=time.time(), **values)
        self._next += 1
        self.entries.append(entry)
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def last(self) -> int:
        """Index of the newest entry: pass it as `since` to see what came later."""
        return self._next - 1

    def since(self, index: int = 0, token: str | None = None, method: str | None = None) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if entry.index > index and token in (None, entry.token) and method in (None, entry.method)
        ]

    def writes(self, since: int = 0, token: str | None = None) -> list[Entry]:
        """The requests that changed the account."""
        return [entry for entry in self.since(since, token) if entry.wrote]

    def mutations(self, since: int = 0, token: str | None = None) -> list[Entry]:
        """The requests that could have changed it: everything but GET."""
        return [entry for entry in self.since(since, token) if entry.method != "GET"]

    def clear(self) -> None:
        """Forget the entries; indexes go on."""
        self.entries.clear()

    def render(self, since: int = 0) -> list[Json]:
        return [asdict(entry) for entry in self.since(since)]
