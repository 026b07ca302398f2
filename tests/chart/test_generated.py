"""The generated parts of the chart are up to date."""

from __future__ import annotations

import importlib.util
import types

import pytest

from chart import helm


@pytest.fixture(scope="module")
def generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("chart_generator", helm.ROOT / "scripts" / "chart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_generated_file_is_what_the_generator_makes(generator: types.ModuleType) -> None:
    stale = [name for name, text in generator.contents().items() if (helm.ROOT / name).read_text() != text]
    assert stale == []


def test_braces_in_the_crd_are_no_template(generator: types.ModuleType) -> None:
    text = "# note\nkind: X\nmetadata:\n  name: aisandboxes.sandbox.linode.com\nspec:\n  description: '{{ x }}'\n"
    assert "'{{ \"{{\" }} x }}'" in generator.crd(text)
