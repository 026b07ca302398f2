"""Starts that failed, as whole logs: tests/corpus/engine. A script names one of them as its failure."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass

import yaml

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "corpus" / "engine"


@dataclass(frozen=True)
class Recorded:
    """One log and how its container ended."""

    lines: tuple[str, ...]
    exit_code: int
    reason: str


def names() -> list[str]:
    """All there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.log"))


@functools.lru_cache(maxsize=8)
def find(name: str) -> Recorded | None:
    """The log of that name; None: there is none."""
    path = _FOLDER / f"{name}.log"
    if not path.exists():
        return None
    about = yaml.safe_load((_FOLDER / "expected.yaml").read_text()).get(name) or {}
    code = int(about.get("exit_code", 1))
    reason = about.get("container_reason") or ("Error" if code else "Completed")
    return Recorded(tuple(path.read_text().splitlines()), code, reason)
