"""Counting and percentiles."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence

import aiohttp

WRITING_VERBS = frozenset({"create", "apply", "patch", "update", "delete"})
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and maximum, rounded to milliseconds."""
    return {
        "p50": round(percentile(values, 0.5), 3),
        "p90": round(percentile(values, 0.9), 3),
        "p99": round(percentile(values, 0.99), 3),
        "max": round(max(values, default=math.nan), 3),
        "count": len(values),
    }


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests of the operator so far. Leases are left out: they are the price of a second replica."""

    by_verb: dict[str, int]
    writes: int
    events: int
    linode: int
    linode_writes: int

    def since(self, earlier: Requests) -> Requests:
        """What came after `earlier`."""
        verbs = {v: n - earlier.by_verb.get(v, 0) for v, n in self.by_verb.items()}
        return Requests(
            {verb: count for verb, count in verbs.items() if count},
            self.writes - earlier.writes,
            self.events - earlier.events,
            self.linode - earlier.linode,
            self.linode_writes - earlier.linode_writes,
        )


async def requests(metrics_url: str) -> Requests:
    """Read from the operator's own metrics."""
    async with aiohttp.ClientSession() as session, session.get(metrics_url) as answer:
        text = await answer.text()
    by_verb: dict[str, int] = {}
    writes = events = linode = linode_writes = 0
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
        count = int(float(match[3])) if match[1].endswith("_requests_total") else 0
        if match[1] == "ai_sandbox_kubernetes_requests_total" and labels["kind"] != "Lease":
            by_verb[labels["verb"]] = by_verb.get(labels["verb"], 0) + count
            if labels["verb"] in WRITING_VERBS:
                events += count if labels["kind"] == "Event" else 0
                writes += count if labels["kind"] != "Event" else 0
        elif match[1] == "ai_sandbox_linode_requests_total":
            linode += count
            linode_writes += count if labels["method"] != "GET" else 0
    return Requests(by_verb, writes, events, linode, linode_writes)


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", text)
    return round(int(match[1]) / 1024, 1) if match else math.nan
