"""The CustomResourceDefinition of AISandbox: the schema, and how kubectl shows and selects it."""

from __future__ import annotations

from typing import Any

from . import names, rules, schema, v1alpha1

#: Ready's status and reason rather than a phase: conditions are the one place that tells the state.
_READY = '.status.conditions[?(@.type=="Ready")]'
#: Name, type, path, and whether only `-o wide` shows it.
COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    ("Ready", "string", f"{_READY}.status", False),
    ("Reason", "string", f"{_READY}.reason", False),
    ("Model", "string", ".spec.model.id", False),
    ("GPU", "integer", ".spec.gpu.count", False),
    # The chat's URL, or the API's where the chat is off.
    ("Endpoint", "string", ".status.endpoints['chat','api']", False),
    ("Plan", "string", ".spec.gpu.plan", True),
    ("Exposure", "string", ".spec.access.exposure", True),
    ("Message", "string", f"{_READY}.message", True),
    ("Age", "date", ".metadata.creationTimestamp", False),
)
#: Fields that `kubectl get --field-selector` understands.
SELECTABLE = (".spec.access.exposure", ".spec.lifecycle.state")


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["aisb"],
                "categories": ["ai"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema.stored(root())},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "selectableFields": [{"jsonPath": path} for path in SELECTABLE],
                }
            ],
        },
    }


def root() -> schema.Schema:
    """Schema of the whole object."""
    spec = schema.structural(v1alpha1.AISandboxSpec)
    status = schema.structural(v1alpha1.AISandboxStatus)
    return {
        "type": "object",
        "description": "A private LLM sandbox: one model on GPUs, with a chat, closed to everybody but "
        "those whom spec.access names.",
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": f"Version of this object's schema: {names.API_VERSION}.",
            },
            "kind": {"type": "string", "description": f"Kind of this object: {names.KIND}."},
            # The name is declared so that the rule about it can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {**spec, "default": {}},
            # A new object is in progress until the operator has judged it.
            "status": {**status, "default": {"observedGeneration": -1, "conditions": []}},
        },
        rules.VALIDATIONS: [*rules.ROOT],
    }


def _column(name: str, kind: str, path: str, wide: bool) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if wide:
        column["priority"] = 1
    return column
