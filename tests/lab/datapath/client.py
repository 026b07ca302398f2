"""A client in a network namespace of its own: one request, several at once, or one again and again.

Run as a program with nothing but the standard library. It reads one JSON document from standard input:
`{"requests": [...]}` answers one line per request, in order; `{"repeat": request, "rate": per second}` answers
a line per request until standard input ends. What a request may hold is `lab.datapath.asking.Request`.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import select
import socket
import ssl
import sys
import time
from typing import Any

Json = dict[str, Any]
#: A body beyond this is cut off.
_MAX_BODY = 65536


def _connect(request: Json, result: Json) -> socket.socket:
    result["stage"] = "connect"
    plain = socket.create_connection((request["host"], request["port"]), timeout=request["timeout"])
    if request["prefix"]:
        plain.sendall(bytes.fromhex(request["prefix"]))
    if not request["tls"]:
        return plain
    result["stage"] = "tls"
    context = ssl.create_default_context(cadata=request["authority"] or None)
    if not request["authority"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=request["name"] or request["host"])


def _outcome(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "untrusted certificate"
    if isinstance(error, (ssl.SSLEOFError, http.client.RemoteDisconnected, http.client.IncompleteRead)):
        return "closed"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, (ssl.SSLError, http.client.BadStatusLine)):
        return "not that protocol"
    return f"{type(error).__name__}: {error}"


def _read(response: http.client.HTTPResponse, started: float, result: Json) -> None:
    # Not by lines: `readline` takes a connection that ends too early for the end of the body.
    body = b""
    while len(body) < _MAX_BODY and (piece := response.read1(_MAX_BODY)):
        body += piece
        result["body"] = body.decode(errors="replace")
        if result["first_seconds"] is None and any(map(_holds_text, body.split(b"\n")[:-1])):
            result["first_seconds"] = time.monotonic() - started
    response.read()  # only a response that was read to its end gives the connection back
    if response.length:
        raise http.client.IncompleteRead(body)


def _holds_text(line: bytes) -> bool:
    """Whether a line of a streamed chat completion brings a piece of the answer."""
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line.removeprefix(b"data: ")).get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content"))


def _ask(request: Json, kept: list[http.client.HTTPConnection]) -> Json:
    """One request. `kept` holds the connection to go on with, if there is one."""
    result: Json = {"at": time.time(), "outcome": "", "stage": "", "status": None, "headers": {}}
    result |= {"body": "", "first_seconds": None, "reused": bool(kept)}
    started = time.monotonic()
    connection = kept.pop() if kept else None
    try:
        if connection is None:
            connection = http.client.HTTPConnection(
                request["host"], request["port"], timeout=request["timeout"]
            )
            connection.sock = _connect(request, result)
        result["connected_seconds"] = time.monotonic() - started
        result["stage"] = "request"
        if request["raw"]:
            connection.sock.sendall(bytes.fromhex(request["raw"]))
            result["body"] = connection.sock.recv(_MAX_BODY).decode(errors="replace")
            result["outcome"] = "answer" if result["body"] else "closed"
        else:
            body = request["body"].encode() or None
            connection.request(request["method"], request["path"], body, request["headers"])
            response = connection.getresponse()
            result["headers"] = {name.lower(): value for name, value in response.getheaders()}
            result["status"] = response.status
            _read(response, started, result)
            result["outcome"] = "answer"
            if request["keep"] and not response.will_close:
                kept.append(connection)
    except Exception as error:
        result["outcome"] = _outcome(error)
    if connection is not None and connection not in kept:
        connection.close()
    return {**result, "seconds": time.monotonic() - started}


def _repeat(request: Json, rate: float) -> None:
    kept: list[http.client.HTTPConnection] = []
    turn = time.monotonic()
    while True:
        print(json.dumps(_ask(request, kept)), flush=True)
        turn = max(turn + 1 / rate, time.monotonic())
        if select.select([sys.stdin], [], [], max(0.0, turn - time.monotonic()))[0]:
            return


def main() -> None:
    """Do what standard input says."""
    document = json.loads(sys.stdin.readline())
    if "repeat" in document:
        _repeat(document["repeat"], document["rate"])
        return
    with concurrent.futures.ThreadPoolExecutor(max_workers=32) as pool:
        for result in pool.map(lambda one: _ask(one, []), document["requests"]):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
