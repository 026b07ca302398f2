"""What of cert-manager the operator meets: its kind Certificate, and an issuer that answers.

The schema has the fields that the operator sets and is strict, so that a wrong name is refused as by the
real one. Source: cert-manager pkg/apis/certmanager/v1/types_certificate.go.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
from typing import Any

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.reconcile import material

CRD = kinds.Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
NAME = "certificates.cert-manager.io"
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_MAP: dict[str, Any] = {"type": "object", "additionalProperties": _TEXT}


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    spec = _object(
        ["issuerRef", "secretName"],
        secretName=_TEXT,
        secretTemplate=_object(annotations=_MAP, labels=_MAP),
        commonName=_TEXT,
        duration=_TEXT,
        renewBefore=_TEXT,
        dnsNames=_TEXTS,
        ipAddresses=_TEXTS,
        issuerRef=_object(["name"], name=_TEXT, kind=_TEXT, group=_TEXT),
        privateKey=_object(
            algorithm={**_TEXT, "enum": ["RSA", "ECDSA", "Ed25519"]},
            size={"type": "integer"},
            rotationPolicy={**_TEXT, "enum": ["Never", "Always"]},
        ),
        usages={
            "type": "array",
            "items": {
                **_TEXT,
                "enum": ["digital signature", "key encipherment", "server auth", "client auth"],
            },
        },
    )
    condition = _object(
        ["status", "type"],
        type=_TEXT,
        status=_TEXT,
        reason=_TEXT,
        message=_TEXT,
        observedGeneration={"type": "integer", "format": "int64"},
        lastTransitionTime={**_TEXT, "format": "date-time"},
    )
    status = _object(conditions={"type": "array", "items": condition})
    names = {
        "kind": "Certificate",
        "listKind": "CertificateList",
        "plural": "certificates",
        "singular": "certificate",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _object(spec=spec, status=status)},
    }
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": NAME},
        "spec": {"group": "cert-manager.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def install(api: kube_client.KubeClient) -> None:
    """Install the kind."""
    await api.create(CRD, definition())


async def uninstall(api: kube_client.KubeClient) -> None:
    """Remove the kind, and all Certificates with it."""
    try:
        live = await api.get(CRD, None, NAME)
    except errors.NotFound:
        return
    await api.delete(CRD, None, NAME, uid=live["metadata"]["uid"])


async def say(api: kube_client.KubeClient, live: dict[str, Any], status: str, message: str) -> None:
    """Set condition Ready of a Certificate."""
    metadata = live["metadata"]
    condition = {
        "type": "Ready",
        "status": status,
        "message": message,
        "observedGeneration": metadata["generation"],
        "lastTransitionTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    await api._request(
        "patch",
        kinds.CERTIFICATE,
        "PATCH",
        kinds.CERTIFICATE.path(metadata["namespace"], metadata["name"], "status"),
        body={"status": {"conditions": [condition]}},
        content_type=kube_client.MERGE_PATCH,
    )


async def issue(api: kube_client.KubeClient, live: dict[str, Any]) -> str:
    """Issue what a Certificate asks for into its Secret; the authority's certificate in PEM form."""
    now = datetime.datetime.now(datetime.UTC)
    spec, namespace = live["spec"], live["metadata"]["namespace"]
    addresses = [str(ipaddress.ip_address(text)) for text in spec.get("ipAddresses", ())]
    authority = material.new_authority(sandbox="cert-manager", now=now)
    issued = material.issue(authority, names=[*spec.get("dnsNames", ()), *addresses], now=now)
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": spec["secretName"],
            "namespace": namespace,
            "labels": {**spec["secretTemplate"]["labels"], "controller.cert-manager.io/fao": "true"},
        },
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in issued.items()},
    }
    await api.create(kinds.SECRET, manifest)
    await say(api, live, "True", "Certificate is up to date and has not expired")
    return issued["ca.crt"]
