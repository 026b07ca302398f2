"""The operator under the chart's own ServiceAccount, and what it asked of the API server."""

from __future__ import annotations

import contextlib
import json
import pathlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import yaml

from chart import helm
from lab.cluster.lab import Lab
from lab.proxy import Exchange
from lab.world import World

#: Resource as RBAC names it, its group, and a verb.
Use = tuple[str, str, str]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class _AnonymousPlane:
    """The control plane, but whoever connects brings his own credentials."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)

    def tls_context(self) -> ssl.SSLContext:
        config = json.loads(self._plane.kubeconfig.read_text())
        return ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])


class _AnonymousLab:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.plane = _AnonymousPlane(lab.plane)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lab, name)


@contextlib.asynccontextmanager
async def world(
    lab: Lab,
    folder: pathlib.Path,
    manifests: Sequence[helm.Manifest],
    *,
    clusterwide: bool,
    flags: Sequence[str],
) -> AsyncIterator[World]:
    """A world whose operator has the rights of the rendered account and no others.

    `manifests` are the chart's for the namespace `SERVED`, which becomes the world's.
    """
    options = {"flags": flags}
    async with World(
        cast(Lab, _AnonymousLab(lab)), folder, clusterwide=clusterwide, operator=options
    ) as made:
        rights = placed(manifests, made.namespace)
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": rights})
        lab.plane.kubectl("apply", "--server-side", "--filename", "-", stdin=text)
        account = helm.find(rights, "ServiceAccount")["metadata"]["name"]
        token = lab.plane.kubectl("create", "token", account, "--namespace", made.namespace).strip()
        path = folder / "account.kubeconfig"
        config = yaml.safe_load(pathlib.Path(made.proxy.kubeconfig(path)).read_text())
        config["users"][0]["user"] = {"token": token}
        path.write_text(json.dumps(config))
        made.operator.upgrade("--kubeconfig", str(path), "--lease-name", f"{helm.RELEASE}-ai-sandbox")
        try:
            yield made
        finally:
            lab.plane.kubectl("delete", "--filename", "-", "--ignore-not-found", "--wait=false", stdin=text)


def placed(manifests: Sequence[helm.Manifest], namespace: str) -> list[helm.Manifest]:
    """What gives rights, for another namespace."""
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    mine = [m for m in manifests if m["kind"] in kinds]
    text = json.dumps(mine).replace(SERVED, namespace).replace(helm.NAMESPACE, namespace)
    found: list[helm.Manifest] = json.loads(text)
    return found


#: Stands in values for the namespace that is served.
SERVED = "served-namespace"


def uses(exchange: Exchange) -> set[Use]:
    """The permissions that one request needs. Discovery needs none."""
    parts = exchange.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else ("".join(parts[1:2]), parts[3:])
    if not rest:
        return set()
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = f"{rest[0]}/{rest[2]}" if len(rest) > 2 else rest[0]
    query: Mapping[str, list[str]] = urllib.parse.parse_qs(exchange.query)
    if exchange.method == "GET":
        watching = query.get("watch", ["false"])[0] in ("true", "1")
        verb = "get" if len(rest) > 1 else "watch" if watching else "list"
        return {(group, resource, verb)}
    verb = _VERBS[exchange.method]
    made = {(group, resource, "create")} if verb == "patch" and exchange.status == 201 else set()
    return {(group, resource, verb)} | made
