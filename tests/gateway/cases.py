"""The sandbox that the gateway tests ask, and how they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import facts
from lab.envoy import process as envoy_process

Spec = dict[str, Any]
KEY, OTHER_KEY, ENGINE_KEY = "k" * 40, "o" * 40, "e" * 40
OFFICE, STRANGER = "203.0.113.9", "198.51.100.9"
SPEC: Spec = {
    "access": {
        "exposure": "NodeBalancer",
        "tls": {"mode": "Disabled"},
        "allowlist": [
            {"cidr": "203.0.113.0/24"},
            {"cidr": "2001:db8:1::/48", "to": ["API"]},
            {"cidr": "127.0.0.1/32"},
        ],
        "apiKeys": [{"name": "alice"}, {"name": "unmade"}],
    }
}
# The test itself is the NodeBalancer; 127.0.0.2 is somebody else.
KNOWN = facts.Facts(
    release=facts.Release(),
    material=facts.Material(engine_key=ENGINE_KEY, chat_session_key="s" * 40, api_keys={"alice": KEY}),
    nodebalancer_ranges=("127.0.0.1/32",),
    pod_ranges=("127.0.0.2/32",),
    firewall_id=1,
)
BEARER = {"Authorization": f"Bearer {KEY}"}

Start = Callable[..., envoy_process.Gateway]


def sandbox(spec: Spec) -> v1alpha1.AISandbox:
    return v1alpha1.parse({"metadata": {"name": "demo", "namespace": "team-a", "uid": "u"}, "spec": spec})


def with_access(**changes: Any) -> Spec:
    return {**SPEC, "access": {**SPEC["access"], **changes}}


def external(one: envoy_process.Gateway, path: str, target: str = "api", **more: Any) -> envoy_process.Answer:
    return envoy_process.request(one.ports[f"external_{target}"], path, **{"source": OFFICE, **more})


def internal(one: envoy_process.Gateway, path: str, target: str = "api", **more: Any) -> envoy_process.Answer:
    return envoy_process.request(one.ports[f"internal_{target}"], path, **more)
