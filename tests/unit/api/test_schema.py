"""The generator refuses what a CRD cannot hold or enforce, and the generated files are current."""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pydantic
import pytest
import yaml

from ai_sandbox_operator.api import crd, generate, rules, schema

ROOT = pathlib.Path(__file__).resolve().parents[3]
Text = Annotated[str, pydantic.Field(max_length=10)]


def _field(annotation: Any, **field: Any) -> type[pydantic.BaseModel]:
    """A model with one described field `x`."""
    field.setdefault("description", "A field.")
    return pydantic.create_model("M", x=(annotation, pydantic.Field(**field)))


class _Leaf(pydantic.BaseModel):
    a: Text = pydantic.Field(default="1", description="A.")


class _Needy(pydantic.BaseModel):
    a: Text = pydantic.Field(description="A.")


class _Tree(pydantic.BaseModel):
    children: list[_Tree] = pydantic.Field(
        default_factory=list, max_length=3, description="Children.", json_schema_extra=rules.atomic()
    )


def _dependent() -> type[pydantic.BaseModel]:
    class Dependent(pydantic.BaseModel):
        a: Text = pydantic.Field(default="1", description="A.")
        b: Text = pydantic.Field(default_factory=lambda data: str(data["a"]), description="B.")

    return Dependent


_REFUSED: dict[str, tuple[Callable[[], type[pydantic.BaseModel]], str]] = {
    "float": (lambda: _field(float, ge=0, le=1), "number has no structural form"),
    "any": (lambda: _field(Any), "no structural form"),
    "none-only": (lambda: _field(None), "null has no structural form"),
    "union": (lambda: _field(int | Text), "unions other than with None"),
    "union-of-models": (lambda: _field(_Leaf | _Needy), "unions other than with None"),
    "optional-with-default": (lambda: _field(Text | None, default="a"), "must default to None"),
    "tuple": (lambda: _field(tuple[Text, Text]), "prefixItems"),
    "timedelta": (lambda: _field(datetime.timedelta), "format duration is not enforced"),
    "secret": (lambda: _field(pydantic.SecretStr, max_length=9), "is not supported"),
    "bytes": (lambda: _field(bytes, max_length=9), "format binary is not enforced"),
    "ip-network": (lambda: _field(ipaddress.IPv4Network), "format ipv4network is not enforced"),
    "ip-address": (lambda: _field(ipaddress.IPv6Address), "format ipv6 is not enforced"),
    "url": (lambda: _field(pydantic.AnyUrl), "format uri is not enforced"),
    "uuid-format": (lambda: _field(Text, json_schema_extra={"format": "uuid"}), "format uuid"),
    "unbounded-string": (lambda: _field(str), "a string must have max_length"),
    "unbounded-items": (
        lambda: _field(list[str], max_length=3, json_schema_extra=rules.atomic()),
        "x\\[\\]: a string",
    ),
    "look-around": (lambda: _field(Text, json_schema_extra={"pattern": "^(?!a)"}), "no look-around"),
    "unbounded-integer": (lambda: _field(int), "an integer must have ge and le"),
    "half-bounded-integer": (lambda: _field(int, ge=0), "an integer must have ge and le"),
    "multiple": (lambda: _field(int, ge=0, le=8, multiple_of=2), "multipleOf"),
    "unbounded-list": (
        lambda: _field(list[Text], json_schema_extra=rules.atomic()),
        "a list must have max_length",
    ),
    "list-without-type": (
        lambda: _field(list[Text], max_length=3),
        "a list must state x-kubernetes-list-type",
    ),
    "list-of-anything": (
        lambda: _field(list[Any], max_length=3, json_schema_extra=rules.atomic()),
        "no structural form",
    ),
    "set-of-objects": (
        lambda: _field(list[_Leaf], max_length=3, json_schema_extra=rules.unique()),
        "a set must hold scalars",
    ),
    "map-list-unknown-key": (
        lambda: _field(list[_Leaf], max_length=3, json_schema_extra=rules.keyed("b")),
        "the key b must be",
    ),
    "map-list-without-keys": (
        lambda: _field(list[_Leaf], max_length=3, json_schema_extra={"x-kubernetes-list-type": "map"}),
        "must state its keys",
    ),
    "unbounded-map": (lambda: _field(dict[str, Text]), "a map must have max_length"),
    "untyped-map": (lambda: _field(dict[str, Any], max_length=3), "values of one type"),
    "map-of-objects": (lambda: _field(dict[str, _Leaf], max_length=3), "a map must hold strings"),
    "map-with-key-rules": (lambda: _field(dict[Text, Text], max_length=3), "propertyNames"),
    "recursion": (lambda: _Tree, "recursion over _Tree"),
    "no-description": (lambda: _field(Text, description=None), "a field must have a description"),
    "unstated-default": (
        lambda: _field(Text, default="a", json_schema_extra=lambda s: s.pop("default")),
        "must have a default or allow None",
    ),
    "default-lacks-required": (
        lambda: _field(_Needy, default_factory=lambda: _Needy(a="1")),
        "lacks the required a",
    ),
    "default-unlike-type": (
        lambda: _field(_Leaf, default_factory=lambda: _Leaf(a="2")),
        "must be that of the type",
    ),
    "default-from-other-field": (_dependent, "must not depend on other fields"),
}


