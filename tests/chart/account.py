"""The operator under the chart's own ServiceAccount, and what it asked of the API server."""

from __future__ import annotations

import contextlib
import json
import pathlib
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence

from chart import helm
from lab.cluster.lab import Lab
from lab.proxy import Exchange
from lab.world import World

#: Resource as RBAC names it, its group, and a verb.
Use = tuple[str, str, str]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


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
    options = {"flags": (*flags, "--lease-name", f"{helm.RELEASE}-ai-sandbox")}
    async with World(
        lab,
        folder,
        clusterwide=clusterwide,
        operator=options,
        granted=lambda namespace: placed(manifests, namespace),
    ) as made:
        made.refusals_expected = True
        yield made


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
