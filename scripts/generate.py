#!/usr/bin/env python3
"""Make the CRD and the API reference from the models: `scripts/generate.py [--check]`."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "operator"))

from ai_sandbox_operator.api import generate  # noqa: E402

if __name__ == "__main__":
    sys.exit(generate.main([str(ROOT), *sys.argv[1:]]))
