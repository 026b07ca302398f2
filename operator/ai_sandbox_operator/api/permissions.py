"""What the operator may do on the API server: the one table from which its RBAC rules are made.

A verb is listed because a line of the operator uses it; nothing else is granted, and nothing by a
wildcard. Server-side apply of an object that may be absent needs `patch` and `create`; a DELETE with a
precondition needs `delete` alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from . import kinds

#: Where a permission is needed: in each namespace that holds sandboxes, in the whole cluster, or in the
#: operator's own namespace.
Scope = Literal["sandboxes", "cluster", "own"]

#: Stands for the name of the Lease, which the installation chooses.
LEASE_NAME = "$(LEASE_NAME)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Permission:
    """Verbs on one resource.

    Attributes:
        subresource: such as `status`; empty for the object itself.
        names: the only objects meant; empty for all. `create` cannot be bound to a name.
        unobserved: verbs that only some clusters ask for, so that their absence shows nowhere else.
        why: a sentence for the person who reviews the rules.
    """

    kind: kinds.Kind
    verbs: tuple[str, ...]
    scope: Scope
    why: str
    subresource: str = ""
    names: tuple[str, ...] = ()
    unobserved: frozenset[str] = frozenset()

    @property
    def resource(self) -> str:
        """As RBAC writes it, such as `pods/log`."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def rule(self) -> dict[str, Any]:
        """A PolicyRule of rbac.authorization.k8s.io/v1."""
        bound = {"resourceNames": list(self.names)} if self.names else {}
        return {
            "apiGroups": [self.kind.group],
            "resources": [self.resource],
            **bound,
            "verbs": list(self.verbs),
        }


_KEPT = ("get", "list", "watch", "create", "patch", "delete")


def _child(kind: kinds.Kind, why: str, *further: str) -> Permission:
    return Permission(kind=kind, verbs=(*_KEPT, *further), scope="sandboxes", why=why)


PERMISSIONS: tuple[Permission, ...] = (
    Permission(
        kind=kinds.SANDBOX,
        verbs=("get", "list", "watch", "patch"),
        scope="sandboxes",
        why="Reads what is wanted; patches its own finalizer, never the spec.",
    ),
    Permission(
        kind=kinds.SANDBOX,
        subresource="status",
        verbs=("patch",),
        scope="sandboxes",
        why="Tells what was observed.",
    ),
    Permission(
        kind=kinds.SANDBOX,
        subresource="finalizers",
        verbs=("update",),
        scope="sandboxes",
        why="Children block the deletion of their owner; clusters with the admission plugin "
        "OwnerReferencesPermissionEnforcement ask for this.",
        unobserved=frozenset({"update"}),
    ),
    _child(kinds.DEPLOYMENT, "Engine, chat and gateway."),
    _child(kinds.JOB, "Download of the model, and removal of earlier ones."),
    _child(kinds.NETWORK_POLICY, "Default deny, and the exact edges between the parts of a sandbox."),
    _child(kinds.POD_DISRUPTION_BUDGET, "One gateway stays while a node is drained."),
    Permission(
        kind=kinds.PVC,
        verbs=("get", "list", "watch", "create", "patch"),
        scope="sandboxes",
        why="Model cache and chats. Never deleted by the operator: the garbage collector does, where that is wanted.",
    ),
    _child(
        kinds.SECRET,
        "API keys, certificates and the gateway's configuration; reads the Secrets that a sandbox names.",
        "update",
    ),
    _child(kinds.SERVICE, "Internal addresses, and the NodeBalancer once its firewall stands."),
    Permission(
        kind=kinds.CERTIFICATE,
        verbs=("get", "list", "create", "patch", "delete"),
        scope="sandboxes",
        why="TLS by cert-manager; without it installed the rule means nothing.",
    ),
    Permission(
        kind=kinds.POD,
        verbs=("list", "patch"),
        scope="sandboxes",
        why="Says why a pod does not run; an annotation makes the kubelet bring changed keys at once.",
    ),
    Permission(
        kind=kinds.POD,
        subresource="log",
        verbs=("get",),
        scope="sandboxes",
        why="Says why an engine or a download failed, and how far a download is.",
    ),
    Permission(
        kind=kinds.EVENT,
        verbs=("get", "list", "create", "patch"),
        scope="sandboxes",
        why="Tells transitions of a sandbox; reads what scheduler and kubelet say about its pods.",
    ),
    Permission(
        kind=kinds.NAMESPACE,
        verbs=("get",),
        scope="cluster",
        names=("kube-system",),
        why="Its UID marks the Linode objects of this cluster, unless the cluster's id is given.",
    ),
    Permission(
        kind=kinds.NODE,
        verbs=("list",),
        scope="cluster",
        why="Labels of the GPU nodes: whether a model fits where a sandbox names no plan.",
    ),
    Permission(
        kind=kinds.LEASE,
        verbs=("create",),
        scope="own",
        why="Leader election. RBAC cannot bind the verb create to a name.",
    ),
    Permission(
        kind=kinds.LEASE,
        verbs=("get", "update"),
        scope="own",
        names=(LEASE_NAME,),
        why="Leader election.",
    ),
)


def of(scope: Scope) -> tuple[Permission, ...]:
    """The permissions of one scope, in the table's order."""
    return tuple(permission for permission in PERMISSIONS if permission.scope == scope)
