"""Where a sandbox is reached."""

from __future__ import annotations

from ai_sandbox_operator.api import names, v1alpha1

from . import common
from .facts import Facts


def internal_name(sandbox: v1alpha1.AISandbox) -> str:
    """The Service for clients inside the cluster."""
    return common.child_name(sandbox, "internal")


def scheme(sandbox: v1alpha1.AISandbox) -> str:
    """Scheme of both endpoints."""
    return "http" if sandbox.spec.access.tls.mode == "Disabled" else "https"


def hosts(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[str]:
    """Every name under which the gateway is reached, the preferred one first."""
    found = list(sandbox.spec.access.hostnames)
    found += [f"[{name}]" if ":" in name else name for name in facts.public_names]
    internal = f"{internal_name(sandbox)}.{sandbox.metadata.namespace}.svc"
    return [*dict.fromkeys([*found, internal])]


def chat_origins(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[str]:
    """Origins of the chat UI, the preferred one first."""
    return [f"{scheme(sandbox)}://{host}:{names.PORT_CHAT}" for host in hosts(sandbox, facts)]


def api_url(sandbox: v1alpha1.AISandbox, facts: Facts) -> str:
    """Base URL of the API."""
    return f"{scheme(sandbox)}://{hosts(sandbox, facts)[0]}:{names.PORT_API}/v1"
