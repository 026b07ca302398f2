"""The recorded-like logs and messages below tests/corpus, with what each comes to."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

CORPUS = pathlib.Path(__file__).parents[2] / "corpus"
ENGINE = CORPUS / "engine"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """One entry of engine/expected.yaml; the keys are explained there."""

    reason: str
    row: str
    exit_code: int
    permanent: bool
    container_reason: str = ""
    says: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    advice: str | None = None
    secrets: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


def engine_logs() -> Mapping[str, Expected]:
    """Expectation by name of the log."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load((ENGINE / "expected.yaml").read_text())
    found = {}
    for name, entry in entries.items():
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        found[name] = Expected(**values)
    return found


def engine_log(name: str) -> str:
    """Text of one log."""
    return (ENGINE / f"{name}.log").read_text()


def messages(name: str) -> list[dict[str, Any]]:
    """The entries of one file of messages."""
    entries: list[dict[str, Any]] = yaml.safe_load((CORPUS / f"{name}.yaml").read_text())
    return entries
