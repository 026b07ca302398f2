"""The end state of a sandbox in a form in which two sandboxes that were made alike are equal.

Left out: what the servers choose (UIDs, times, versions, addresses) and what is random (keys, and what
is derived from them). Kept: every object, everything that its spec says, and all of it at Linode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import names
from ai_sandbox_operator.observed import seen
from lab.world import World

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"198[.-]51[.-]100[.-]\d+")
#: Given by a server, or a fingerprint of something random.
_CHOSEN = frozenset(
    {
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "healthCheckNodePort",
        "volumeName",
        "sandbox.linode.com/secret-hash",
        "deployment.kubernetes.io/revision",
        names.ANNOTATION_FIREWALL_ID,
        names.ANNOTATION_ACCESS_REVISION,
    }
)
#: Annotations of the volume controller, which come with the binding.
_OF_VOLUMES = ("volume.", "pv.kubernetes.io/")
_METADATA = ("name", "labels", "annotations", "finalizers")


async def canonical(world: World, name: str) -> dict[str, Any]:
    """All objects of a settled sandbox, by kind and name."""
    sandbox = await world.sandbox(name)
    status = sandbox["status"]
    children = await world.children(name)
    found: dict[str, Any] = {
        "conditions": {c["type"]: f"{c['status']} {c['reason']}" for c in status["conditions"]},
        "endpoints": status["endpoints"],
        "applied": status["applied"],
        "linode": sorted(status.get("linode") or {}),
        "finalizers": sandbox["metadata"].get("finalizers"),
        "objects": {f"{kind} {child}": _reduced(kind, live) for (kind, child), live in children.items()},
        "account": account(world, sandbox["metadata"]["uid"]),
    }
    text = json.dumps(found, sort_keys=True).replace(world.namespace, "NAMESPACE").replace(name, "NAME")
    text = text.replace(world.hub_url, "HUB")
    text = text.replace(f'"port": {world.hub_url.rpartition(":")[2]}', '"port": "HUB"')
    text = _ADDRESS.sub("ADDRESS", _UUID.sub("UID", text))
    engine = children.get(("Deployment", f"{name}-engine"), {"metadata": {}})
    # The template holds the sandbox's name, and so its fingerprint differs from a namesake's.
    template = (engine["metadata"].get("annotations") or {}).get(seen.ANNOTATION_ENGINE_TEMPLATE)
    text = text.replace(template, "TEMPLATE") if template else text
    result: dict[str, Any] = json.loads(text)
    return result


def account(world: World, uid: str) -> dict[str, Any]:
    """What carries the sandbox's tag at Linode, and what stands on it."""
    snapshot = world.linode.state.snapshot()
    firewalls = [f for f in snapshot.firewalls.values() if any(uid in tag for tag in f.tags)]
    balancers = [b for b in snapshot.nodebalancers.values() if any(uid in tag for tag in b.tags)]
    return {
        "firewalls": [[f.status, f.rules.content(), sorted(f.tags)] for f in firewalls],
        "nodebalancers": [
            [sorted(config.port for config in b.configs.values()), sorted(b.tags), b.type] for b in balancers
        ],
        "attached": [
            [f.id for f in snapshot.firewalls_of(b.id)] == [f.id for f in firewalls] for b in balancers
        ],
    }


def _reduced(kind: str, live: Mapping[str, Any]) -> dict[str, Any]:
    metadata = live["metadata"]
    result = {
        **{field: metadata.get(field) for field in _METADATA},
        "owners": [(o["kind"], o["name"]) for o in metadata.get("ownerReferences") or ()],
        "spec": live.get("spec"),
    }
    if kind == "Secret":
        result["keys"] = sorted(live.get("data") or ())
        result["type"] = live["type"]
    reduced: dict[str, Any] = _without_chosen(result)
    return reduced


def _without_chosen(value: Any) -> Any:
    match value:
        case dict():
            kept = (k for k in value if k not in _CHOSEN and not k.startswith(_OF_VOLUMES))
            return {key: _without_chosen(value[key]) for key in kept}
        case list() | tuple():
            return [_without_chosen(item) for item in value]
        case _:
            return value


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two canonical states differ, in words."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            line
            for key in sorted(first.keys() | second.keys())
            for line in differences(first.get(key), second.get(key), f"{path}/{key}")
        ]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            line
            for index, pair in enumerate(zip(first, second, strict=True))
            for line in differences(*pair, f"{path}/{index}")
        ]
    return [] if first == second else [f"{path}: {first!r} became {second!r}"]
