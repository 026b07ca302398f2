"""A reverse proxy before the API server that sees every write and can break any of them.

The operator under test talks to it instead of the API server. After each committed write the
observers are called before the answer goes back, so an invariant can be judged at every instant; a
fault kills the operator before or after the n-th write, loses an answer, or answers with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import pathlib
import ssl
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

Mode = Literal["kill_before", "kill_after", "drop_answer", "status", "delay"]
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: In every message of RBAC, and in no other 403: not that of a quota or of a namespace that ends.
REFUSED = "forbidden: User "
#: Writes that are no part of a sandbox: leader election, events about it, access reviews.
IGNORED_PLURALS = frozenset({"leases", "events", "selfsubjectaccessreviews"})


@dataclasses.dataclass(kw_only=True)
class Exchange:
    """One request and its answer.

    Attributes:
        effective: a write that changed the stored object; None for reads.
        refusal: what the API server said where the client lacks the right; empty otherwise.
    """

    index: int
    at: float
    method: str
    path: str
    query: str
    body: Any = None
    status: int | None = None
    effective: bool | None = None
    answer: Any = None
    refusal: str = ""

    @property
    def plural(self) -> str:
        parts = self.path.strip("/").split("/")
        rest = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts else parts[3:]
        return rest[0] if rest else ""

    @property
    def counted(self) -> bool:
        """A committed write that belongs to a sandbox."""
        return bool(self.effective) and self.plural not in IGNORED_PLURALS

    def __str__(self) -> str:
        return f"{self.index:4} {self.method:6} {self.path} -> {self.status}"


@dataclasses.dataclass(kw_only=True)
class Fault:
    """Breaks writes; reads and watches are never touched.

    Attributes:
        nth: which matching write is broken, counted from 1 when the fault is added; 0 is every one.
        status: for mode `status`.
        seconds: for mode `delay`.
    """

    mode: Mode
    nth: int = 1
    plural: str = ""
    method: str = ""
    status: int = 500
    seconds: float = 0.0
    seen: int = 0
    fired: int = 0

    def matches(self, exchange: Exchange) -> bool:
        """Count the write and tell whether it is the one to break."""
        if exchange.plural in IGNORED_PLURALS and exchange.plural != self.plural:
            return False
        if (self.plural and exchange.plural != self.plural) or (
            self.method and exchange.method != self.method
        ):
            return False
        self.seen += 1
        hit = self.nth in (0, self.seen)
        self.fired += hit
        return hit


Observer = Callable[[Exchange], Awaitable[None] | None]


class ApiProxy:
    """Listens on 127.0.0.1 in plain HTTP and forwards, credentials and all.

    Args:
        account: kubeconfig of the client's user.
    """

    def __init__(
        self, *, server: str, tls: ssl.SSLContext, account: str, kill: Callable[[], None] = lambda: None
    ) -> None:
        self._server = server
        self._account = account
        self._tls = tls
        self.kill = kill
        self.journal: list[Exchange] = []
        self.faults: list[Fault] = []
        self.errors: list[BaseException] = []
        self._observers: list[Observer] = []
        self._versions: dict[str, str] = {}
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        #: Cleared, watches stand still and the client's view grows old.
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._order = asyncio.Lock()
        self.client: Callable[[], object] = lambda: None
        self._killed: set[object] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self.url = ""

    def on_write(self, observer: Observer) -> None:
        """Call `observer` after each committed write that belongs to sandboxes, one at a time, before its answer."""
        self._observers.append(observer)

    def paused(self) -> asyncio.Lock:
        """`async with` it: no write is forwarded meanwhile, and none is half done."""
        return self._order

    def writes(self, since: int = 0) -> list[Exchange]:
        """Committed writes that belong to sandboxes."""
        return [e for e in self.journal[since:] if e.counted]

    def attempts(self, since: int = 0) -> list[Exchange]:
        """All requests that would write, effective or not."""
        return [e for e in self.journal[since:] if e.method in WRITES and e.plural not in IGNORED_PLURALS]

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()
        # Watches of a killed client are no connections of the server any more: nobody else ends them.
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        if self._session:
            await self._session.close()

    def kubeconfig(self, path: Any) -> str:
        """Write a kubeconfig for this proxy to `path`."""
        config = json.loads(pathlib.Path(self._account).read_text())
        config["clusters"][0]["cluster"] = {"server": self.url}
        path.write_text(json.dumps(config))
        return str(path)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        exchange = Exchange(
            index=len(self.journal),
            at=time.monotonic(),
            method=request.method,
            path=request.path,
            query=request.query_string,
        )
        self.journal.append(exchange)
        if request.method not in WRITES:
            return await self._forward(request, body, exchange)
        exchange.body = json.loads(body) if body else None
        client = self.client()  # at arrival: by its turn another process may have taken its place
        fault = next((f for f in self.faults if f.matches(exchange)), None)
        if fault is not None and fault.mode == "delay":
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.mode == "kill_before":
            self._end_client()
            return await self._cut(request)
        if fault is not None and fault.mode == "status":
            exchange.status = fault.status
            return web.json_response(_status(fault.status), status=fault.status)
        # One write at a time: the observers must judge the state that this write left, not a later one. A Lease
        # says nothing about a sandbox, and one that waited for its turn in a burst would be lost.
        alone = contextlib.nullcontext() if exchange.plural in IGNORED_PLURALS else self._order
        async with alone:
            if client in self._killed:
                return await self._cut(request)
            answer = await self._forward(request, body, exchange)
            if fault is not None and fault.mode == "kill_after":
                self._end_client()
            if exchange.counted:
                await self._observe(exchange)
        if fault is not None and fault.mode == "kill_after":
            return await self._cut(request)
        if fault is not None and fault.mode == "drop_answer":
            return await self._cut(request)
        return answer

    async def _forward(self, request: web.Request, body: bytes, exchange: Exchange) -> web.StreamResponse:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = self._server + str(request.rel_url)
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, timeout=timeout
        ) as answer:
            exchange.status = answer.status
            if answer.status in (401, 403):
                data = await answer.read()
                message = data.decode(errors="replace")
                exchange.refusal = message if answer.status == 401 or REFUSED in message else ""
            out = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
            if "watch=true" not in request.query_string and request.query.get("watch") not in ("1", "true"):
                data = await answer.read()
                if request.method in WRITES:
                    exchange.effective = self._changed(exchange, data, answer.headers.get("Content-Encoding"))
                return web.Response(status=answer.status, body=data, headers=out)
            stream = web.StreamResponse(status=answer.status, headers=out)
            await stream.prepare(request)
            await self._pump(request, answer, stream)
            return stream

    async def _pump(
        self, request: web.Request, answer: aiohttp.ClientResponse, stream: web.StreamResponse
    ) -> None:
        """Pass a watch on until either side ends. A killed client sends nothing, so look for it now and then."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            while not answer.content.at_eof() and request.transport is not None:
                with contextlib.suppress(TimeoutError):
                    chunk = await asyncio.wait_for(answer.content.readany(), 2.0)
                    await self.flowing.wait()
                    await stream.write(chunk)
        except (ConnectionError, aiohttp.ClientError):
            pass
        finally:
            self._streams.discard(task)

    def _changed(self, exchange: Exchange, data: bytes, encoding: str | None) -> bool:
        """Whether the stored object is another one than before: server-side apply may be a no-op."""
        if exchange.status is None or exchange.status >= 300 or "dryRun" in exchange.query:
            return False
        if encoding:
            return True
        exchange.answer = json.loads(data)
        metadata = exchange.answer.get("metadata") or {}
        key = f"{exchange.plural}/{metadata.get('namespace')}/{metadata.get('name')}"
        version = metadata.get("resourceVersion", "")
        if exchange.method == "DELETE" or not version:
            return True
        known, self._versions[key] = self._versions.get(key), version
        # The removal of the last finalizer ends the object; its answer bears the old version.
        ended = "deletionTimestamp" in metadata and not metadata.get("finalizers")
        return bool(ended or known != version)

    async def _observe(self, exchange: Exchange) -> None:
        for observer in self._observers:
            try:
                result = observer(exchange)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                self.errors.append(error)

    def _end_client(self) -> None:
        """Kill, and lose what it has sent and is not yet forwarded: no further write of this process counts."""
        self._killed.add(self.client())
        self.kill()

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        """Close the connection without an answer."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)


def _status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": f"injected failure {code}",
        "reason": {409: "Conflict", 429: "TooManyRequests", 403: "Forbidden"}.get(code, "InternalError"),
        "code": code,
    }


_HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade"}
_HOP_BY_HOP |= {"content-length", "accept-encoding"}
