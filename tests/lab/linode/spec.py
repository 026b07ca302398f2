"""Linode's API description as an executable contract: routes, request checks, answer checks.

Every request and every answer of the simulator goes through the document in `data/linode-openapi.yaml`,
so that the simulator cannot invent a path, a field or a value. Refused here: unknown paths and methods,
bad path and paging parameters, bodies that do not fit their schema. Limits that a schema cannot say are
in `rules.py`. Source: linode/linode-api-docs and linode/linode-api-openapi (see the header of the
document).
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jsonschema
import jsonschema.exceptions
import yaml

from lab.linode.errors import ApiError, Json, bad_request

DOCUMENT = pathlib.Path(__file__).parent / "data" / "linode-openapi.yaml"
METHODS = ("get", "put", "post", "delete")
PAGE_SIZE_DEFAULT, PAGE_SIZE_MIN, PAGE_SIZE_MAX = 100, 25, 500

# Attributes that answer to X-Filter although the description does not mark them: the CCM filters
# NodeBalancers on `ipv6` (cloud/linode/loadbalancers.go); the rest is what the Cloud Manager filters on.
ALSO_FILTERABLE: dict[str, frozenset[str]] = {
    "NodeBalancer": frozenset({"ipv6"}),
    "Linode": frozenset({"id", "label", "region", "tags", "image", "group"}),
    "Volume": frozenset({"id", "label", "tags"}),
    "Event": frozenset({"id", "action", "created", "entity.id", "entity.type", "status", "username"}),
    "IPAddress": frozenset({"address", "public", "region", "type"}),
    "LinodeType": frozenset({"class", "disk", "gpus", "label", "memory", "vcpus"}),
    "Region": frozenset({"id", "country", "capabilities"}),
    "LKECluster": frozenset({"label", "region"}),
}


@dataclass(frozen=True)
class Operation:
    """One method of one path, with its compiled checks."""

    id: str
    method: str
    template: str
    scope: str | None  # "firewall:read_only", "(any)" = a token of any scope, None = public
    takes_filter: bool
    has_body: bool
    paged: bool
    item: str | None  # schema name of a page's items
    filterable: frozenset[str]
    parameters: Mapping[str, str]  # path parameter -> type
    body: jsonschema.Draft202012Validator | None
    answers: Mapping[str, jsonschema.Draft202012Validator]
    example: Json

    def body_error(self, body: Json) -> ApiError | None:
        """The reason for which a request body is refused."""
        if self.body is None:
            return None
        error = jsonschema.exceptions.best_match(self.body.iter_errors(body))
        return None if error is None else _as_api_error(error)

    def answer_error(self, status: int, body: Json) -> str | None:
        """Why an answer does not conform to the description; None if it does."""
        check = self.answers.get(str(status)) or self.answers.get("default")
        if check is None:
            return None if status == 204 else f"{self.id}: status {status} is not described"
        error = jsonschema.exceptions.best_match(check.iter_errors(body))
        return None if error is None else f"{self.id} {status}: {_path(error)}: {error.message[:300]}"


def _path(error: jsonschema.ValidationError) -> str:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _as_api_error(error: jsonschema.ValidationError) -> ApiError:
    path = _path(error)
    if error.validator == "required":
        names = error.validator_value if isinstance(error.validator_value, list) else []
        present = error.instance if isinstance(error.instance, dict) else {}
        missing = next((str(name) for name in names if name not in present), "field")
        return bad_request(f"{missing} is required", f"{path}.{missing}" if path else missing)
    if error.validator == "additionalProperties":
        return bad_request(error.message[:200], path or None)
    leaf = path.rsplit(".", 1)[-1] or "body"
    return bad_request(f"{leaf} is not valid: {error.message[:200]}", path or None)


def to_json_schema(node: Json) -> Json:
    """OpenAPI 3.0 to JSON Schema: `nullable` becomes a type, everything else stays."""
    if isinstance(node, list):
        return [to_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: to_json_schema(value) for key, value in node.items() if key not in ("nullable", "example")}
    if node.get("nullable") is not True:
        return out
    if isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
        return out
    return {"anyOf": [out, {"type": "null"}]} if ("$ref" in out or "oneOf" in out) else out


class Spec:
    """The document, its routes, and the operation for a method and path."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._document = document
        self._components = to_json_schema({"schemas": document["components"]["schemas"]})
        self.operations: dict[str, Operation] = {}
        routes: list[tuple[int, re.Pattern[str], dict[str, Operation]]] = []
        for template, item in document["paths"].items():
            methods = {m.upper(): self._operation(template, m, item) for m in METHODS if m in item}
            self.operations.update({operation.id: operation for operation in methods.values()})
            pattern = re.compile("^" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + "$")
            routes.append((template.count("{"), pattern, methods))
        # A literal segment beats a parameter: /nodebalancers/types is not a NodeBalancer.
        self._routes = [(p, m) for _, p, m in sorted(routes, key=lambda route: route[0])]

    def _validator(self, schema: Json) -> jsonschema.Draft202012Validator:
        return jsonschema.Draft202012Validator({**to_json_schema(schema), "components": self._components})

    def _resolve(self, node: Json) -> Json:
        while isinstance(node, dict) and "$ref" in node:
            target = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _operation(self, template: str, method: str, item: Mapping[str, Json]) -> Operation:
        raw = item[method]
        parameters = [self._resolve(p) for p in [*item.get("parameters", []), *raw.get("parameters", [])]]
        answers: dict[str, jsonschema.Draft202012Validator] = {}
        example: Json = None
        page_item: str | None = None
        for status, answer in raw["responses"].items():
            content = self._resolve(answer).get("content", {}).get("application/json")
            if content is None:
                continue
            answers[status] = self._validator(content["schema"])
            if status == "200":
                example = content.get("example")
                page_item = _page_item(content["schema"])
        body = raw.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        return Operation(
            id=raw["operationId"],
            method=method.upper(),
            template=template,
            scope=raw.get("x-oauth-scope") if raw.get("security") else None,
            takes_filter=any(p["name"] == "X-Filter" for p in parameters),
            has_body=body is not None,
            paged=page_item is not None,
            item=page_item or None,
            filterable=self._filterable(page_item),
            parameters={
                p["name"]: p["schema"].get("type", "string") for p in parameters if p["in"] == "path"
            },
            body=None if body is None else self._validator(body),
            answers=answers,
            example=example,
        )

    def _filterable(self, item: str | None) -> frozenset[str]:
        if not item:
            return frozenset()
        schema = self._document["components"]["schemas"][item]
        marked = {k for k, v in schema["properties"].items() if v.get("x-linode-filterable")}
        return frozenset(marked) | ALSO_FILTERABLE.get(item, frozenset())

    def match(self, method: str, path: str) -> tuple[Operation, dict[str, Json]]:
        """The operation and its typed path parameters; 404 and 405 are raised."""
        for pattern, methods in self._routes:
            found = pattern.match(path)
            if found is None:
                continue
            operation = methods.get(method)
            if operation is None:
                raise ApiError(405, "Method Not Allowed")
            return operation, _typed(operation, found.groupdict())
        raise ApiError(404, "Not found")

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())


