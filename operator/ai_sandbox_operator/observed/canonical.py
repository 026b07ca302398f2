"""Equality of a rendered object and its live counterpart.

The API server adds defaults and allocations to what was written, so the two never compare equal as
they are. `canonical` reduces both to the same form: the operator's own metadata, and the content
without server defaults and allocations. A field that somebody else added stays in, so additions are
drift as much as changes are; that is why managed fields are not enough (a foreign port of a Service
is in no field of ours).

A default that a newer API server adds is unknown here and would look like drift for ever; the
executor remembers a result that a repair could not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import names

Json = Any

#: Defaults of the API server by field name (k8s.io/kubernetes: pkg/apis/*/v1/defaults.go).
_DEFAULTS: Mapping[str, tuple[Json, ...]] = {
    "allocateLoadBalancerNodePorts": (True,),
    "dnsPolicy": ("ClusterFirst",),
    "externalTrafficPolicy": ("Cluster",),
    "failureThreshold": (3,),
    "imagePullPolicy": ("IfNotPresent",),
    "internalTrafficPolicy": ("Cluster",),
    "defaultMode": (420,),
    "periodSeconds": (10,),
    "progressDeadlineSeconds": (600,),
    "protocol": ("TCP",),
    "restartPolicy": ("Always",),
    "revisionHistoryLimit": (10,),
    "schedulerName": ("default-scheduler",),
    "scheme": ("HTTP",),
    "sessionAffinity": ("None",),
    "successThreshold": (1,),
    "terminationGracePeriodSeconds": (30,),
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
    "timeoutSeconds": (1,),
    "type": ("ClusterIP", "Opaque"),
    "volumeMode": ("Filesystem",),
    "apiVersion": ("v1",),  # of a fieldRef
    "readOnly": (False,),
    "optional": (False,),
}
#: Allocated or computed by the server; never the operator's to set.
_ALLOCATED = frozenset(
    {
        "clusterIP",
        "clusterIPs",
        "creationTimestamp",
        "healthCheckNodePort",
        "ipFamilies",
        "ipFamilyPolicy",
        "nodePort",
    }
)
_OWN_PREFIXES = (f"{names.GROUP}/", names.LINODE_ANNOTATION_PREFIX)
_OWN_LABELS = frozenset(
    {names.LABEL_NAME, names.LABEL_COMPONENT, names.LABEL_MANAGED_BY, names.LABEL_SANDBOX}
)
_CONTENT = ("spec", "data", "type")
#: Maps with keys of the user's: a label may well be called `protocol`, and means something with any value.
_OPAQUE = frozenset({"annotations", "data", "labels", "matchLabels", "nodeSelector", "selector"})
#: On a pod template, from `kubectl rollout restart`: a restart that somebody asked for, not drift.
RESTARTED = "kubectl.kubernetes.io/restartedAt"
#: Written once and then only grown or replaced by name: their content is immutable or the server's.
_IDENTITY_ONLY = frozenset({"Job", "PersistentVolumeClaim"})


def canonical(manifest: Mapping[str, Json]) -> dict[str, Json]:
    """The comparable form of a live or rendered object."""
    form: dict[str, Json] = {"metadata": _metadata(manifest.get("metadata") or {})}
    if manifest.get("kind") not in _IDENTITY_ONLY:
        for field in _CONTENT:
            if (value := prune(manifest.get(field), field)) is not None:
                form[field] = value
    return form


def digest(manifest: Mapping[str, Json]) -> bytes:
    """16 bytes that are equal for a rendered object and its unchanged live counterpart."""
    return _hash(canonical(manifest))


def metadata_digest(manifest: Mapping[str, Json]) -> bytes:
    """Like `digest`, of the metadata alone: for objects whose content is not the operator's to restore."""
    return _hash(canonical({"kind": manifest.get("kind"), "metadata": manifest.get("metadata") or {}}))


def prune(value: Json, field: str = "") -> Json:
    """`value` without defaults, allocations, nulls and empty maps; None when nothing is left.

    Empty lists stay: `ingress: []` of a NetworkPolicy denies everything, absence need not.
    """
    if isinstance(value, Mapping):
        if field in _OPAQUE:
            return {k: v for k, v in value.items() if k != RESTARTED} or None
        pruned = {
            key: kept
            for key, child in value.items()
            if key not in _ALLOCATED and (kept := prune(child, key)) is not None
        }
        # An empty selector or peer means "everything" and must not vanish.
        keep_empty = field in {"podSelector", "namespaceSelector", "emptyDir", ""}
        return pruned if pruned or keep_empty else None
    if isinstance(value, list):
        return [prune(item) for item in value]
    if value is None or (field in _DEFAULTS and value in _DEFAULTS[field]):
        return None
    return value


def excess(wanted: Json, live: Json, path: str = "") -> list[dict[str, Json]]:
    """JSON patch operations that remove from `live` what `wanted` does not have.

    Both are canonical forms. A list that differs is replaced whole. Of metadata, labels and annotations
    are removed one by one, because the form shows only the operator's own and others live beside them;
    owners are left to who knows them whole.
    """
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        operations: list[dict[str, Json]] = []
        for key, value in live.items():
            pointer = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if pointer == "/metadata/ownerReferences":
                continue
            if key in wanted or pointer in ("/metadata/labels", "/metadata/annotations"):
                operations += excess(wanted.get(key, {}), value, pointer)
            else:
                operations.append({"op": "remove", "path": pointer})
        return operations
    if wanted != live:
        return [{"op": "replace", "path": path, "value": wanted}]
    return []


def _metadata(metadata: Mapping[str, Json]) -> dict[str, Json]:
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k in _OWN_LABELS}
    annotations = {
        k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(_OWN_PREFIXES)
    }
    owners = sorted(str(owner.get("uid")) for owner in metadata.get("ownerReferences") or ())
    return {
        **({"labels": labels} if labels else {}),
        **({"annotations": annotations} if annotations else {}),
        **({"ownerReferences": owners} if owners else {}),
    }


def _hash(form: Json) -> bytes:
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()[:16]
