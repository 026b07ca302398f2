"""The gateway's Services and pods, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from ai_sandbox_operator.desired import envoy_routes
from unit.desired import samples

Spec = dict[str, Any]


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ({}, {"api": (8000, 8444), "chat": (3000, 3444)}),
        ({"chat": {"enabled": False}}, {"api": (8000, 8444)}),
    ],
)
def test_internal_service(spec: Spec, ports: dict[str, tuple[int, int]]) -> None:
    service = samples.child(samples.rendered(spec), "Service", "demo-internal")["spec"]
    assert service["type"] == "ClusterIP"
    assert {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} == ports


def test_external_service() -> None:
    children = samples.rendered({"access": {"exposure": "NodeBalancer"}}, samples.EXPOSED)
    service = samples.child(children, "Service", "demo")
    assert service["spec"] == {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "allocateLoadBalancerNodePorts": True,
        "selector": {
            "app.kubernetes.io/managed-by": "ai-sandbox-operator",
            "app.kubernetes.io/component": "gateway",
            "sandbox.linode.com/name": "demo",
        },
        "ports": [
            {"name": "api", "protocol": "TCP", "port": 8000, "targetPort": 8443},
            {"name": "chat", "protocol": "TCP", "port": 3000, "targetPort": 3443},
        ],
    }
    prefix = "service.beta.kubernetes.io/linode-loadbalancer-"
    assert service["metadata"]["annotations"] == {
        prefix + "firewall-id": "123456",
        prefix + "tags": "ai-sandbox,lke7",
        prefix + "default-protocol": "tcp",
        prefix + "default-proxy-protocol": "v2",
        prefix + "default-algorithm": "leastconn",
        prefix + "check-type": "connection",
        prefix + "check-interval": "5",
        prefix + "check-timeout": "3",
        prefix + "check-attempts": "2",
        prefix + "check-passive": "false",
        prefix + "throttle": "20",
    }


def test_every_service_selects_the_pods_of_one_component() -> None:
    children = samples.rendered({"access": {"exposure": "NodeBalancer"}}, samples.EXPOSED)
    for service in (child.manifest for child in children if child.kind == "Service"):
        selected = [
            child.manifest
            for child in children
            if child.kind in {"Deployment", "Job"}
            and service["spec"]["selector"].items()
            <= child.manifest["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(selected) == 1
        ports = selected[0]["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {
            port["containerPort"] for port in ports
        }


def test_a_gateway_pod_is_replaced_before_it_leaves() -> None:
    deployment = samples.child(samples.rendered(), "Deployment", "demo-gateway")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = samples.child(samples.rendered(), "PodDisruptionBudget", "demo-gateway")["spec"]
    assert budget["minAvailable"] < deployment["replicas"]
    assert budget["selector"] == deployment["selector"]


def test_listeners_behind_the_proxy_protocol_exist_only_with_a_nodebalancer() -> None:
    for exposure, names in (
        ("ClusterIP", {"internal_api", "internal_chat"}),
        ("NodeBalancer", {"external_api", "external_chat", "internal_api", "internal_chat"}),
    ):
        sandbox = samples.sandbox({"access": {"exposure": exposure}})
        assert {entry.name for entry in envoy_routes.entries(sandbox)} == names


def test_routes_of_listeners_that_are_not_wanted_admit_nobody() -> None:
    """Such a listener may still be drained, and judges the requests on its open connections."""
    for spec, wanted in (
        ({"access": {"exposure": "ClusterIP"}}, {"internal_api", "internal_chat"}),
        ({"access": {"exposure": "ClusterIP"}, "chat": {"enabled": False}}, {"internal_api"}),
        ({"access": {"exposure": "NodeBalancer"}}, {entry.name for entry in envoy_routes.ENTRIES}),
    ):
        _, routes = envoy_routes.configurations(samples.sandbox(spec), samples.EXPOSED)
        assert {route["name"] for route in routes.values()} == {entry.name for entry in envoy_routes.ENTRIES}
        assert {route["name"] for route in routes.values() if "virtual_hosts" in route} == wanted
