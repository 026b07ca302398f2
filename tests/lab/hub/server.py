"""The hub over HTTP: metadata and files on one port, the storage that it redirects to on another.

Another port is another origin, so a client that sends its token to the storage is found out. Errors as
the hub's: status with X-Error-Code and X-Error-Message.
"""

from __future__ import annotations

import http.server
import json
import re
import socketserver
import threading
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from lab.hub.content import Blob
from lab.hub.faults import At, Fault
from lab.hub.state import Hub, Repository, Request, etag, is_large

_API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+|[^/]+?)(/revision/(?P<revision>.+))?")
_FILE = re.compile(r"/(?P<id>[^/]+(/[^/]+)?)/(resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
_STORED = re.compile(r"/repos/(?P<id>[^/]+)/(?P<revision>[^/]+)/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
#: Parts of a second in which a slow connection sends.
_BEAT = 0.05


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub
    storage: bool
    storage_port: int
    stopping: threading.Event

    def log_message(self, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.storage or urlsplit(self.path).path != "/_lab/faults":
            return self._refuse(404)
        faults = [Fault(**{**one, "at": tuple(one.get("at", Fault().at))}) for one in json.loads(body)]
        with self.hub.lock:
            self.hub.faults[:] = faults
        return self._json(self.hub.counters())

    def _serve(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/_lab/counters" and not self.storage:
            return self._json(self.hub.counters())
        at, found = self._route(url.path)
        if found is None:
            return self._refuse(404)
        ident, path = unquote(found["id"]), unquote(found.groupdict().get("path") or "")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(
            at, self.command, ident, path, self.path, token, range=self.headers.get("Range", "")
        )
        fault = self.hub.arrived(request)
        if fault is not None and fault.hang_after == 0:
            self.close_connection = True
            self.stopping.wait()
            return None
        if fault is not None and fault.status:
            after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return self._refuse(fault.status, code=fault.error_code, more=after)
        revision = unquote(found["revision"] or "main")
        if at == "cdn":
            return self._stored(ident, revision, path, fault)
        return self._hub(request, revision, fault, blobs="blobs" in parse_qs(url.query))

    def _route(self, path: str) -> tuple[At, re.Match[str] | None]:
        if self.storage:
            return "cdn", _STORED.fullmatch(path)
        if path.startswith("/api/"):
            return "api", _API.fullmatch(path)
        return "resolve", _FILE.fullmatch(path)

    def _hub(self, request: Request, revision: str, fault: Fault | None, *, blobs: bool) -> None:
        token = request.token
        if token and token not in self.hub.tokens:
            return self._refuse(401, message="Invalid credentials in Authorization header")
        repository = self.hub.find(request.repository)
        if repository is None or (repository.private and token not in repository.granted):
            # Without a token nobody learns whether a repository exists.
            if not token:
                return self._refuse(401, message="Invalid username or password.")
            return self._refuse(404, code="RepoNotFound", message="Repository not found")
        commit = repository.resolve(revision)
        if commit is None:
            return self._refuse(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        if request.at == "api":
            described = self.hub.describe(request.repository, repository, commit, blobs=blobs)
            return self._json(described, fault)
        if repository.gated and token not in repository.granted:
            words = f"Access to model {request.repository} is restricted"
            return self._refuse(403 if token else 401, code="GatedRepo", message=words)
        return self._file(request, repository, commit, fault)

    def _file(self, request: Request, repository: Repository, commit: str, fault: Fault | None) -> None:
        path = request.path
        blob = repository.at(commit).get(path)
        if blob is None:
            return self._refuse(
                404, code="EntryNotFound", message="Entry not found", more={"X-Repo-Commit": commit}
            )
        known = {"X-Repo-Commit": commit, "ETag": f'"{etag(path, blob)}"', "Accept-Ranges": "bytes"}
        if not is_large(path):
            return self._content(request.repository, path, blob, known, fault)
        ident = quote(request.repository, safe="")
        host = self.headers.get("Host", "127.0.0.1").rpartition(":")[0] or "127.0.0.1"
        location = f"http://{host}:{self.storage_port}/repos/{ident}/{commit}/{quote(path)}?Expires=3600"
        known |= {
            "Location": location,
            "X-Linked-Size": str(blob.size),
            "X-Linked-ETag": f'"{blob.sha256}"',
        }
        if self.hub.xet:
            # A client that has not switched the xet protocol off would now leave HTTP.
            known["X-Xet-Hash"] = blob.sha256
            route = (
                f"http://{self.headers.get('Host')}/api/models/{request.repository}/xet-read-token/{commit}"
            )
            known["Link"] = f'<{route}>; rel="xet-auth"'
        return self._head(302, {**known, "Content-Length": "0"})

    def _stored(self, ident: str, commit: str, path: str, fault: Fault | None) -> None:
        repository = self.hub.find(ident)
        blob = repository.at(commit).get(path) if repository else None
        if blob is None:
            return self._refuse(403)
        known = {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"}
        return self._content(ident, path, blob, known, fault)

    def _content(
        self, ident: str, path: str, blob: Blob, headers: dict[str, str], fault: Fault | None
    ) -> None:
        start, stop, status = 0, blob.size, 200
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if self.hub.ranges else None
        if asked is not None:
            start = int(asked[1])
            stop = min(blob.size, int(asked[2]) + 1) if asked[2] else blob.size
            if start >= blob.size:
                return self._refuse(416, more={"Content-Range": f"bytes */{blob.size}"})
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}"}
        if fault is not None and fault.truncate is not None:
            stop = min(stop, start + fault.truncate)
        self._head(status, {**headers, "Content-Length": str(stop - start)})
        if self.command == "GET":
            self._body(f"{ident}/{path}", blob, start, stop, fault or Fault())
        return None

    def _body(self, name: str, blob: Blob, start: int, stop: int, fault: Fault) -> None:
        step = max(1, round(fault.bytes_per_second * _BEAT)) if fault.bytes_per_second else stop - start
        ends = [end for end in (fault.cut_after, fault.hang_after) if end is not None]
        last = min([stop, *(start + end for end in ends)])
        for block in blob.read(start, last):
            for at in range(0, len(block), max(1, step)):
                piece = block[at : at + step]
                self.wfile.write(bytes(255 - byte for byte in piece) if fault.corrupt else piece)
                with self.hub.lock:
                    self.hub.sent[name] += len(piece)
                if fault.bytes_per_second and self.stopping.wait(_BEAT):
                    return
        if last == stop:
            return
        self.close_connection = True
        self.wfile.flush()
        if fault.hang_after is not None:
            self.stopping.wait()

    def _json(self, value: Any, fault: Fault | None = None) -> None:
        content = json.dumps(value).encode()
        if fault is not None and fault.truncate is not None:
            content = content[: fault.truncate]
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(
        self, status: int, *, code: str = "", message: str = "", more: dict[str, str] | None = None
    ) -> None:
        content = json.dumps({"error": message or http.HTTPStatus(status).phrase}).encode()
        said = {"X-Error-Code": code, "X-Error-Message": message}
        headers = {name: value for name, value in said.items() if value} | (more or {})
        self._head(status, {**headers, "Content-Length": str(len(content))})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""

    def server_bind(self) -> None:
        # Not HTTPServer's: that one looks its own name up, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class HubServer:
    """`with HubServer(Hub(...)) as url:`"""

    def __init__(self, hub: Hub, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.hub = hub
        self._stopping = threading.Event()
        common = {"hub": hub, "stopping": self._stopping}
        self._storage = _Server((host, 0), type("Storage", (_Handler,), {**common, "storage": True}))
        mine = {**common, "storage": False, "storage_port": self._storage.server_port}
        self._server = _Server((host, port), type("Front", (_Handler,), mine))
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            for server in (self._server, self._storage)
        ]

    @property
    def url(self) -> str:
        return f"http://{self._server.server_name}:{self._server.server_port}"

    def __enter__(self) -> str:
        for thread in self._threads:
            thread.start()
        return self.url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for server in (self._server, self._storage):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(timeout=5)
