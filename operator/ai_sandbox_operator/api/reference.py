"""The reference of the AISandbox API as Markdown, from the same schema as the CRD."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from . import names, rules, schema

Schema = schema.Schema


def markdown(root: Schema, defaults: str) -> str:
    """The page. `defaults` is the YAML of an object that says nothing."""
    parts = [
        f"# {names.KIND}",
        f"`apiVersion: {names.API_VERSION}`, `kind: {names.KIND}`, short name `aisb`, category `ai`, "
        "namespaced.",
        str(root["description"]),
        *_rules(root),
        "Every field of `spec` is optional. An object that says nothing is stored as:",
        f"```yaml\n{defaults}```",
        "Within the entries of lists a default is applied and not stored: an entry stays as it was written.",
        "A description of every field is also in the cluster: `kubectl explain aisandbox.spec.access`.",
    ]
    for name in ("spec", "status"):
        for path, node in _objects(root["properties"][name], name):
            parts += [f"## {path}", _escape(node["description"]), *_rules(node), _table(node)]
    parts += ["## Refused engine flags", _flags()]
    return "\n\n".join(parts) + "\n"


def _flags() -> str:
    """The flags that spec.engine.extraArgs may not hold."""
    rows = ["| Flag | Instead, or why |", "|---|---|"]
    rows += [f"| `{flag}` | {_escape(remedy)} |" for flag, remedy in rules.DENIED_FLAGS.items()]
    rows += [f"| `{begin}...` | {_escape(rules.MESSAGE_FAMILY)} |" for begin in rules.DENIED_FAMILIES]
    return "\n".join(rows)


def _objects(node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """`node` and the objects within, each with its path."""
    yield path, node
    for name, child in node["properties"].items():
        where = f"{path}.{name}"
        if child["type"] == "array":
            child, where = child["items"], f"{where}[]"
        if "properties" in child:
            yield from _objects(child, where)


def _table(node: Schema) -> str:
    rows = ["| Field | Type | Default | Description |", "|---|---|---|---|"]
    for name, child in node["properties"].items():
        default = _default(child, required=name in node.get("required", ()))
        text = " ".join([_escape(child["description"]), *_limits(child)])
        rows.append(f"| `{name}` | {_type(child)} | {default} | {text} |")
    return "\n".join(rows)


def _type(node: Schema) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" if value != "" else '`""`' for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return "map of strings"
    return str(node.get("format") if node.get("format") == "date-time" else node["type"])


def _default(node: Schema, *, required: bool) -> str:
    if required:
        return "required"
    if "default" not in node:
        return ""
    if node["type"] == "object" and "properties" in node:
        return "see below"
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`"


def _limits(node: Schema) -> Iterator[str]:
    """Bounds and rules of a field in words."""
    bounds = {
        "minimum": "At least {}.",
        "maximum": "At most {}.",
        "maxLength": "At most {} characters.",
        "minItems": "At least {} entry.",
        "maxItems": "At most {} entries.",
        "maxProperties": "At most {} entries.",
    }
    for key, words in bounds.items():
        if key in node and abs(node[key]) < schema.LARGEST:
            yield words.format(node[key])
    if "pattern" in node:
        yield f"Pattern `{node['pattern'].replace('|', chr(92) + '|')}`."
    if "properties" not in node:
        yield from (_sentence("It", check) for check in node.get(rules.VALIDATIONS, ()))
    items = node.get("items") or node.get("additionalProperties") or {}
    if items and "properties" not in items:
        yield from (_sentence("Each", check) for check in items.get(rules.VALIDATIONS, ()))


def _rules(node: Schema) -> list[str]:
    checks = node.get(rules.VALIDATIONS, ())
    return ["\n".join(f"- {_sentence('It', check)}" for check in checks)] if checks else []


def _sentence(subject: str, check: dict[str, Any]) -> str:
    return f"{subject} {_escape(check['message'])}."


def _escape(text: str) -> str:
    """Text as Markdown shows it: `<name>` is no HTML, and a bar ends no cell."""
    return text.replace("<", "&lt;").replace("|", "\\|")
