"""Pods as the API server would show them."""

from __future__ import annotations

from typing import Any


def pod(
    name: str = "demo-engine-6b5f-x7k2p",
    *,
    component: str = "engine",
    namespace: str = "team",
    sandbox: str = "demo",
    restart_policy: str = "Always",
    containers: list[dict[str, Any]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod that is bound to a node and has no status yet."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": "1b4e28ba-2fa1-4d2b-883f-0016d3cca427",
            "labels": {"app.kubernetes.io/component": component, "sandbox.linode.com/name": sandbox},
        },
        "spec": {
            "nodeName": "lke7-4001-0a1b2c3d4e5f",
            "restartPolicy": restart_policy,
            "containers": containers or [{"name": component, "image": "vllm/vllm-openai:v0.33.0"}],
            **spec,
        },
    }
