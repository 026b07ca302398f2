"""What somebody may do to a child by hand, as functions on the object that `kubectl edit` would send."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

from ai_sandbox_operator.api import kinds, names

Object = dict[str, Any]


def essence(live: Object) -> Object:
    """What of a child is the operator's: no versions, no status, no fields that controllers fill in."""
    kept = copy.deepcopy({k: v for k, v in live.items() if k in ("spec", "data", "type")})
    metadata = live["metadata"]
    kept["labels"] = metadata.get("labels")
    kept["owners"] = metadata.get("ownerReferences")
    kept["annotations"] = {
        k: v
        for k, v in (metadata.get("annotations") or {}).items()
        if not k.startswith("deployment.kubernetes")
    }
    return kept


def container(key: str, value: Any) -> Callable[[Object], None]:
    def change(live: Object) -> None:
        live["spec"]["template"]["spec"]["containers"][0][key] = value

    return change


def _environment(live: Object) -> None:
    live["spec"]["template"]["spec"]["containers"][0].setdefault("env", []).append(
        {"name": "X", "value": "y"}
    )


def _port(live: Object) -> None:
    live["spec"]["ports"].append({"name": "ssh", "port": 22, "targetPort": 22, "protocol": "TCP"})


def _number(live: Object) -> None:
    live["spec"]["ports"][0]["port"] += 1


def _container_port(live: Object) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] += 1


def _rule(live: Object) -> None:
    live["spec"].setdefault("ingress", []).append({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})


def _data(live: Object) -> None:
    key = min(live["data"])
    live["data"][key] = base64.b64encode(b"{}").decode()


def _selector(live: Object) -> None:
    live["spec"]["selector"] = {"app": "somebody-elses"}


def _label(live: Object) -> None:
    del live["metadata"]["labels"][names.LABEL_COMPONENT]


def _managed_by(live: Object) -> None:
    del live["metadata"]["labels"][names.LABEL_MANAGED_BY]


def _owner(live: Object) -> None:
    del live["metadata"]["ownerReferences"]


EDITS: tuple[tuple[kinds.Kind, str, Callable[[Object], None]], ...] = (
    (kinds.DEPLOYMENT, "gateway", container("image", "registry.example/other:1")),
    (kinds.DEPLOYMENT, "chat", _environment),
    (kinds.DEPLOYMENT, "chat", _label),
    (kinds.SERVICE, "internal", _port),
    (kinds.SERVICE, "engine", _selector),
    (kinds.SERVICE, "engine", _number),
    (kinds.SERVICE, "", _number),
    (kinds.DEPLOYMENT, "chat", _container_port),
    (kinds.SERVICE, "", _port),
    (kinds.SERVICE, "", _managed_by),
    (kinds.NETWORK_POLICY, "gateway", _rule),
    (kinds.NETWORK_POLICY, "engine", _rule),
    (kinds.NETWORK_POLICY, "default-deny", _managed_by),
    (kinds.SECRET, "gateway", _data),
    (kinds.SECRET, "api-keys", _owner),
    (kinds.POD_DISRUPTION_BUDGET, "gateway", _owner),
    (kinds.PVC, "model", _owner),
    (kinds.PVC, "chat", _label),
)
