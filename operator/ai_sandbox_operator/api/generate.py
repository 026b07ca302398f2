"""Writes the files that are made from the models, or checks that they are up to date."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import crd, names, reference, schema

CRD_PATH = f"crds/{names.GROUP}_{names.PLURAL}.yaml"
REFERENCE_PATH = "docs/reference/api.md"
_NOTE = "Generated from operator/ai_sandbox_operator/api by `make generate`; do not edit."


def contents() -> dict[str, str]:
    """Text of every generated file, by path below the root of the repository."""
    root = crd.root()
    defaults = _yaml(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "spec": schema.filled(root["properties"]["spec"]),
            "status": root["properties"]["status"]["default"],
        },
        sort=False,
    )
    return {
        CRD_PATH: f"# {_NOTE}\n{_yaml(crd.definition())}",
        REFERENCE_PATH: f"<!-- {_NOTE} -->\n\n{reference.markdown(root, defaults)}",
    }


def main(argv: Sequence[str], further: Callable[[pathlib.Path], Mapping[str, str]] = lambda _root: {}) -> int:
    """Write the generated files below a directory, or check them; returns the exit code.

    `further` adds files that layers above this one make: their texts by path below the root.
    """
    parser = argparse.ArgumentParser(prog="generate", description=__doc__)
    parser.add_argument("root", nargs="?", type=pathlib.Path, default=pathlib.Path(), help="repository root")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("--print", action="store_true", help="print the CRD and write nothing")
    arguments = parser.parse_args(argv)
    files = {**contents(), **further(arguments.root)}
    if arguments.print:
        sys.stdout.write(files[CRD_PATH])
        return 0
    stale = 0
    for name, text in files.items():
        path = arguments.root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if arguments.check:
            sys.stderr.write(f"{name} is out of date: run make generate\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
    return 1 if arguments.check and stale else 0


def _yaml(value: Any, *, sort: bool = True) -> str:
    import yaml  # Only the generator needs it.

    class Plain(yaml.SafeDumper):
        """Without anchors: they are for programs, and the file is for people too."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    return yaml.dump(value, Dumper=Plain, sort_keys=sort, width=110, allow_unicode=True)
