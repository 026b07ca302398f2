"""When the service controller acts: Services that want a load balancer, changes that count, nodes that
count. Pure.

Nothing here looks at Linode: drift there triggers nothing, a plain resync does nothing. Changes of status,
finalizers or labels do not count; `loadBalancerSourceRanges` counts as a change but has no effect.
Source: k8s.io/cloud-provider v0.35.4, controllers/service/controller.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.linode.ccm.annotations import FALSE, TRUE
from lab.linode.errors import Json

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
Object = Mapping[str, Json]

SPEC_FIELDS = (
    "loadBalancerSourceRanges",
    "sessionAffinity",
    "sessionAffinityConfig",
    "loadBalancerIP",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
)


def wants(service: Object) -> bool:
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") is None


def has_finalizer(service: Object) -> bool:
    return FINALIZER in (service["metadata"].get("finalizers") or [])


def needs_cleanup(service: Object) -> bool:
    """Ours to clean up: being deleted, or no longer of type LoadBalancer."""
    if not has_finalizer(service):
        return False
    deleted = service["metadata"].get("deletionTimestamp") is not None
    return deleted or service["spec"].get("type") != "LoadBalancer"


def _ports(service: Object) -> list[tuple[Json, ...]]:
    names = ("name", "protocol", "port", "nodePort", "targetPort", "appProtocol")
    return [tuple(port.get(name) for name in names) for port in service["spec"].get("ports") or []]


def needs_update(old: Object, new: Object) -> bool:
    """Whether a change of a Service is worth a sync."""
    if not wants(old) and not wants(new):
        return False
    if wants(old) != wants(new) or _ports(old) != _ports(new):
        return True
    if any(old["spec"].get(name) != new["spec"].get(name) for name in SPEC_FIELDS):
        return True
    if len(old["spec"].get("ipFamilies") or []) != len(new["spec"].get("ipFamilies") or []):
        return True
    before, after = old["metadata"], new["metadata"]
    return (before.get("annotations") or {}) != (after.get("annotations") or {}) or before.get(
        "uid"
    ) != after.get("uid")


def included(node: Object) -> bool:
    value = (node["metadata"].get("labels") or {}).get(EXCLUDE_LABEL)
    if value is None:
        return True
    return value in FALSE if value in TRUE | FALSE else False


def usable(node: Object) -> bool:
    """Backends: not being deleted, not excluded, not about to be scaled away. Readiness does not count."""
    taints = node.get("spec", {}).get("taints") or []
    tainted = any(taint["key"] == TO_BE_DELETED_TAINT for taint in taints)
    return node["metadata"].get("deletionTimestamp") is None and included(node) and not tainted


def provider_id(node: Object) -> str:
    return str(node.get("spec", {}).get("providerID", ""))


def node_change_counts(old: Object, new: Object) -> bool:
    return included(old) != included(new) or provider_id(old) != provider_id(new)


def same_nodes(old: Sequence[Object], new: Sequence[Object]) -> bool:
    def distilled(nodes: Sequence[Object]) -> dict[str, str]:
        return {node["metadata"]["name"]: provider_id(node) for node in nodes}

    return len(old) == len(new) and distilled(old) == distilled(new)
