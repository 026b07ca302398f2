"""`python -m lab.hub --port N`: the hub as a process; prints its address as JSON and serves until SIGTERM.

`GET /_lab/counters` shows figures; `POST /_lab/faults` with a list of faults (fields of `Fault`) replaces them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence

from lab.hub.server import HubServer
from lab.hub.state import Generous, Hub


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    hub = Hub(generous=Generous(size=arguments.size, shards=arguments.shards), tokens=set(arguments.token))
    for ident, path, size in arguments.declare:
        hub.declared.setdefault(ident, {})[path] = size
    with HubServer(hub, host=arguments.host, port=arguments.port) as url:
        print(json.dumps({"url": url}), flush=True)
        while not stop.wait(1.0):  # with a limit, so that signals are handled at once
            pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.hub", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", type=int, default=2_000_000, help="bytes of the weights of any model")
    parser.add_argument("--shards", type=int, default=2, help="weight files of any model")
    parser.add_argument("--token", action="append", default=[], help="a token that the hub knows")
    parser.add_argument(
        "--declare",
        action="append",
        default=[],
        type=_declared,
        metavar="ID:PATH=BYTES",
        help="name this size in listings",
    )
    return parser


def _declared(text: str) -> tuple[str, str, int]:
    ident, _, rest = text.partition(":")
    path, _, size = rest.rpartition("=")
    if not path or not size.isdigit():
        raise argparse.ArgumentTypeError("must be ID:PATH=BYTES")
    return ident, path, int(size)


if __name__ == "__main__":
    sys.exit(main())
