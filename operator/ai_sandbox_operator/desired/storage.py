"""The volumes: model cache and chats.

A volume that is to outlive the sandbox carries no owner reference; it is found again by its labels.
ReadWriteOnce is all that Linode Block Storage offers, hence strategy Recreate for its users.
"""

from __future__ import annotations

from ai_sandbox_operator.api import v1alpha1

from . import common, models, quantity
from .facts import Child, Facts, Manifest, Stage


def model_claim_name(sandbox: v1alpha1.AISandbox) -> str:
    """Volume claim of the model cache."""
    return common.child_name(sandbox, "model")


def chat_claim_name(sandbox: v1alpha1.AISandbox) -> str:
    """Volume claim of users and chats."""
    return common.child_name(sandbox, "chat")


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """The claims. Turning the chat off takes its claim out of the wanted state, never out of the cluster."""
    spec = sandbox.spec
    claims = [
        _claim(
            sandbox,
            facts,
            model_claim_name(sandbox),
            common.FETCH,
            models.model_cache_size(spec, facts.model_bytes),
            retained=spec.storage.retain.model_cache,
        )
    ]
    if spec.chat.enabled:
        claims.append(
            _claim(
                sandbox,
                facts,
                chat_claim_name(sandbox),
                common.CHAT,
                quantity.canonical(spec.chat.storage.size),
                retained=spec.storage.retain.chat,
            )
        )
    return [Child(stage=Stage.STORAGE, manifest=claim) for claim in claims]


def _claim(
    sandbox: v1alpha1.AISandbox, facts: Facts, name: str, component: str, size: str, *, retained: bool
) -> Manifest:
    # The class is explicit: LKE's default class keeps, and bills, volumes after their claim is gone.
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": common.metadata(sandbox, name, component, owned=not retained),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "storageClassName": sandbox.spec.storage.class_name or facts.storage_class,
            "resources": {"requests": {"storage": size}},
        },
    }
