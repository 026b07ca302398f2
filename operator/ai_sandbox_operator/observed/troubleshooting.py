"""The reference of all reasons as Markdown, from the enum and from the table of signatures.

The page has a hand-written beginning; everything after `MARKER` is generated.
"""

from __future__ import annotations

import inspect
import re

from ai_sandbox_operator.api.conditions import Reason

from .engine_signatures import SIGNATURES

PATH = "docs/troubleshooting.md"
MARKER = "<!-- Generated below by `make generate`; do not edit. -->"

_SECTION = re.compile(r"^    # (.+)$")
_MEMBER = re.compile(r"^    (\w+) = Doc\(")


def page(current: str) -> str:
    """The page with a new reference below its hand-written beginning.

    Raises:
        ValueError: there is no marker that ends the beginning.
    """
    beginning, marker, _ = current.partition(MARKER)
    if not marker:
        raise ValueError(f"{PATH} lacks the line {MARKER!r}")
    return f"{beginning}{MARKER}\n\n{reference()}"


def reference() -> str:
    """A table of reasons for each group of conditions, in the order of the enum."""
    parts = []
    for title, reasons in sections().items():
        parts.append(f"### {title}")
        parts.append("\n".join(_table(reasons)))
    return "\n\n".join(parts) + "\n"


def sections() -> dict[str, list[Reason]]:
    """Reasons by the conditions that carry them, as the comments in the enum group them."""
    found: dict[str, list[Reason]] = {}
    title = ""
    for line in inspect.getsource(Reason).splitlines():
        if (section := _SECTION.match(line)) is not None:
            title = section[1]
        elif (member := _MEMBER.match(line)) is not None:
            found.setdefault(title, []).append(Reason[member[1]])
    return found


def signs(reason: Reason) -> list[str]:
    """What stands in the engine's log when it ends for this reason."""
    rows = [row for row in SIGNATURES if row.reason is reason]
    return [" … ".join([words, *row.near]) for row in rows for words in row.texts]


def _table(reasons: list[Reason]) -> list[str]:
    logged = any(signs(reason) for reason in reasons)
    rows = ["| Reason | Meaning | What to do |" + (" In the engine's log |" if logged else "")]
    rows.append("|---|---|---|" + ("---|" if logged else ""))
    for reason in reasons:
        cells = [f"`{reason.name}`", _cell(reason.doc.meaning), _cell(reason.doc.remedy)]
        if logged:
            cells.append("<br>".join(f"`{_cell(words)}`" for words in signs(reason)))
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _cell(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")
