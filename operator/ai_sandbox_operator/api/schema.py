"""From pydantic models to the structural OpenAPI v3 schema that a CRD needs.

Strict on purpose: a construct that is not listed here raises, because the API server would refuse
it, or worse, accept it and not enforce it. Three things hold for whatever comes out:

- every value is bounded (length, range, number of items), which also bounds the cost of its rules;
- every default is stated where the server fills it in, so that a stored object shows what counts; within the
  items of lists it is left to the operator (`stored`);
- every field has a description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pydantic
import pydantic_core
from pydantic.json_schema import GenerateJsonSchema, NoDefault
from pydantic_core import core_schema

from . import rules

Schema = dict[str, Any]

_EXTENSIONS = {rules.VALIDATIONS, rules.LIST_TYPE, rules.LIST_KEYS, "x-kubernetes-map-type"}
#: Says nothing that the server or a reader needs.
_NOISE = {"title", "deprecated", "examples"}
_COMMON = {"type", "description", "default", rules.VALIDATIONS}
_LIST_TYPES = ("atomic", "set", "map")
_LOOK_AROUND = re.compile(r"\(\?(=|!|<=|<!)")
_INT32 = 2**31 - 1
#: Numbers from here on are technical bounds that nobody reaches.
LARGEST = 2**53 - 1


class SchemaError(ValueError):
    """A model uses something that has no faithful form in a CRD."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class _WithFactories(GenerateJsonSchema):
    """pydantic's generator, which states the values of default factories too."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Callable[[], Any] | None = schema.get("default_factory")  # type: ignore[assignment]
        if factory is None:
            return schema.get("default", NoDefault)
        if schema.get("default_factory_takes_data"):
            raise SchemaError("default_factory", "must not depend on other fields")
        return factory()

    def encode_default(self, dft: Any) -> Any:
        return pydantic_core.to_jsonable_python(dft, by_alias=True, exclude_none=True)


def structural(model: type[pydantic.BaseModel]) -> Schema:
    """The structural schema of `model`, without references.

    Raises:
        SchemaError: the model uses a construct that a CRD cannot hold or enforce.
    """
    document = model.model_json_schema(by_alias=True, schema_generator=_WithFactories)
    definitions = document.pop("$defs", {})
    return _Converter(definitions).convert(document, model.__name__, ())


def filled(schema: Schema) -> Any:
    """What the server makes of an empty object of this schema: all defaults, also nested ones."""
    if "properties" not in schema:
        return schema.get("default")
    return {
        name: filled(child) if child["default"] == {} else child["default"]
        for name, child in schema["properties"].items()
        if "default" in child
    }


def stored(schema: Schema, *, keys: Collection[str] = (), within: bool = False) -> Schema:
    """`schema` as the server gets it: without defaults within the items of lists, keys of a list apart.

    A default there changes a list as a whole, so tools that compare lists (a client-side `kubectl apply`, Argo CD's
    own comparison) would find an object that nobody changed to be another than in Git, for ever. Kubernetes has none
    in the items of its own lists of this kind either: selectors, tolerations.
    """
    kept = {key: value for key, value in schema.items() if key != "default" or not within}
    if "items" in kept:
        kept["items"] = stored(kept["items"], keys=kept.get(rules.LIST_KEYS, ()), within=True)
    if "properties" in kept:
        kept["properties"] = {
            name: stored(child, within=within and name not in keys)
            for name, child in kept["properties"].items()
        }
    return kept


class _Converter:
    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, node: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        """`node` without references; `seen` holds the definitions that enclose it."""
        node = {key: value for key, value in node.items() if key not in _NOISE}
        node = self._without_null(node, path)
        if "$ref" in node:
            name = node.pop("$ref").removeprefix("#/$defs/")
            if name in seen:
                raise SchemaError(path, f"recursion over {name} cannot be inlined")
            return self.convert(_merged(self._definitions[name], node), path, (*seen, name))
        if "const" in node:
            node["enum"] = [node.pop("const")]
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
        match node.get("type"):
            case "string":
                return _string(node, path)
            case "integer":
                return _integer(node, path)
            case "boolean":
                return _only(node, path, set())
            case "array":
                return self._array(node, path, seen)
            case "object" if "properties" in node:
                return self._object(node, path, seen)
            case "object":
                return self._map(node, path, seen)
            case kind:
                raise SchemaError(path, f"{kind or sorted(node)} has no structural form")

    @staticmethod
    def _without_null(node: Schema, path: str) -> Schema:
        """`X | None` as an optional X without default; other unions raise."""
        if "anyOf" not in node:
            return node
        node = dict(node)
        branches = node.pop("anyOf")
        others = [branch for branch in branches if branch != {"type": "null"}]
        if len(others) != 1 or len(others) == len(branches):
            raise SchemaError(path, "unions other than with None have no structural form")
        if node.pop("default", None) is not None:
            raise SchemaError(path, "a field that may be None must default to None")
        return _merged(others[0], node)

    def _array(self, node: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        if node.pop("uniqueItems", False):
            node.setdefault(rules.LIST_TYPE, "set")
        allowed = {"items", "minItems", "maxItems", rules.LIST_TYPE, rules.LIST_KEYS}
        node = _only(node, path, allowed)
        if "maxItems" not in node:
            raise SchemaError(path, "a list must have max_length")
        if node.get(rules.LIST_TYPE) not in _LIST_TYPES:
            raise SchemaError(path, f"a list must state {rules.LIST_TYPE}: {', '.join(_LIST_TYPES)}")
        if "items" not in node:
            raise SchemaError(path, "a list must state the type of its items")
        node["items"] = items = self.convert(node["items"], f"{path}[]", seen)
        kind = node[rules.LIST_TYPE]
        if kind == "set" and items["type"] in ("object", "array"):
            raise SchemaError(path, "a set must hold scalars")
        if (kind == "map") != (rules.LIST_KEYS in node):
            raise SchemaError(path, "a list of type map, and no other, must state its keys")
        for key in node.get(rules.LIST_KEYS, ()):
            child = items.get("properties", {}).get(key)
            if child is None or (key not in items.get("required", ()) and "default" not in child):
                raise SchemaError(path, f"the key {key} must be a required or defaulted field of the items")
        return node

    def _map(self, node: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        if node.get("additionalProperties") in (None, True, False):
            raise SchemaError(path, "an object must have fields, or values of one type")
        node = _only(node, path, {"additionalProperties", "maxProperties", "x-kubernetes-map-type"})
        if "maxProperties" not in node:
            raise SchemaError(path, "a map must have max_length")
        node["additionalProperties"] = value = self.convert(node["additionalProperties"], f"{path}{{}}", seen)
        if value["type"] != "string":
            raise SchemaError(path, "a map must hold strings; use a list of objects with names")
        return node

    def _object(self, node: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]  # The server refuses unknown fields by itself.
        node = _only(node, path, {"properties", "required"})
        required = set(node.get("required", ()))
        properties: dict[str, Schema] = {}
        for name, field in node["properties"].items():
            where = f"{path}.{name}"
            optional = "anyOf" in field
            properties[name] = child = self.convert(field, where, seen)
            if not child.get("description"):
                raise SchemaError(where, "a field must have a description")
            if name not in required and not optional and "default" not in child:
                raise SchemaError(where, "an optional field must have a default or allow None")
            if child["type"] == "object" and "default" in child:
                self._check_default(child, where)
        node["properties"] = properties
        return node

    @staticmethod
    def _check_default(child: Schema, where: str) -> None:
        """An object's default becomes {} if it can: the server fills in the rest, which comes to the same."""
        if missing := [key for key in child.get("required", ()) if "default" not in child["properties"][key]]:
            raise SchemaError(where, f"the default lacks the required {', '.join(missing)}")
        if "properties" in child:
            if child["default"] != filled(child):
                raise SchemaError(where, "the default must be that of the type")
            # Its rules judge the default as it stands, so there it is spelled out.
            child["default"] = filled(child) if rules.VALIDATIONS in child else {}


