#!/usr/bin/env python3
"""Make the CRD, the API reference and the list of reasons: `scripts/generate.py [--check]`."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "operator"))

from ai_sandbox_operator.api import generate  # noqa: E402
from ai_sandbox_operator.observed import troubleshooting  # noqa: E402


def further(root: pathlib.Path) -> dict[str, str]:
    """The page that is generated from its middle on."""
    current = (root / troubleshooting.PATH).read_text(encoding="utf-8")
    return {troubleshooting.PATH: troubleshooting.page(current)}


if __name__ == "__main__":
    sys.exit(generate.main([str(ROOT), *sys.argv[1:]], further))
