"""What a gateway pod would say of itself on its status port, from the files that are mounted into it.

Only readiness and the statistics that tell which configuration is served: names, order and form are
those of the real Envoy (tests/unit/lab_nodes compares them).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

CONFIG_PATH = "/etc/envoy"


class StandIn:
    """One gateway pod."""

    def __init__(self) -> None:
        self._lds = self._cds = ""
        #: Listener and revision by route configuration.
        self._served: dict[str, tuple[str, str]] = {}
        #: Listener and route configuration by file. A listener that goes is drained, and follows its file
        #: all that time; here for ever.
        self._watched: dict[str, tuple[str, str]] = {}

    async def mount(self, path: str, files: Mapping[str, str]) -> None:
        """Take the files of a directory as Envoy does: what it refuses leaves what it had."""
        if path != CONFIG_PATH:
            return
        if (clusters := _discovery(files.get("cds.json", ""))) is not None:
            self._cds = clusters["version_info"]
        listeners = _discovery(files.get("lds.json", ""))
        if listeners is None:
            return
        self._lds = listeners["version_info"]
        self._watched |= {file: (listener, routes) for listener, routes, file in _routes(listeners)}
        for file, (listener, routes) in self._watched.items():
            document = _discovery(files.get(file, ""))
            resources = document["resources"] if document else [{}]
            # An answer without resources counts as one, although the old routes go on being served.
            if document and (not resources or resources[0].get("name") == routes):
                self._served[routes] = (listener, document["version_info"])

    def statistics(self, *, readouts: bool, pattern: str = "") -> str:
        """The answer to /stats/prometheus.

        Raises:
            ValueError: the pattern is none.
        """
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise ValueError(str(error)) from None
        lines: list[str] = []
        for family, stat, labels in self._readouts() if readouts else ():
            if wanted.search(stat):
                head = f"# TYPE {family} gauge"
                lines += [] if head in lines else [head]
                lines.append(f"{family}{{{labels}}} 0")
        return "".join(f"{line}\n" for line in lines)

    def _readouts(self) -> Iterator[tuple[str, str, str]]:
        """Family, name within Envoy and labels."""
        yield (
            "envoy_cluster_manager_cds_version_text",
            "cluster_manager.cds.version_text",
            f'text_value="{self._cds}"',
        )
        for routes, (listener, revision) in sorted(self._served.items()):
            labels = {
                "envoy_rds_route_config": routes,
                "envoy_http_conn_manager_prefix": listener,
                "text_value": revision,
            }
            yield (
                "envoy_http_rds_version_text",
                f"http.{listener}.rds.{routes}.version_text",
                ",".join(f'{key}="{value}"' for key, value in labels.items()),
            )
        yield (
            "envoy_listener_manager_lds_version_text",
            "listener_manager.lds.version_text",
            f'text_value="{self._lds}"',
        )


def _discovery(text: str) -> dict[str, Any] | None:
    """The document, None if Envoy could not read it."""
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    wanted = isinstance(document, dict) and "version_info" in document and "resources" in document
    return document if wanted else None


def _routes(listeners: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Statistics prefix, name of the route configuration and its file, of each listener."""
    for listener in listeners["resources"]:
        for chain in listener.get("filter_chains", ()):
            for item in chain.get("filters", ()):
                manager = item["typed_config"]
                if rds := manager.get("rds"):
                    path = rds["config_source"]["path_config_source"]["path"]
                    yield manager["stat_prefix"], rds["route_config_name"], path.rpartition("/")[2]
