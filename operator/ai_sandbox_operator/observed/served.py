"""What a gateway says that it serves. Pure.

Envoy shows the version of each route configuration as a text readout of its statistics, named
`http.<listener>.rds.<route configuration>.version_text`.
Source: Envoy docs/configuration/http/http_conn_man/rds, docs/operations/admin (`text_readouts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Path and query on the status port; the filter makes some hundred bytes of some hundred thousand.
STATUS_PATH = "/stats/prometheus?text_readouts&filter=version_text"

_LINE = re.compile(r"^envoy_http_rds_version_text\{([^}]*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def revisions(statistics: str) -> dict[str, str]:
    """Revision by route configuration, from the answer to `STATUS_PATH`."""
    found = {}
    for line in _LINE.finditer(statistics):
        labels = dict(_LABEL.findall(line[1]))
        found[labels.get("envoy_rds_route_config", "")] = labels.get("text_value", "")
    return found


def serves(statistics: str, revision: str, routes: Iterable[str]) -> bool:
    """Whether that revision is served: in every one of the route configurations, and in no other an earlier.

    Others are those of listeners that are being drained; they too still judge requests.
    """
    found = revisions(statistics)
    return set(routes) <= found.keys() and set(found.values()) <= {revision}


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether clients are sent to the pod."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )
