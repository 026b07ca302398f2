"""The recorded requests of the real cloud controller manager, and how to compare others with them.

Recordings: CCM v0.9.8 against a minimal simulator, one line per request, grouped by scenario. Ids,
addresses, node ports and random labels differ between runs, so both sides are renamed in order of
appearance; everything else must be equal, in order.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from lab.linode.journal import Entry

RECORDINGS = pathlib.Path(__file__).parents[1] / "data" / "ccm-recordings.jsonl"
CREATED = "Service created with firewall-id, proxy-protocol v2, tags; ports 3000 and 8000; one node"
THROTTLED = "throttle annotation changed on a live Service"
EXCLUDED = "only node labelled exclude-from-external-load-balancers"
INCLUDED = "node label removed again"
REMOVED = "firewall-id annotation removed from a live Service"
UNKNOWN = "firewall-id set to an id that does not exist"
GOOD = "firewall-id set to a good id on a live Service"
DELETED = "Service deleted"
CREATED_UNKNOWN = "Service created with an unknown firewall id (server accepted it)"
NUMBER = re.compile(r"(?<![\w.])\d{3,5}(?![\w.])|198\.51\.100\.\d+|ccm-[0-9a-f]{12}")
# The node controllers' look at the Linodes is no part of a Service's sync.
NODE_METADATA = "/linode/instances"
FIXED = {"3000", "8000"}  # the Service's ports and nothing else


def recorded(scenario: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in RECORDINGS.read_text().splitlines()]
    mine = [entry for entry in entries if entry["scenario"] == scenario]
    return [entry for entry in mine if not entry["path"].startswith(f"/v4{NODE_METADATA}")]


def of_journal(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Journal entries in the shape of the recordings, without the node metadata controller's."""
    return [
        {
            "method": entry.method,
            "path": f"/v4{entry.path}",
            "query": entry.query,
            "filter": entry.filter,
            "body": entry.body,
        }
        for entry in entries
        if not entry.path.startswith(NODE_METADATA)
    ]


def normalised(requests: list[dict[str, Any]]) -> list[str]:
    """One line per request; ids, addresses and labels renamed in order of appearance."""
    names: dict[str, str] = {}

    def rename(found: re.Match[str]) -> str:
        text = found.group()
        return text if text in FIXED else names.setdefault(text, f"<{len(names)}>")

    return [
        NUMBER.sub(
            rename,
            f"{r['method']} {r['path']} ?{r['query']} {r['filter']} {json.dumps(r['body'], sort_keys=True)}",
        )
        for r in requests
    ]
