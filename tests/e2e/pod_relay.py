"""An HTTP proxy to the pods of a cluster that this machine reaches only through its API server.

`GET http://<pod address>:<port>/<path>` becomes a request to the API server's proxy of that pod.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import urllib.parse
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

#: Runs kubectl; raises subprocess.CalledProcessError.
Kubectl = Callable[..., str]


class PodRelay:
    """The proxy, in threads of its own. `url` is known at once."""

    def __init__(self, kubectl: Kubectl) -> None:
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = relay._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silence."""

        self._kubectl = kubectl
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, target: str) -> tuple[int, bytes]:
        url = urllib.parse.urlsplit(target)
        try:
            pods = json.loads(self._kubectl("get", "pods", "--all-namespaces", "-o", "json"))["items"]
            meta = next(p["metadata"] for p in pods if p["status"].get("podIP") == url.hostname)
            pod = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{url.port}/proxy"
            return 200, self._kubectl("get", "--raw", f"{pod}{url.path}?{url.query}").encode()
        except (StopIteration, subprocess.CalledProcessError) as error:
            return 502, str(error).encode()
