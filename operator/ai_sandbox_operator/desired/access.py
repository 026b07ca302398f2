"""Secrets of a sandbox.

Generated values are written once (create_only) and read back from the cluster afterwards; the chat's
Secret is derived from them and always rewritten. The gateway's Secret is its configuration and is
rendered with it; the TLS Secret is issued elsewhere.
"""

from __future__ import annotations

from ai_sandbox_operator.api import v1alpha1

from . import common
from .facts import Child, Facts, Manifest, Stage

#: Key within <name>-engine-key.
ENGINE_KEY = "key"
#: Keys within <name>-chat, and the variables of the chat that they fill.
CHAT_SESSION_KEY = "WEBUI_SECRET_KEY"
CHAT_ENGINE_KEYS = "OPENAI_API_KEYS"
#: Keys within the Secret of the chat's administrator.
ADMIN_EMAIL, ADMIN_PASSWORD = "email", "password"


def engine_key_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with the key that gateway and chat present to the engine."""
    return common.child_name(sandbox, "engine-key")


def api_keys_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with the API keys of the users."""
    return common.child_name(sandbox, "api-keys")


def chat_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with what the chat reads at start."""
    return common.child_name(sandbox, "chat")


def chat_admin_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with the password of the chat's first administrator: the user's, or a generated one."""
    return sandbox.spec.chat.admin.secret_name or common.child_name(sandbox, "chat-admin")


def tls_name(sandbox: v1alpha1.AISandbox) -> str | None:
    """Secret with the certificate; None when the listeners are not encrypted."""
    tls = sandbox.spec.access.tls
    if tls.mode == "Disabled":
        return None
    if tls.mode == "Secret" and tls.secret_name:
        return tls.secret_name
    if tls.mode == "CertManager":
        # Not the Secret of the own certificate: two issuers of one Secret would fight.
        return common.child_name(sandbox, "cert-manager")
    return common.child_name(sandbox, "tls")


def authority_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with the certificate that clients trust in mode SelfSigned, and no key."""
    return common.child_name(sandbox, "ca")


def authority_key_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with the key of the sandbox's own authority; no pod mounts it."""
    return common.child_name(sandbox, "ca-key")


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """The Secrets. They do not depend on whether the chat is on: turning it off and on loses no password."""
    material = facts.material
    children = [
        _generated(
            common.secret(sandbox, engine_key_name(sandbox), common.ACCESS, {ENGINE_KEY: material.engine_key})
        ),
        _generated(common.secret(sandbox, api_keys_name(sandbox), common.ACCESS, material.api_keys)),
        Child(
            stage=Stage.SECRET, manifest=common.secret(sandbox, chat_name(sandbox), common.CHAT, chat(facts))
        ),
    ]
    admin = sandbox.spec.chat.admin
    if not admin.secret_name and material.chat_admin_password:
        values = {ADMIN_EMAIL: admin.email, ADMIN_PASSWORD: material.chat_admin_password}
        children.append(_generated(common.secret(sandbox, chat_admin_name(sandbox), common.CHAT, values)))
    return children


def chat(facts: Facts) -> dict[str, str]:
    """Content of the chat's Secret."""
    return {
        CHAT_SESSION_KEY: facts.material.chat_session_key,
        CHAT_ENGINE_KEYS: facts.material.engine_key,
    }


def _generated(manifest: Manifest) -> Child:
    return Child(stage=Stage.SECRET, manifest=manifest, create_only=True)