def _page_item(schema: Mapping[str, Json]) -> str | None:
    """Name of the item schema of a page, "" for an unnamed one, None if the answer is no page."""
    if "oneOf" in schema:
        return next((name for s in schema["oneOf"] if (name := _page_item(s)) is not None), None)
    properties = schema.get("properties", {})
    if "data" not in properties or "results" not in properties:
        return None
    return str(properties["data"]["items"].get("$ref", "")).rsplit("/", 1)[-1]


def _typed(operation: Operation, raw: Mapping[str, str]) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name, text in raw.items():
        if operation.parameters.get(name) != "integer":
            values[name] = text
        elif text.isascii() and text.isdigit():
            values[name] = int(text)
        else:
            raise ApiError(404, "Not found")
    return values


def paging(query: Mapping[str, str]) -> tuple[int, int]:
    """`page` and `page_size` of a query; every other parameter is ignored, as Linode ignores `?tags=x`."""
    try:
        page, size = int(query.get("page", "1")), int(query.get("page_size", str(PAGE_SIZE_DEFAULT)))
    except ValueError:
        raise bad_request("page and page_size must be integers", "page") from None
    if page < 1:
        raise bad_request("page must be at least 1", "page")
    if not PAGE_SIZE_MIN <= size <= PAGE_SIZE_MAX:
        raise bad_request(f"page_size must be between {PAGE_SIZE_MIN} and {PAGE_SIZE_MAX}", "page_size")
    return page, size


@functools.cache
def load() -> Spec:
    """The description; read and compiled once per process."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with DOCUMENT.open("rb") as stream:
        return Spec(yaml.load(stream, loader))  # a safe loader either way
