"""What a pod needs from its namespace before its containers can start. Pure.

The scheduler and the API server let a pod through whose Secret does not exist; the kubelet then waits.
Which way it waits depends on how the Secret is used: a volume holds up the whole pod, a variable only
its container, with another reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.cluster.nodes.lifecycle import Blocked

Kind = Literal["Secret", "ConfigMap", "PersistentVolumeClaim"]


@dataclass(frozen=True)
class Need:
    """One object, and the keys of it that must be there.

    Attributes:
        volume: the volume that uses it; None: a variable.
        container: the container whose variable uses it; None: a volume.
    """

    kind: Kind
    name: str
    keys: tuple[str, ...] = ()
    volume: str | None = None
    container: str | None = None


def of(pod: Mapping[str, Any]) -> tuple[Need, ...]:
    """Everything that is not optional: volumes first, as a kubelet mounts before it starts anything."""
    spec = pod["spec"]
    found: list[Need] = []
    for volume in spec.get("volumes") or ():
        found.extend(_volume(volume))
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        found.extend(_environment(container))
    return tuple(found)


def objects(needs: Iterable[Need]) -> frozenset[tuple[Kind, str]]:
    """The objects to look up."""
    return frozenset((need.kind, need.name) for need in needs)


def first_unmet(
    needs: Iterable[Need], found: Mapping[tuple[Kind, str], Mapping[str, Any] | None], namespace: str
) -> Blocked | None:
    """What holds the pod up, if anything does; `found` holds the objects, None for one that is missing."""
    for need in needs:
        if (message := _unmet(need, found[need.kind, need.name], namespace)) is not None:
            return Blocked(message, need.container)
    return None


def _unmet(need: Need, live: Mapping[str, Any] | None, namespace: str) -> str | None:
    if need.kind == "PersistentVolumeClaim":
        if live is None:
            return f'persistentvolumeclaim "{need.name}" not found'
        phase = (live.get("status") or {}).get("phase")
        return None if phase == "Bound" else f'PersistentVolumeClaim is not bound: "{namespace}/{need.name}"'
    text = _missing(need, live, namespace)
    if text is not None and need.volume is not None:
        return f'MountVolume.SetUp failed for volume "{need.volume}" : {text}'
    return text


def _missing(need: Need, live: Mapping[str, Any] | None, namespace: str) -> str | None:
    if live is None:
        return f'{need.kind.lower()} "{need.name}" not found'
    present = {**(live.get("data") or {}), **(live.get("binaryData") or {})}
    for key in need.keys:
        if key not in present:
            if need.volume is not None:
                return f"references non-existent {need.kind.lower()} key: {key}"
            return f"couldn't find key {key} in {need.kind} {namespace}/{need.name}"
    return None


def _volume(volume: Mapping[str, Any]) -> Iterator[Need]:
    name = volume["name"]
    sources = (volume.get("projected") or {}).get("sources") or (volume,)
    for source in sources:
        if (secret := source.get("secret")) and not secret.get("optional"):
            # A Secret volume says `secretName`, a projected source `name`.
            yield Need("Secret", secret.get("secretName") or secret["name"], _items(secret), volume=name)
        if (config := source.get("configMap")) and not config.get("optional"):
            yield Need("ConfigMap", config["name"], _items(config), volume=name)
    if claim := volume.get("persistentVolumeClaim"):
        yield Need("PersistentVolumeClaim", claim["claimName"], volume=name)


def _items(source: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(item["key"] for item in source.get("items") or ())


def _environment(container: Mapping[str, Any]) -> Iterator[Need]:
    name = container["name"]
    for source in container.get("envFrom") or ():
        if (secret := source.get("secretRef")) and not secret.get("optional"):
            yield Need("Secret", secret["name"], container=name)
        if (config := source.get("configMapRef")) and not config.get("optional"):
            yield Need("ConfigMap", config["name"], container=name)
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if (secret := source.get("secretKeyRef")) and not secret.get("optional"):
            yield Need("Secret", secret["name"], (secret["key"],), container=name)
        if (config := source.get("configMapKeyRef")) and not config.get("optional"):
            yield Need("ConfigMap", config["name"], (config["key"],), container=name)
