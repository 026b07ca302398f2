"""`python -m lab.datapath URL NAMESPACE DEVICE SECONDS`: the data path of the account at URL.

The namespace is a file such as /proc/1/ns/net. The account is read from where the process was started, as a
data path has a control network of its own; everything else happens in the namespace. Ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from lab.datapath import account, balancer

_CLONE_NEWNET = 0x40000000


def _enter(namespace: str) -> None:
    """Move this thread to a network namespace; threads and processes that it starts from now on follow."""
    descriptor = os.open(namespace, os.O_RDONLY)
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)


def _watch(url: str, seconds: float, changed: Callable[[Any], object]) -> None:
    """Read the account every so often for ever. When it does not answer, what is known goes on."""
    address = urllib.parse.urlsplit(url)
    last = b""
    while True:
        connection = http.client.HTTPConnection(address.netloc, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            while True:
                connection.request("GET", "/_lab/state")
                body = connection.getresponse().read()
                if body != last:
                    changed(json.loads(body))
                    last = body
                time.sleep(seconds)
        time.sleep(seconds)


async def _serve(device: str, seen: asyncio.Queue[Any]) -> None:
    path = balancer.DataPath(device)
    known: object = None
    while True:
        document = await seen.get()
        wanted = account.read(document)
        if wanted != known:
            await path.apply(wanted)
            known = wanted
        print(document["revision"], flush=True)


def main() -> None:
    """Serve until standard input ends."""
    url, namespace, device, seconds = sys.argv[1:]
    loop = asyncio.new_event_loop()
    seen: asyncio.Queue[Any] = asyncio.Queue()

    def changed(document: Any) -> None:
        loop.call_soon_threadsafe(seen.put_nowait, document)

    threading.Thread(target=_watch, args=(url, float(seconds), changed), daemon=True).start()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    _enter(namespace)
    loop.run_until_complete(_serve(device, seen))


if __name__ == "__main__":
    main()
