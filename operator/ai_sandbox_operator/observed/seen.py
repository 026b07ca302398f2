"""What the operator keeps of a watched child: a digest and the few facts that decisions read.

Whole objects would cost the memory of every pod template of the cluster. Everything here is a hint
of the watch; what would open or destroy something is read again before the act.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import names

from . import canonical

Json = Any

#: Secrets of these components are written but never read; they are large, so only the digest is kept.
#: All others are read: one whose label somebody changed must not look empty, or its keys would be made anew.
_WRITTEN_SECRETS = frozenset({"gateway"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A child as it was last seen.

    Attributes:
        owner_uid: UID of the controlling AISandbox; empty when there is none.
        digest: `canonical.digest`, over metadata and content.
        metadata_digest: `canonical.metadata_digest`.
        facts: by kind, see `_facts`.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    sandbox: str
    component: str
    managed: bool
    owner_uid: str
    deleting: bool
    digest: bytes
    metadata_digest: bytes
    facts: Mapping[str, Any]


def observe(kind: str, body: Mapping[str, Json]) -> Seen:
    """The record of a live object of `kind`."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    typed = {**body, "kind": kind}
    # The strings that all children of a sandbox share are held once.
    return Seen(
        kind=sys.intern(kind),
        namespace=sys.intern(metadata.get("namespace", "")),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        sandbox=sys.intern(labels.get(names.LABEL_SANDBOX, "")),
        component=sys.intern(labels.get(names.LABEL_COMPONENT, "")),
        managed=labels.get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER,
        owner_uid=sys.intern(owner_uid(metadata)),
        deleting="deletionTimestamp" in metadata,
        digest=canonical.digest(typed),
        metadata_digest=canonical.metadata_digest(typed),
        facts=_facts(kind, body),
    )


def owner_uid(metadata: Mapping[str, Json]) -> str:
    """UID of the AISandbox that controls the object, or empty."""
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == names.KIND:
            return str(owner["uid"])
    return ""


def _facts(kind: str, body: Mapping[str, Json]) -> Mapping[str, Any]:
    extract = _EXTRACT.get(kind)
    return extract(body) if extract else {}


def _deployment(body: Mapping[str, Json]) -> Mapping[str, Any]:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    metadata = body["metadata"]
    return {
        "generation": metadata.get("generation", 0),
        "observed_generation": status.get("observedGeneration", 0),
        "replicas": spec.get("replicas", 1),
        "current": status.get("replicas", 0),
        "updated": status.get("updatedReplicas", 0),
        "ready": status.get("readyReplicas", 0),
        "engine_inputs": (metadata.get("annotations") or {}).get(ANNOTATION_ENGINE_INPUTS, ""),
        "model": (metadata.get("annotations") or {}).get(names.ANNOTATION_MODEL, ""),
        "foreign_template": foreign_template_owner(metadata),
        "pods_refused": _since(status, "ReplicaFailure"),
        "available_since": _since(status, "Available")[1],
        **_engine(body),
    }


def complete(deployment: Seen) -> bool:
    """Whether all replicas are ready, by a status that may not have seen the last change yet.

    A change of a Deployment's annotations counts as a new generation too, and touches no pod.
    Source: kubernetes pkg/registry/apps/deployment/strategy.go, PrepareForUpdate.
    """
    facts = deployment.facts
    return bool(
        facts["replicas"] > 0 and facts["updated"] == facts["ready"] == facts["current"] == facts["replicas"]
    )


def rolled_out(deployment: Seen) -> bool:
    """Whether the current template runs with all its replicas ready, and nothing of an older one."""
    facts = deployment.facts
    return complete(deployment) and bool(facts["observed_generation"] >= facts["generation"])


