"""The Kubernetes kinds that the operator watches and writes, with the verbs it needs.

One table for watches, resync, clients and RBAC rules: a kind that is missing here is never touched.
"""

from __future__ import annotations

import dataclasses

from . import names


@dataclasses.dataclass(frozen=True)
class Kind:
    """A namespaced resource of the API server."""

    api_version: str
    kind: str
    plural: str
    watched: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection (name absent) or of one object."""
        prefix = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        parts = [prefix]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


SANDBOX = Kind(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
PVC = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")

#: cert-manager's; it exists only where that is installed.
CERTIFICATE = Kind("cert-manager.io/v1", "Certificate", "certificates", watched=False)
EVENT = Kind("v1", "Event", "events", watched=False)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", watched=False)
NAMESPACE = Kind("v1", "Namespace", "namespaces", watched=False)
NODE = Kind("v1", "Node", "nodes", watched=False)
POD = Kind("v1", "Pod", "pods", watched=False)

CHILDREN = (DEPLOYMENT, JOB, NETWORK_POLICY, POD_DISRUPTION_BUDGET, PVC, SECRET, SERVICE)
WATCHED = (SANDBOX, *CHILDREN)

BY_NAME = {kind.kind: kind for kind in (*WATCHED, CERTIFICATE, EVENT, LEASE, NAMESPACE, NODE, POD)}
