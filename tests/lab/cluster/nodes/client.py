"""Steers a running `python -m lab.cluster.nodes` from tests, the demo and the command line."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour, Kind

_TIMEOUT = 30.0


class ControlError(Exception):
    """The fake nodes refused; the message says why."""


class NodesClient:
    """Synchronous and small; `url` is what the process printed as `control`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def nodes(self) -> list[dict[str, Any]]:
        """Every node: name, plan, pool, internal_ip, linode_id, pods."""
        return list(self._call("GET", "/nodes")["nodes"])

    def add(
        self, plan: str, count: int = 1, *, pool: int | None = None, gpu_taint: bool = False
    ) -> list[str]:
        """Add nodes; their names. They take pods when this returns."""
        body = {"plan": plan, "count": count, "pool": pool, "gpu_taint": gpu_taint}
        return list(self._call("POST", "/nodes", body)["names"])

    def remove(self, name: str) -> None:
        """Remove a node and its pods, as a drained and deleted one."""
        self._call("DELETE", f"/nodes/{name}")

    def behaviours(self) -> list[dict[str, Any]]:
        """The rules in force, in order."""
        return list(self._call("GET", "/behaviours")["rules"])

    def behave(
        self,
        kind: Kind | Behaviour,
        *,
        component: str | None = None,
        namespace: str | None = None,
        sandbox: str | None = None,
        prefix: str | None = None,
        runs: str | None = None,
        **fields: Any,
    ) -> int:
        """Add a rule; its id. `fields` are those of `Behaviour`."""
        behaviour = kind if isinstance(kind, Behaviour) else Behaviour(kind, **fields)
        selector = {
            "component": component,
            "namespace": namespace,
            "sandbox": sandbox,
            "prefix": prefix,
            "runs": runs,
        }
        return int(self._call("POST", "/behaviours", {**asdict(behaviour), **selector})["id"])

    def sync(self, seconds: float) -> None:
        """Period of the kubelets' syncs, 60 in a cluster and half more with jitter; 0.5 at the start.

        Mounted Secrets are that old, but a pod that is changed itself gets the current ones.
        """
        self._call("PUT", "/sync", {"seconds": seconds})

    def upstream(self, namespace: str, sandbox: str) -> list[dict[str, Any]]:
        """The last requests that real gateways let through: component, method, path, headers."""
        return list(self._call("GET", f"/upstreams/{namespace}/{sandbox}")["requests"])

    def forget(self, ident: int | None = None) -> None:
        """Remove one rule, or all."""
        self._call("DELETE", "/behaviours" if ident is None else f"/behaviours/{ident}")

    @contextlib.contextmanager
    def behaving(self, kind: Kind | Behaviour, **fields: Any) -> Iterator[int]:
        """A rule for the time of a `with` block; arguments as of `behave`."""
        ident = self.behave(kind, **fields)
        try:
            yield ident
        finally:
            self.forget(ident)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise ControlError(error.read().decode(errors="replace")) from None
