"""Words of programs on their way into conditions: secrets blotted out, short, on one line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Characters of a program's own words in a message; with names and remedy it stays below 600.
MESSAGE_LIMIT = 240
#: Shorter values are no secrets, and blotting them out would garble the text.
MIN_SECRET = 8
BLOT = "[secret]"

#: What looks like a secret although nobody named it: tokens of the hub, of an Authorization header, in
#: a URL, and values of arguments and fields whose name says so.
_SUSPECT = re.compile(
    r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
    r"|(?<=-----BEGIN )[A-Z ]*PRIVATE KEY-----[^-]*"
    r"|(?P<name>(?i:(?:api[_-]?key|token|password|secret))['\"]?\s*[:=]\s*\[?['\"]?)(?P<value>[\w.~+/-]{16,})"
)


def redact(value: Any, secrets: Iterable[str] = ()) -> Any:
    """`value` with every secret in its texts blotted out (I6).

    Call it before anything is shortened: half a key is a secret too.
    """
    known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET}, key=len, reverse=True)
    return _redact(value, known)


def _redact(value: Any, secrets: list[str]) -> Any:
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, BLOT)
            return _SUSPECT.sub(lambda found: (found["name"] or "") + BLOT, value)
        case dict():
            return {key: _redact(item, secrets) for key, item in value.items()}
        case list():
            return [_redact(item, secrets) for item in value]
        case _:
            return value


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(str(text).split())


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """`text` on one line, its end kept: causes stand at the end of what programs print."""
    line = one_line(text)
    return line if len(line) <= limit else "… " + line[-limit:]


def begin(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """`text` on one line, its beginning kept."""
    line = one_line(text)
    return line if len(line) <= limit else line[:limit] + " …"


def around(text: str, start: int, end: int, limit: int = MESSAGE_LIMIT) -> str:
    """The part of one line that holds `start` to `end`, with as much of what stands before it as fits."""
    if len(text) <= limit:
        return text
    last = min(len(text), max(end, limit))
    first = max(0, min(start, last - limit))
    last = min(last, first + limit)
    if first and (space := text.find(" ", first, start)) > 0:
        first = space + 1
    return ("… " if first else "") + text[first:last] + (" …" if last < len(text) else "")
