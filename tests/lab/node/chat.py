"""Stands in for Open WebUI in a pod: its paths of health, its volume, its question to the engine.

`GET /lab` answers what it holds: how often it was started on this volume, and the models that the engine offers
to the key in OPENAI_API_KEYS. `PUT /lab` keeps a text there.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import signal
import sqlite3
import sys
import urllib.request
from typing import Any

_REVISION = "3781e22d8b01"


class Chats:
    """The database, where Open WebUI keeps its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "webui.db"
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS user (email TEXT PRIMARY KEY)")
            database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT PRIMARY KEY)")
            database.execute("CREATE TABLE IF NOT EXISTS chat (text TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS starts (moment TEXT DEFAULT CURRENT_TIMESTAMP)")
            database.execute("INSERT OR IGNORE INTO user VALUES (?)", [os.environ["WEBUI_ADMIN_EMAIL"]])
            database.execute("INSERT OR IGNORE INTO alembic_version VALUES (?)", [_REVISION])
            database.execute("INSERT INTO starts DEFAULT VALUES")

    def add(self, text: str) -> None:
        with self._open() as database:
            database.execute("INSERT INTO chat VALUES (?)", [text])

    def described(self) -> dict[str, Any]:
        with self._open() as database:
            return {
                "starts": database.execute("SELECT count(*) FROM starts").fetchone()[0],
                "chats": [row[0] for row in database.execute("SELECT text FROM chat")],
            }

    @contextlib.contextmanager
    def _open(self) -> Any:
        with contextlib.closing(sqlite3.connect(self._path)) as database, database:
            yield database


def models() -> Any:
    """What the engine offers; the error's words if it does not answer."""
    request = urllib.request.Request(
        f"{os.environ['OPENAI_API_BASE_URLS']}/models",
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEYS']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return [one["id"] for one in json.load(answer)["data"]]
    except OSError as error:
        return str(error)


class Handler(http.server.BaseHTTPRequestHandler):
    """Every path but those of `lab` answers as the page would."""

    protocol_version = "HTTP/1.1"
    chats: Chats

    def do_GET(self) -> None:
        if self.path == "/lab":
            self._answer({**self.chats.described(), "models": models()})
        elif self.path in ("/health", "/ready"):
            self._answer({"status": True})
        else:
            self._answer({"page": self.path, "for": self.headers.get("X-Forwarded-For", "")})

    def do_PUT(self) -> None:
        self.chats.add(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self._answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({"page": self.path})

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.chats = Chats(pathlib.Path(os.environ["DATA_DIR"]))
    address = ("0.0.0.0", int(os.environ["PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