def _since(status: Mapping[str, Json], type_: str) -> tuple[str, str]:
    """Message of a condition that is True, and since when it is; both empty if it is not."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == type_ and condition.get("status") == "True":
            return str(condition.get("message", "")), str(condition.get("lastTransitionTime", ""))
    return "", ""


def _engine(body: Mapping[str, Json]) -> Mapping[str, Any]:
    """Of an engine what `reconcile.engine_update` reads.

    The template itself is held only until it is kept as the good one, so a settled engine costs one copy.
    """
    annotations = body["metadata"].get("annotations") or {}
    state = {name: annotations[name] for name in ENGINE_STATE if name in annotations}
    if not state:
        return {"engine_template": "", "engine_state": {}, "engine_candidate": ""}
    rendered = state.get(ANNOTATION_ENGINE_TEMPLATE, "")
    candidate = json.dumps(
        {
            "inputs": state.get(ANNOTATION_ENGINE_INPUTS, ""),
            "rendered": rendered,
            "template": _own_template(body["spec"]["template"]),
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    known = candidate == state.get(ANNOTATION_ENGINE_GOOD)
    return {
        "engine_template": rendered,
        "engine_state": state,
        "engine_candidate": "" if known else candidate,
    }


def _own_template(template: Mapping[str, Json]) -> Mapping[str, Json]:
    """A live template without what is not part of the configuration: restarts that somebody asked for."""
    metadata = {k: v for k, v in template["metadata"].items() if k != "creationTimestamp"}
    annotations = metadata.pop("annotations", None) or {}
    if kept := {k: v for k, v in annotations.items() if k != canonical.RESTARTED}:
        metadata["annotations"] = kept
    return {"metadata": metadata, "spec": template["spec"]}


def _job(body: Mapping[str, Json]) -> Mapping[str, Any]:
    conditions = {c["type"]: c for c in (body.get("status") or {}).get("conditions") or ()}
    failed = conditions.get("Failed", {})
    return {
        "complete": conditions.get("Complete", {}).get("status") == "True",
        "failed": failed.get("status") == "True",
        "failed_at": failed.get("lastTransitionTime", "") if failed.get("status") == "True" else "",
        "created": body["metadata"].get("creationTimestamp", ""),
        "beside_engine": _beside_engine(body),
    }


def _beside_engine(body: Mapping[str, Json]) -> bool:
    """Whether the pods of a download may run only where an engine does, see `desired.fetch`."""
    try:
        return "podAffinity" in body["spec"]["template"]["spec"]["affinity"]
    except (KeyError, TypeError):
        return False


def _pvc(body: Mapping[str, Json]) -> Mapping[str, Any]:
    requests = ((body.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return {
        "phase": (body.get("status") or {}).get("phase", ""),
        "size": requests.get("storage", ""),
        "created": body["metadata"].get("creationTimestamp", ""),
    }


def _service(body: Mapping[str, Json]) -> Mapping[str, Any]:
    ingress = ((body.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    annotations = body["metadata"].get("annotations") or {}
    return {
        "type": (body.get("spec") or {}).get("type", ""),
        "address": next((i["ip"] for i in ingress if i.get("ip")), ""),
        "hostname": next((i["hostname"] for i in ingress if i.get("hostname")), ""),
        "names": tuple(dict.fromkeys(i[key] for key in ("ip", "hostname") for i in ingress if i.get(key))),
        "firewall_id": annotations.get(names.ANNOTATION_FIREWALL_ID, ""),
        "firewall_acl": names.ANNOTATION_FIREWALL_ACL in annotations,
        "created": body["metadata"].get("creationTimestamp", ""),
    }


def _secret(body: Mapping[str, Json]) -> Mapping[str, Any]:
    component = (body["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, "")
    if component in _WRITTEN_SECRETS:
        return {}
    return {"data": {k: decoded for k, v in (body.get("data") or {}).items() if (decoded := decode(v))}}


def decode(value: Json) -> str:
    """Text of a Secret's value; empty when it is not text."""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (TypeError, ValueError):
        return ""


def foreign_template_owner(metadata: Mapping[str, Json]) -> str:
    """The other field manager that set something of its own in the pod template's spec; empty if none.

    Annotations of the template do not count: `kubectl rollout restart` writes one, and it is a
    restart that somebody asked for. Nor do fields that the operator has set to the same value since.
    """
    entries = [entry for entry in metadata.get("managedFields") or () if not entry.get("subresource")]
    ours = [_template_fields(e) for e in entries if e.get("manager") == names.FIELD_MANAGER]
    for entry in entries:
        if entry.get("manager") != names.FIELD_MANAGER and not _covered(_template_fields(entry), ours):
            return str(entry.get("manager", "unknown"))
    return ""


def _template_fields(entry: Mapping[str, Json]) -> Mapping[str, Json]:
    template = ((entry.get("fieldsV1") or {}).get("f:spec") or {}).get("f:template") or {}
    fields: Mapping[str, Json] = template.get("f:spec") or {}
    return fields


def _covered(fields: Mapping[str, Json], by: list[Mapping[str, Json]]) -> bool:
    """Whether every field of a set is in one of the others too."""
    for name, below in fields.items():
        others = [other[name] for other in by if name in other]
        if name != "." and not (others and _covered(below, others)):
            return False
    return True


#: On the engine's Deployment, see `reconcile.engine_update`: the user's inputs behind its template, the
#: fingerprint of the template as it was sent (on its pods too), the last template that was seen to
#: serve, the last change that was given up, the last word for taking over a release's engine.
ANNOTATION_ENGINE_INPUTS = f"{names.GROUP}/engine-inputs"
ANNOTATION_ENGINE_TEMPLATE = f"{names.GROUP}/engine-template"
ANNOTATION_ENGINE_GOOD = f"{names.GROUP}/last-good-template"
ANNOTATION_ENGINE_FAILED = f"{names.GROUP}/failed-engine-update"
ANNOTATION_ENGINE_UPDATE = f"{names.GROUP}/update-engine"
ENGINE_STATE = (
    ANNOTATION_ENGINE_INPUTS,
    ANNOTATION_ENGINE_TEMPLATE,
    ANNOTATION_ENGINE_GOOD,
    ANNOTATION_ENGINE_FAILED,
    ANNOTATION_ENGINE_UPDATE,
)

_EXTRACT = {
    "Deployment": _deployment,
    "Job": _job,
    "PersistentVolumeClaim": _pvc,
    "Secret": _secret,
    "Service": _service,
}
