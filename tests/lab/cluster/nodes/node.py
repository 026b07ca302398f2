"""Builds Node objects as Linode Kubernetes Engine makes them. Pure.

The addresses serve two readers. A cloud controller takes InternalIP as the back end of a NodeBalancer,
so it is one of Linode's private addresses, to which nothing listens here. The API server fetches logs
from the Hostname (`--kubelet-preferred-address-types=Hostname`), which is where the log server really is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.cluster.nodes.plans import Plan

KUBELET_VERSION = "v1.37.2"
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
#: Nodes of one cluster; LKE itself ends at 250.
_MAX_NUMBER = 60 * 250


@dataclass(frozen=True)
class Identity:
    """What tells one node from another.

    Attributes:
        number: from 1, unique in the cluster; addresses and the Linode's id follow from it.
        suffix: hexadecimal digits at the end of the name.
    """

    number: int
    suffix: str
    pool: int
    cluster: int = 7
    region: str = "us-ord"

    @property
    def name(self) -> str:
        return f"lke{self.cluster}-{self.pool}-{self.suffix}"

    @property
    def linode_id(self) -> int:
        return 1000 + self.number

    @property
    def internal_ip(self) -> str:
        """Private address; 192.168.255.x is left to NodeBalancers."""
        assert 0 < self.number < _MAX_NUMBER
        third, fourth = divmod(self.number + 9, 250)
        return f"192.168.{128 + third}.{1 + fourth}"

    @property
    def external_ip(self) -> str:
        third, fourth = divmod(self.number + 9, 250)
        return f"172.232.{third}.{1 + fourth}"


def build(
    identity: Identity,
    plan: Plan,
    *,
    kubelet_port: int,
    now: str,
    kubelet_host: str = "127.0.0.1",
    pods: int = 110,
) -> dict[str, Any]:
    """The Node as its kubelet registers it, without taints: admission adds one of its own."""
    name = identity.name
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "lke.linode.com/pool-id": str(identity.pool),
                "node.k8s.linode.com/host-uuid": f"{identity.number:032x}",
                "node.kubernetes.io/instance-type": plan.name,
                "topology.kubernetes.io/region": identity.region,
                "topology.linode.com/region": identity.region,
            },
        },
        "spec": {"providerID": f"linode://{identity.linode_id}"},
        "status": {
            "capacity": {**plan.capacity, "pods": str(pods)},
            "allocatable": {**plan.allocatable, "pods": str(pods)},
            "addresses": [
                {"type": "Hostname", "address": kubelet_host},
                {"type": "InternalIP", "address": identity.internal_ip},
                {"type": "ExternalIP", "address": identity.external_ip},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
            "conditions": _conditions(now),
            "nodeInfo": _info(identity),
        },
    }


def taints(*, gpu: bool) -> list[dict[str, str]]:
    """Wanted taints: none, or the one that users put on a pool of GPU nodes."""
    return [dict(GPU_TAINT)] if gpu else []


def _conditions(now: str) -> list[dict[str, str]]:
    healthy = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("NetworkUnavailable", "False", "CalicoIsUp", "Calico is running on this node"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, status, reason, message in healthy
    ]


def _info(identity: Identity) -> dict[str, str]:
    return {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12 (bookworm)",
        "kernelVersion": "6.1.0-37-cloud-amd64",
        "containerRuntimeVersion": "containerd://1.7.27",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "machineID": f"{identity.number:032x}",
        "systemUUID": f"{identity.number:032x}",
        "bootID": f"{identity.number:032x}",
    }