@pytest.mark.parametrize(("make", "problem"), _REFUSED.values(), ids=_REFUSED)
def test_construct_is_refused(make: Callable[[], type[pydantic.BaseModel]], problem: str) -> None:
    with pytest.raises(schema.SchemaError, match=problem):
        schema.structural(make())


def test_refusal_names_the_path() -> None:
    inner = pydantic.create_model("Inner", deep=(float, pydantic.Field(description="D.")))
    outer = pydantic.create_model("Outer", in_ner=(inner, pydantic.Field(description="I.")))

    with pytest.raises(schema.SchemaError, match=r"^Outer\.in_ner\.deep: "):
        schema.structural(outer)


def test_references_are_inlined_and_what_stands_beside_them_wins() -> None:
    class Inner(pydantic.BaseModel):
        """Of the type."""

        model_config = pydantic.ConfigDict(json_schema_extra=rules.cel(rules.rule("a", "of the type")))
        a: Text = pydantic.Field(default="1", description="A.")

    extra = rules.cel(rules.rule("b", "of the field"))
    found = schema.structural(
        _field(Inner, default_factory=Inner, description="Of the field.", json_schema_extra=extra)
    )["properties"]["x"]

    assert found["description"] == "Of the field."
    assert [check["rule"] for check in found[rules.VALIDATIONS]] == ["a", "b"]
    # A rule judges the default before the server has filled it in.
    assert found["default"] == {"a": "1"}


def test_forms_of_scalars() -> None:
    class Scalars(pydantic.BaseModel):
        one: Literal["a"] = pydantic.Field(description="One.")
        small: int = pydantic.Field(gt=0, lt=10, description="Small.")
        large: int = pydantic.Field(ge=0, le=2**40, description="Large.")
        maybe: Text | None = pydantic.Field(default=None, description="Maybe.")

    found = schema.structural(Scalars)

    assert found["properties"] == {
        "one": {"type": "string", "enum": ["a"], "description": "One."},
        "small": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9, "description": "Small."},
        "large": {
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "maximum": 2**40,
            "description": "Large.",
        },
        "maybe": {"type": "string", "maxLength": 10, "description": "Maybe."},
    }
    assert found["required"] == ["one", "small", "large"]


def test_nested_defaults_are_filled_in_by_the_server() -> None:
    outer = pydantic.create_model(
        "Outer", inner=(_Leaf, pydantic.Field(default_factory=_Leaf, description="Inner."))
    )
    found = schema.structural(outer)

    assert found["properties"]["inner"]["default"] == {}
    assert schema.filled(found) == {"inner": {"a": "1"}}


def test_generated_files_are_current() -> None:
    for name, text in generate.contents().items():
        assert (ROOT / name).read_bytes() == text.encode(), f"{name}: run make generate"


