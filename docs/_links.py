"""Links to files outside of docs/, such as ../SECURITY.md, lead to GitHub on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite links that leave docs/ and name a file that exists; others are left for the strict build to refuse."""
    docs = Path(config["docs_dir"])
    root = docs.parent

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(
            posixpath.join(docs.name, posixpath.dirname(page.file.src_uri), match["path"])
        )
        if path.startswith((docs.name + "/", "..")) or not (root / path).exists():
            return match[0]
        kind = "tree" if (root / path).is_dir() else "blob"
        return f"]({config['repo_url']}/{kind}/main/{path}{match['anchor'] or ''})"

    return _LINK.sub(replace, markdown)
