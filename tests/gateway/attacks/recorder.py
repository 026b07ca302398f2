"""An upstream that keeps every byte that reaches it, and answers so that clients come to an end.

One thread serves all connections and reads everything that is there before it answers anything: what
was written to the upstream before a request is on record when that request is answered.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading

from lab.envoy import process as envoy_process

#: A request with this in its target is the suite's own probe, not a part of a case.
FENCE = b"fence="


class Recorder(envoy_process.Upstream):
    """Stands in for the engine or the chat."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self._requests: list[bytes] = []
        self._buffers: dict[socket.socket, bytes] = {}
        self._tunnels: set[socket.socket] = set()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        for connection in (*self._buffers, self._listening):
            connection.close()
        self._selector.close()

    def mark(self) -> int:
        """The place in the record where the next request will stand."""
        return len(self._requests)

    def since(self, mark: int) -> list[bytes]:
        """Requests since the mark, and every byte that is no complete request."""
        whole = [request for request in self._requests[mark:] if FENCE not in request.split(b"\r\n", 1)[0]]
        return whole + [rest for rest in list(self._buffers.values()) if rest]

    def _serve(self) -> None:
        while not self._closing:
            # Read until nobody has anything more to say; only then answer.
            timeout = 0.05
            while self._selector.select(timeout):
                timeout = 0.0
                for key, _ in self._selector.select(0):
                    self._read(key.fileobj)
            for connection in list(self._buffers):
                self._answer(connection)

    def _read(self, connection: object) -> None:
        assert isinstance(connection, socket.socket)
        if connection is self._listening:
            accepted, _ = connection.accept()
            self._buffers[accepted] = b""
            self._selector.register(accepted, selectors.EVENT_READ)
            return
        chunk = b""
        with contextlib.suppress(OSError):
            chunk = connection.recv(1 << 20)
        if not chunk:
            self._forget(connection)
        elif connection in self._tunnels:
            self._requests.append(chunk)
        else:
            self._buffers[connection] += chunk

    def _forget(self, connection: socket.socket) -> None:
        rest = self._buffers.pop(connection)
        if rest:
            self._requests.append(rest)
        self._tunnels.discard(connection)
        self._selector.unregister(connection)
        connection.close()

    def _answer(self, connection: socket.socket) -> None:
        while size := message_length(self._buffers[connection]):
            request = self._buffers[connection][:size]
            self._requests.append(request)
            self._buffers[connection] = self._buffers[connection][size:]
            target = request.split(b" ", 2)[1]
            wanted = re.search(rb"bytes=(\d+)", target)
            body = b"x" * (int(wanted[1]) if wanted else 2)
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
            if re.search(rb"(?i)\r\nupgrade: websocket\r\n", request):
                answer, body = b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b""
                self._tunnels.add(connection)
            elif request.startswith(b"HEAD "):
                body = b""
            if len(body) > 65536:
                # A client that reads slowly slows down the gateway, never the recorder.
                threading.Thread(target=_write, args=(connection, answer + body), daemon=True).start()
            else:
                _write(connection, answer + body)


def _write(connection: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(answer)


def message_length(raw: bytes) -> int:
    """Length of the first complete HTTP/1.1 message, 0 if there is none."""
    head, found, _ = raw.partition(b"\r\n\r\n")
    if not found:
        return 0
    start = len(head) + 4
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        while line := re.match(rb"([0-9a-fA-F]+)[^\r\n]*\r\n", raw[start:]):
            size = int(line[1], 16)
            start += line.end() + size + 2
            if not size:
                return start if len(raw) >= start else 0
        return 0
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    start += int(length[1]) if length else 0
    return start if len(raw) >= start else 0