def test_check_reports_a_stale_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([str(tmp_path)]) == 0
    assert schema.main([str(tmp_path), "--check"]) == 0
    (tmp_path / generate.CRD_PATH).write_text("old")
    capsys.readouterr()

    assert schema.main([str(tmp_path), "--check"]) == 1
    assert f"{generate.CRD_PATH} is out of date" in capsys.readouterr().err
    assert (tmp_path / generate.CRD_PATH).read_text() == "old"


def test_printed_crd_is_the_generated_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--print"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == crd.definition()


def _nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from _nodes(node[key], f"{path}[]")


def test_every_field_has_a_description() -> None:
    for path, node in _nodes(crd.root()):
        for name, child in node.get("properties", {}).items():
            if not f"{path}.{name}".startswith(".metadata"):
                assert child["description"][-1] == ".", f"{path}.{name}"


#: First Kubernetes release with each function (k8s.io/apiserver: pkg/cel/library, pkg/cel/environment).
_FUNCTIONS = {
    name: minor
    for minor, names in {
        25: "size matches all exists exists_one filter map has startsWith contains string split replace trim "
        "indexOf lastIndexOf isURL url getScheme getHostname getPort",
        28: "isQuantity quantity isLessThan isGreaterThan",
        30: "isCIDR cidr masked ip family prefixLength",
    }.items()
    for name in names.split()
}


def test_rules_use_only_what_the_oldest_server_compiles() -> None:
    """A 1.31 server compiles new rules with the libraries of 1.30."""
    expressions = [
        text
        for _, node in _nodes(crd.root())
        for check in node.get(rules.VALIDATIONS, ())
        for text in (check["rule"], check.get("messageExpression", ""))
    ]
    assert len(expressions) > 60
    for text in expressions:
        code = re.sub(r'"(\\.|[^"\\])*"|\'[^\']*\'', "''", text)
        used = set(re.findall(r"([A-Za-z_]\w*)\(", code))
        assert not used - set(_FUNCTIONS), text
        assert max((_FUNCTIONS[name] for name in used), default=0) <= 30
        # Optionals and comprehensions over two variables came later or are off.
        assert "[?" not in code
        assert "?." not in code
        assert not re.search(r"\.(all|exists|exists_one|existsOne)\(\w+, *\w+, ", code), text


def test_messages_say_what_must_hold() -> None:
    for path, node in _nodes(crd.root()):
        for check in node.get(rules.VALIDATIONS, ()):
            assert check["message"].startswith("must "), path
            assert not check["message"].endswith("."), path


def test_crd_names() -> None:
    definition = crd.definition()
    assert definition["spec"]["names"]["shortNames"] == ["aisb"]
    assert definition["spec"]["names"]["categories"] == ["ai"]
    assert "preserveUnknownFields" not in definition["spec"]
    version = definition["spec"]["versions"][0]
    assert [
        column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")
    ] == [
        "Ready",
        "Reason",
        "Model",
        "GPU",
        "Endpoint",
        "Age",
    ]


def test_within_the_items_of_lists_nothing_is_stored_but_what_was_written() -> None:
    """A default there would make a list another one than in Git; keys of list maps may have one."""

    def defaults(node: schema.Schema, path: str, within: bool) -> Iterator[str]:
        if within and "default" in node:
            yield path
        for name, child in node.get("properties", {}).items():
            yield from defaults(child, f"{path}.{name}", within)
        if "items" in node:
            yield from defaults(node["items"], f"{path}[]", True)

    shown, kept = crd.root(), schema.stored(crd.root())
    assert ".spec.access.allowlist[].to" in set(defaults(shown, "", False))
    assert list(defaults(kept, "", False)) == []
    assert schema.filled(kept["properties"]["spec"]) == schema.filled(shown["properties"]["spec"])


def test_a_default_of_the_key_of_a_list_map_is_kept() -> None:
    item = {"type": "object", "properties": {"name": {"default": "a"}, "other": {"default": "b"}}}
    node = {"type": "array", "items": item, rules.LIST_TYPE: "map", rules.LIST_KEYS: ["name"]}
    properties = schema.stored(node)["items"]["properties"]
    assert properties == {"name": {"default": "a"}, "other": {}}
