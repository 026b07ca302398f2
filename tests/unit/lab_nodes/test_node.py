from __future__ import annotations

import ipaddress
from typing import Any

from lab.cluster.nodes import node, plans


def _build(number: int = 1, **arguments: Any) -> dict[str, Any]:
    identity = node.Identity(number, "0a1b2c3d4e5f", 4001)
    plan = plans.find("g2-gpu-rtx4000a1-m")
    return node.build(identity, plan, kubelet_port=10250, now="2026-01-01T00:00:00Z", **arguments)


def test_name_and_labels_are_those_of_lke() -> None:
    meta = _build()["metadata"]
    assert meta["name"] == "lke7-4001-0a1b2c3d4e5f"
    assert meta["labels"]["kubernetes.io/hostname"] == meta["name"]
    assert meta["labels"]["lke.linode.com/pool-id"] == "4001"
    assert meta["labels"]["node.kubernetes.io/instance-type"] == "g2-gpu-rtx4000a1-m"
    assert meta["labels"]["topology.kubernetes.io/region"] == meta["labels"]["topology.linode.com/region"]
    assert "node.k8s.linode.com/host-uuid" in meta["labels"]
    assert not [label for label in meta["labels"] if "gpu" in label or "zone" in label]


def test_it_belongs_to_a_linode() -> None:
    assert _build(number=12)["spec"] == {"providerID": "linode://1012"}


def test_api_server_reaches_the_kubelet_and_a_nodebalancer_the_private_address() -> None:
    status = _build()["status"]
    addresses = {one["type"]: one["address"] for one in status["addresses"]}
    assert addresses["Hostname"] == "127.0.0.1"
    assert addresses["InternalIP"] == "192.168.128.11"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}


def test_addresses_are_private_and_differ() -> None:
    seen = {node.Identity(number, "0", 1).internal_ip for number in range(1, 1001)}
    assert len(seen) == 1000
    network = ipaddress.ip_network("192.168.128.0/17")
    balancers = ipaddress.ip_network("192.168.255.0/24")
    for one in map(ipaddress.ip_address, seen):
        assert one in network
        assert one not in balancers


def test_it_is_ready_and_offers_its_plan() -> None:
    status = _build(pods=500)["status"]
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert conditions.pop("Ready") == "True"
    assert set(conditions.values()) == {"False"}
    assert status["allocatable"]["nvidia.com/gpu"] == "1"
    assert status["allocatable"]["pods"] == status["capacity"]["pods"] == "500"


def test_taints() -> None:
    assert node.taints(gpu=False) == []
    assert node.taints(gpu=True) == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
