"""What the API server holds of one sandbox at one instant, read past the proxy."""

from __future__ import annotations

import dataclasses
from typing import Any

from ai_sandbox_operator.api import kinds, names
from lab import admits
from lab.world import World

Object = dict[str, Any]


@dataclasses.dataclass(kw_only=True)
class Cluster:
    """One sandbox and all that acts on its pods, whoever made it.

    Attributes:
        services: those that lead to its pods.
        policies: all of the namespace.
        workloads: its Deployments and Jobs.
        secret: the gateway's configuration.
    """

    sandbox: Object | None = None
    services: list[Object] = dataclasses.field(default_factory=list)
    policies: list[Object] = dataclasses.field(default_factory=list)
    workloads: list[Object] = dataclasses.field(default_factory=list)
    pods: list[Object] = dataclasses.field(default_factory=list)
    secret: Object | None = None

    @property
    def public(self) -> list[Object]:
        return [service for service in self.services if service["spec"].get("type") == "LoadBalancer"]


async def read(world: World, name: str) -> Cluster:
    """The true state; no write of the operator must come between, see `ApiProxy.paused`."""
    mine = f"{names.LABEL_SANDBOX}={name}"

    async def items(kind: kinds.Kind, selector: str = "") -> list[Object]:
        return await world.api.list_all(kind, world.namespace, label_selector=selector)

    return Cluster(
        sandbox=await world.get(kinds.SANDBOX, name),
        services=[s for s in await items(kinds.SERVICE) if _leads_to(s, name)],
        policies=await items(kinds.NETWORK_POLICY),
        workloads=[*await items(kinds.DEPLOYMENT, mine), *await items(kinds.JOB, mine)],
        pods=await items(kinds.POD, mine),
        secret=await world.get(kinds.SECRET, f"{name}-gateway"),
    )


def _leads_to(service: Object, name: str) -> bool:
    """Whether a Service selects pods of the sandbox, of whichever component."""
    selector = service["spec"].get("selector") or {}
    labels = names.labels(name, selector.get(names.LABEL_COMPONENT, "gateway"))
    return bool(selector) and admits.selects({"matchLabels": selector}, labels)