def _merged(inner: Schema, outer: Schema) -> Schema:
    """What stands beside a reference wins; rules add up."""
    result = {**inner, **outer}
    if rules.VALIDATIONS in inner and rules.VALIDATIONS in outer:
        result[rules.VALIDATIONS] = [*inner[rules.VALIDATIONS], *outer[rules.VALIDATIONS]]
    return result


def _only(node: Schema, path: str, allowed: set[str]) -> Schema:
    if unknown := sorted(set(node) - allowed - _COMMON):
        raise SchemaError(path, f"{', '.join(unknown)} of a value of type {node['type']} is not supported")
    return node


def _string(node: Schema, path: str) -> Schema:
    node = _only(node, path, {"enum", "format", "maxLength", "minLength", "pattern"})
    # Other formats are unknown to the server, or not enforced, or have another spelling there.
    if node.get("format", "date-time") != "date-time":
        raise SchemaError(path, f"format {node['format']} is not enforced by the server; use a rule")
    if not node.keys() & {"enum", "format", "maxLength"}:
        raise SchemaError(path, "a string must have max_length")
    pattern = node.get("pattern")
    if pattern is not None:
        if _LOOK_AROUND.search(pattern):
            raise SchemaError(path, "the server's patterns (RE2) have no look-around")
        re.compile(pattern)
    return node


def _integer(node: Schema, path: str) -> Schema:
    for exclusive, inclusive, step in (
        ("exclusiveMinimum", "minimum", 1),
        ("exclusiveMaximum", "maximum", -1),
    ):
        if exclusive in node:
            node[inclusive] = node.pop(exclusive) + step
    node = _only(node, path, {"enum", "maximum", "minimum"})
    if "enum" not in node and not {"minimum", "maximum"} <= set(node):
        raise SchemaError(path, "an integer must have ge and le")
    largest = max(map(abs, node.get("enum", ()) or (node["minimum"], node["maximum"])))
    node["format"] = "int32" if largest <= _INT32 else "int64"
    return node


def main(argv: Sequence[str]) -> int:
    """Write or check the generated files; see `generate.py`."""
    from . import generate

    return generate.main(argv)
