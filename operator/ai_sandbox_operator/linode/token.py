"""Where the API token comes from: a file that the kubelet replaces when the Secret changes.

The file is read at each call. It is a few bytes on a memory file system, so no cache can go stale and
a rotated token is used at once, without a restart. The token is refused, not repaired, if it holds
anything that cannot be part of a header.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

from ai_sandbox_operator.linode import errors

_TOKEN = re.compile(r"[!-~]{8,512}")


def from_file(path: pathlib.Path) -> Callable[[], str | None]:
    """A provider for LinodeClient; an absent or empty file means that there is no token."""

    def read() -> str | None:
        try:
            return path.read_text("utf-8", errors="replace").strip() or None
        except OSError:
            return None

    return read


def usable(token: str | None) -> str:
    """The token, fit for a header.

    Raises:
        NoToken: there is none, or it is not one. The message never holds its text.
    """
    if not token:
        raise errors.NoToken
    stripped = token.strip()
    if _TOKEN.fullmatch(stripped) is None:
        raise errors.NoToken("what was given is not one (8 to 512 visible ASCII characters)")
    return stripped
