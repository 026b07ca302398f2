"""What every child has in common: metadata, labels, ownership, security contexts, hashing.

Every value is written in the form in which the API server stores it, so that a rendered object and
its live counterpart compare equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import names, v1alpha1

from .facts import Manifest

ACCESS = "access"
CHAT = "chat"
ENGINE = "engine"
FETCH = "fetch"
GATEWAY = "gateway"

#: Where the model volume is mounted, by the fetch Job read-write and by the engine read-only.
MODELS_PATH = "/models"

#: On the chat's pod template: fingerprint of the Secret values that are read only at start.
ANNOTATION_SECRET_HASH = f"{names.GROUP}/secret-hash"
#: On the gateway's pod template: fingerprint of the part of its configuration that is read only at start.
ANNOTATION_BOOTSTRAP_HASH = f"{names.GROUP}/bootstrap-hash"
#: On the engine's Deployment: fingerprint of the user's own inputs to the engine.
ANNOTATION_ENGINE_INPUTS = f"{names.GROUP}/engine-inputs"

#: What the kubelet would not leave as it is.
_EXPANDED = re.compile(r"\${2,}|\$(?=\()")


def child_name(sandbox: v1alpha1.AISandbox, suffix: str) -> str:
    """Name of a child; fits 63 characters because a sandbox's name has at most 40."""
    return f"{sandbox.metadata.name}-{suffix}"


def owner(sandbox: v1alpha1.AISandbox) -> Manifest:
    """The controlling owner reference.

    blockOwnerDeletion keeps the sandbox visible, under foreground deletion, until its children are gone.
    """
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": sandbox.metadata.name,
        "uid": sandbox.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(
    sandbox: v1alpha1.AISandbox,
    name: str,
    component: str,
    *,
    owned: bool = True,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Metadata of a child. Labels and annotations of the sandbox itself are never copied."""
    result: Manifest = {
        "name": name,
        "namespace": sandbox.metadata.namespace,
        "labels": names.labels(sandbox.metadata.name, component),
    }
    if annotations:
        result["annotations"] = dict(annotations)
    if owned:
        result["ownerReferences"] = [owner(sandbox)]
    return result


def selector(sandbox: v1alpha1.AISandbox, component: str | None = None) -> dict[str, str]:
    """Labels that select the pods of one component, or of the whole sandbox.

    Part of the selector of a Deployment, which cannot be changed later.
    """
    labels = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER, names.LABEL_SANDBOX: sandbox.metadata.name}
    if component is not None:
        labels[names.LABEL_COMPONENT] = component
    return labels


def label_selector(sandbox: v1alpha1.AISandbox, component: str | None = None) -> str:
    """The same as a list request writes it."""
    return ",".join(f"{label}={value}" for label, value in selector(sandbox, component).items())


def template(
    sandbox: v1alpha1.AISandbox,
    component: str,
    pod_spec: Manifest,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A pod template whose pods know nothing of the API server and of other Services.

    Service links would set VLLM_PORT for a Service called `vllm`, which ends the engine at start.
    """
    meta: Manifest = {"labels": names.labels(sandbox.metadata.name, component)}
    if annotations:
        meta["annotations"] = dict(annotations)
    return {
        "metadata": meta,
        "spec": {"automountServiceAccountToken": False, "enableServiceLinks": False, **pod_spec},
    }


def deployment(
    sandbox: v1alpha1.AISandbox,
    component: str,
    *,
    replicas: int,
    strategy: Manifest,
    pod_template: Manifest,
    progress_deadline_seconds: int = 600,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A Deployment of one component."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(sandbox, child_name(sandbox, component), component, annotations=annotations),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": progress_deadline_seconds,
            "selector": {"matchLabels": selector(sandbox, component)},
            "strategy": strategy,
            "template": pod_template,
        },
    }


def service(
    sandbox: v1alpha1.AISandbox,
    name: str,
    component: str,
    ports: Sequence[Manifest],
    *,
    annotations: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """A Service in front of one component; ClusterIP unless `extra` says otherwise."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(sandbox, name, component, annotations=annotations),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(sandbox, component),
            "ports": list(ports),
            **(extra or {}),
        },
    }


def service_port(name: str, port: int, target: int) -> Manifest:
    """One TCP port of a Service."""
    return {"name": name, "protocol": "TCP", "port": port, "targetPort": target}


def secret(sandbox: v1alpha1.AISandbox, name: str, component: str, values: Mapping[str, str]) -> Manifest:
    """A Secret. `data` rather than `stringData`: the server would move the latter into the former."""
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata(sandbox, name, component),
    }
    if values:
        manifest["data"] = {
            key: base64.b64encode(value.encode()).decode() for key, value in sorted(values.items())
        }
    return manifest


def literal(text: str) -> str:
    """`text` as an argument, command or environment value that the kubelet hands on exactly.

    The kubelet reads `$$` as `$` and `$(NAME)` as a variable, and leaves any other `$` alone. So what is doubled
    is a `$` before a bracket, and each `$` of several in a row: the row stands for half of itself, and what comes
    after it begins nothing.
    Source: kubernetes third_party/forked/golang/expansion/expand.go.
    """
    return _EXPANDED.sub(lambda found: 2 * found[0], text)


def env(values: Mapping[str, str]) -> list[Manifest]:
    """Environment entries, without empty ones: the server would drop their value."""
    return [{"name": name, "value": literal(value)} for name, value in values.items() if value]


def env_secret(name: str, secret_name: str, key: str) -> Manifest:
    """An environment entry read from a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}}


def pod_security(*, user: int, group: int, volume_group: int) -> Manifest:
    """Pod half of the restricted Pod Security Standard.

    OnRootMismatch: a volume of hundreds of gigabytes is not walked at each start.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": volume_group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(*, read_only_root: bool = True) -> Manifest:
    """Container half of the restricted Pod Security Standard."""
    context: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if read_only_root:
        context["readOnlyRootFilesystem"] = True
    return context


def http_probe(path: str, port: int, *, period: int, failures: int = 3, timeout: int = 5) -> Manifest:
    """An HTTP probe."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def fingerprint(value: Any, length: int = 16) -> str:
    """Hexadecimal digest of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
