"""The Certificate that asks cert-manager for the gateway's certificate.

It is not among the rendered children: its kind exists only where cert-manager is installed.
Source: cert-manager pkg/apis/certmanager/v1/types_certificate.go.
"""

from __future__ import annotations

import ipaddress

from ai_sandbox_operator.api import kinds, names, v1alpha1

from . import access, common
from .facts import Manifest

#: Component label of certificates and their Secrets; they are not rendered, so the plan leaves them alone.
COMPONENT = "certificate"


def name(sandbox: v1alpha1.AISandbox) -> str:
    """Name of the Certificate."""
    return common.child_name(sandbox, common.GATEWAY)


def subjects(sandbox: v1alpha1.AISandbox, own: tuple[str, ...]) -> tuple[str, ...]:
    """Names that cert-manager is asked for.

    With host names in the spec exactly those: a public authority would refuse the whole certificate for
    one name inside the cluster. Without any, everything that the gateway is reached by (`own`).
    """
    return tuple(sandbox.spec.access.hostnames) or own


def render(sandbox: v1alpha1.AISandbox, wanted: tuple[str, ...]) -> Manifest:
    """The Certificate for these DNS names and IP addresses."""
    issuer = sandbox.spec.access.tls.issuer_ref
    assert issuer is not None  # a rule of the schema
    addresses = [text for text in wanted if _is_address(text)]
    hosts = [text for text in wanted if not _is_address(text)]
    labels = names.labels(sandbox.metadata.name, COMPONENT)
    return {
        "apiVersion": kinds.CERTIFICATE.api_version,
        "kind": kinds.CERTIFICATE.kind,
        "metadata": common.metadata(sandbox, name(sandbox), COMPONENT),
        "spec": {
            "secretName": access.tls_name(sandbox),
            # cert-manager's own label keeps the Secret its own; ours only help people to find it.
            "secretTemplate": {
                "labels": {key: labels[key] for key in (names.LABEL_NAME, names.LABEL_SANDBOX)}
            },
            **({"dnsNames": hosts} if hosts else {}),
            **({"ipAddresses": addresses} if addresses else {}),
            "issuerRef": {
                "name": issuer.name,
                "kind": issuer.kind,
                "group": "cert-manager.io",
            },
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", "server auth"],
        },
    }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
