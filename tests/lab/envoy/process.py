"""A real Envoy with a rendered configuration, and the clients to try it.

The files are laid out and replaced as the kubelet does it: a directory per version, `..data` pointing
to one of them, and the files pointing through `..data`. Only ports, directories and the addresses of
the upstreams are rewritten.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import ipaddress
import itertools
import json
import os
import pathlib
import random
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import envoy, envoy_routes, facts
from ai_sandbox_operator.observed import served
from lab.envoy.layout import binary as binary
from lab.envoy.layout import publish as publish

LISTENERS = ("external_api", "external_chat", "internal_api", "internal_chat", "status")
DEADLINE_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer, with header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """Stands in for engine and chat: answers with the request that it saw, and accepts WebSockets."""

    def __init__(self) -> None:
        handler = type("Handler", (_Handler,), {})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._accept_socket()
            return
        body = json.dumps(
            {"path": self.path, "headers": {key.lower(): value for key, value in self.headers.items()}}
        ).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def _accept_socket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        )
        self.end_headers()
        self.wfile.write(self.rfile.read(4).upper())
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Silence."""


class Gateway:
    """One running Envoy."""

    def __init__(self, directory: pathlib.Path, upstream: Upstream) -> None:
        self._upstream = upstream
        self.config = directory / "config"
        self.tls = directory / "tls"
        self._log = directory / "log"
        self.admin_port = free_port()
        self.ports = {name: free_port() for name in LISTENERS}
        self._versions = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.config.mkdir()
        self.tls.mkdir()

    def write(self, sandbox: v1alpha1.AISandbox, known: facts.Facts) -> None:
        """Replace the configuration as the kubelet replaces a mounted Secret."""
        files = envoy.configuration(sandbox, known)[1]
        publish(self.config, {name: self._rewrite(text) for name, text in files.items()}, self._versions)
        self._versions += 1

    def _rewrite(self, text: str) -> str:
        document = json.loads(text.replace("/etc/envoy", str(self.config)).replace("/tls/", f"{self.tls}/"))
        text = json.dumps(document).replace('"path": "/tls"', f'"path": "{self.tls}"')
        document = json.loads(text)
        for resource in document.get("resources", []):
            if resource.get("name") in self.ports and "address" in resource:
                resource["address"]["socket_address"]["port_value"] = self.ports[resource["name"]]
            for endpoint in resource.get("load_assignment", {}).get("endpoints", []):
                for item in endpoint["lb_endpoints"]:
                    item["endpoint"]["address"]["socket_address"] = {
                        "address": "127.0.0.1",
                        "port_value": self._upstream.port,
                    }
        return json.dumps(document).replace('"port_value": 9901', f'"port_value": {self.admin_port}')

    def validate(self) -> subprocess.CompletedProcess[str]:
        """`envoy --mode validate`."""
        return subprocess.run(
            [str(binary()), "--mode", "validate", "-c", str(self.config / "envoy.json")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def start(self) -> None:
        """Start and wait until ready."""
        command = [
            str(binary()),
            "-c",
            str(self.config / "envoy.json"),
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--concurrency", "1", "--file-flush-interval-msec", "100"], stdout=log, stderr=log
            )
        wait_for(lambda: self.status("/ready").status == 200)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def access_log(self) -> list[dict[str, Any]]:
        """Lines of the access log so far."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def admin(self, path: str) -> str:
        """An answer of the admin interface."""
        return request(self.admin_port, path).body.decode()

    def status(self, path: str) -> Answer:
        """An answer of the status listener."""
        return request(self.ports["status"], path)

    def serving(self, revision: str, name: str = "internal_api") -> bool:
        """Whether Envoy reports that it serves one route configuration in `revision`."""
        return served.revisions(self._statistics()).get(name) == revision

    def update(self, sandbox: v1alpha1.AISandbox, known: facts.Facts) -> None:
        """Write, and wait until every listener serves it, those that are drained too."""
        self.write(sandbox, known)
        revision = envoy_routes.configurations(sandbox, known)[0]
        wanted = [entry.name for entry in envoy_routes.entries(sandbox)]
        wait_for(lambda: served.serves(self._statistics(), revision, wanted))

    def _statistics(self) -> str:
        return self.status(served.STATUS_PATH).body.decode()


#: Below the range from which the kernel gives ports to clients; each process starts elsewhere.
_PORTS = itertools.cycle(random.Random(os.getpid()).sample(range(12000, 30000), 4000))


def free_port() -> int:
    """A port that nobody listens on. Envoy shares ports, so a collision would go unnoticed."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("no free port")


def wait_for(condition: Any) -> None:
    """Poll until true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("condition not met in time")


def proxy_header(source: str) -> bytes:
    """A PROXY protocol version 2 header of a TCP connection from `source`."""
    address = ipaddress.ip_address(source)
    destination = ipaddress.ip_address("192.0.2.80" if address.version == 4 else "2001:db8::80")
    addresses = address.packed + destination.packed + struct.pack("!HH", 50000, 443)
    family = 0x11 if address.version == 4 else 0x21
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


@contextlib.contextmanager
def connect(
    port: int,
    *,
    prefix: bytes = b"",
    peer: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
) -> Iterator[socket.socket]:
    """A connection from `peer` to `address` that begins with `prefix`."""
    with socket.create_connection((address, port), timeout=10, source_address=(peer, 0)) as plain:
        plain.sendall(prefix)
        if tls is None:
            yield plain
        else:
            with tls.wrap_socket(plain, server_hostname="demo") as encrypted:
                yield encrypted


def request(
    port: int,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    source: str | None = None,
    prefix: bytes = b"",
    peer: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    method: str = "GET",
    address: str = "127.0.0.1",
) -> Answer:
    """One request, with the path exactly as given. `source` is the address in the PROXY header."""
    start = proxy_header(source) if source else prefix
    with connect(port, prefix=start, peer=peer, tls=tls, address=address) as connection:
        lines = [f"{method} {path} HTTP/1.1", "Host: demo", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        head, body = receive(connection)
    first, *rest = head.decode().split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if found.get("transfer-encoding") == "chunked":
        body = _unchunk(body)
    return Answer(int(first.split()[1]), found, body)


def receive(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one answer. Envoy closes late, after a refusal or while draining: not awaited."""
    raw = b""
    while chunk := connection.recv(65536):
        raw += chunk
        head, found, body = raw.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        whole = len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")
        if found and whole:
            return head, body
    if not raw:
        raise ConnectionResetError("closed without an answer")
    head, _, body = raw.partition(b"\r\n\r\n")
    return head, body


def _unchunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + body[:length], body[length + 2 :]
        if not length:
            break
    return whole
