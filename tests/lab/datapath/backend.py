"""A small TCP backend: `python backend.py NAME HOST PORT [--proxy]`. Only the standard library.

Each line that it receives is answered with one line of JSON: its name, the peer's address, the bytes of the
PROXY header in hexadecimal if `--proxy` is given, and the line. It says its name once it listens.
"""

from __future__ import annotations

import json
import socketserver
import sys

_FIXED = 16


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer line by line."""
        header = b""
        if "--proxy" in sys.argv:
            header = self.rfile.read(_FIXED)
            header += self.rfile.read(int.from_bytes(header[14:], "big"))
        for line in self.rfile:
            answer = {
                "backend": sys.argv[1],
                "peer": self.client_address[0],
                "header": header.hex(),
                "line": line.decode().strip(),
            }
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Many connections at once."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Serve until killed."""
    with Server((sys.argv[2], int(sys.argv[3])), Handler) as server:
        print(sys.argv[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
