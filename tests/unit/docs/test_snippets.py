"""What the pages show exists and would be accepted: manifests, paths, links and fields."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from ai_sandbox_operator.api import names, v1alpha1, validation

ROOT = pathlib.Path(__file__).parents[3]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*/*.md"))]
#: Fewer would mean that the pattern below finds nothing.
FEWEST_MANIFESTS = 8

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
#: A path from the root of the repository, as far as it is spelled out.
_PATH = re.compile(r"(?:charts|crds|docs|manifests|operator|scripts|tests|\.github|\.ci)/[\w./-]*")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FIELD = re.compile(r"aisb\b.*?jsonpath='[^']*'")
_PLACE = re.compile(r"\{\.((?:spec|status)(?:\.\w+)*)")


def _blocks(page: pathlib.Path, language: str) -> Iterator[str]:
    yield from (body for found, body in _FENCE.findall(page.read_text()) if found == language)


def _manifests() -> Iterator[Any]:
    for page in GUIDES:
        for number, block in enumerate(_blocks(page, "yaml")):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("kind") == names.KIND:
                    yield pytest.param(document, id=f"{page.name}-{number}")


def _named_paths(page: pathlib.Path) -> Iterator[str]:
    """Paths in inline code; what has a placeholder or a pattern in it is not a path."""
    for text in _CODE.findall(_FENCE.sub("", page.read_text())):
        if _PATH.fullmatch(text.partition("::")[0]):
            yield text.partition("::")[0]


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _anchors(page: pathlib.Path) -> set[str]:
    return {_slug(line.lstrip("#").strip()) for line in page.read_text().splitlines() if line.startswith("#")}


def _schema() -> dict[str, Any]:
    """The CRD's schema, in which a field that is not listed is a mistake rather than ignored."""
    (path,) = (ROOT / "crds").glob("*.yaml")
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    schema: dict[str, Any] = versions[0]["schema"]["openAPIV3Schema"]
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            schema.setdefault("additionalProperties", False)
        for child in schema.values():
            _close(child)


SCHEMA = _schema()
MANIFESTS = list(_manifests())


def test_the_pages_show_manifests() -> None:
    assert len(MANIFESTS) >= FEWEST_MANIFESTS


@pytest.mark.parametrize("document", MANIFESTS)
def test_a_manifest_on_a_page_is_one_that_would_be_accepted(document: dict[str, Any]) -> None:
    jsonschema.validate(document, SCHEMA)
    metadata = {"namespace": "default", "uid": "u", **document["metadata"]}
    sandbox = v1alpha1.parse({**document, "metadata": metadata})
    assert validation.violations(sandbox) == ()


@pytest.mark.parametrize(
    "spec",
    [
        {"acess": {}},
        {"access": {"allowlist": [{"cidr": "203.0.113.4/32", "for": ["API"]}]}},
        {"access": {"tls": {"mode": "Own"}}},
    ],
)
def test_a_misspelled_manifest_is_noticed(spec: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": spec}, SCHEMA)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: pathlib.Path) -> None:
    assert [path for path in _named_paths(page) if not (ROOT / path).exists()] == []


def test_paths_are_found() -> None:
    assert len(list(_named_paths(ROOT / "docs" / "security.md"))) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: pathlib.Path) -> None:
    broken = []
    for target in _LINK.findall(_CODE.sub("", _FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_field_that_kubectl_is_asked_for_is_in_the_schema(page: pathlib.Path) -> None:
    unknown = []
    for command in _FIELD.findall(page.read_text()):
        for place in _PLACE.findall(command):
            node: Any = SCHEMA
            for part in place.split("."):
                node = node.get("properties", {}).get(part, {})
            if not node:
                unknown.append(place)
    assert unknown == []
