"""A small hub over HTTP: the two calls that the fetch makes, with the headers that huggingface_hub reads.

Shapes from huggingface_hub 2.4: `hf_api.model_info` (GET /api/models/{id}/revision/{rev}?blobs=true) and
`file_download.get_hf_file_metadata` (HEAD /{id}/resolve/{commit}/{file}: X-Repo-Commit, ETag and
Content-Length); errors as in `utils/_http.py` (X-Error-Code, X-Error-Message).
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

MODEL = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclasses.dataclass
class Hub:
    """What the hub holds and how it misbehaves."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    granted_tokens: tuple[str, ...] = ()
    known_tokens: tuple[str, ...] = ()
    status: int = 0
    """Answer every call with this status."""
    truncate: dict[str, int] = dataclasses.field(default_factory=dict)
    """Close the connection after so many bytes of a file."""
    corrupt: dict[str, int] = dataclasses.field(default_factory=dict)
    """Send other bytes of the same length, so many times."""
    hang: set[str] = dataclasses.field(default_factory=set)
    requests: list[str] = dataclasses.field(default_factory=list)
    tokens: set[str] = dataclasses.field(default_factory=set)

    def downloads(self) -> list[str]:
        """Paths of files that were sent, in order."""
        return [one.split("/")[-1] for one in self.requests if one.startswith("GET") and "/resolve/" in one]


def is_lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def sibling(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(content)}
    entry["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    if is_lfs(path):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return entry


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    stopping: threading.Event

    def log_message(self, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.tokens.add(token)
        if self.hub.status:
            self._refuse(self.hub.status)
        elif token and token not in self.hub.known_tokens:
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._file(path, token, body=body)
        else:
            self._refuse(404)

    def _listing(self, rest: str) -> None:
        model, _, revision = rest.partition("/revision/")
        if model != MODEL:
            self._refuse(401, code="RepoNotFound")
        elif revision not in ("main", self.hub.commit):
            self._refuse(404, code="RevisionNotFound")
        else:
            siblings = [sibling(path, content) for path, content in self.hub.files.items()]
            self._answer(
                json.dumps({"id": MODEL, "sha": self.hub.commit, "siblings": siblings}).encode(),
                {},
                body=True,
            )

    def _file(self, path: str, token: str, *, body: bool) -> None:
        name = path.split(f"/resolve/{self.hub.commit}/", 1)[-1]
        if self.hub.gated and token not in self.hub.granted_tokens:
            self._refuse(403 if token else 401, code="GatedRepo")
            return
        content = self.hub.files.get(name)
        if content is None:
            self._refuse(404, code="EntryNotFound")
            return
        digest = hashlib.sha256(content).hexdigest() if is_lfs(name) else hashlib.sha1(content).hexdigest()
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{digest}"'}
        if body and self.hub.corrupt.get(name, 0) > 0:
            self.hub.corrupt[name] -= 1
            content = bytes(len(content))
        self._answer(content, headers, body=body, name=name)

    def _answer(self, content: bytes, headers: dict[str, str], *, body: bool, name: str = "") -> None:
        self.send_response(200)
        for header, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if not body:
            return
        if name in self.hub.hang:
            self.wfile.write(content[:1])
            self.wfile.flush()
            self.stopping.wait(30)
        elif name in self.hub.truncate:
            self.wfile.write(content[: self.hub.truncate[name]])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _refuse(self, status: int, *, code: str = "", message: str = "") -> None:
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}
        for header, value in headers.items():
            if value:
                self.send_header(header, value)
        self.end_headers()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class HubServer:
    """`with HubServer(Hub(files=...)) as url:`"""

    def __init__(self, hub: Hub) -> None:
        self._stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": hub, "stopping": self._stopping})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        time.sleep(0.02)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
