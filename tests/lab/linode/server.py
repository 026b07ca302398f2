"""The simulated Linode API as an HTTP server on 127.0.0.1: in the test's loop, in a thread, or as a process.

Serves `/v4` and `/v4beta` (the API, with faults and journal) and `/_lab` (control, without a token; see
`control.py`). Network faults act on the real socket: a reset is a TCP reset, a hang is silence.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from lab.linode import control, spec
from lab.linode.faults import Fault, Faults
from lab.linode.journal import Entry, Journal
from lab.linode.model import Snapshot
from lab.linode.pipeline import Answer, Pipeline, Request
from lab.linode.ratelimit import RateLimiter, RateLimits
from lab.linode.state import State

VERSIONS = ("v4", "v4beta")
T = TypeVar("T")


@dataclass(frozen=True)
class Write:
    """One committed change: the account right after it, who made it, and the request (None: by hand)."""

    snapshot: Snapshot
    actor: str
    entry: Entry | None


Observer = Callable[[Write], Any]  # may be a coroutine function; it is awaited before the reply is sent


class LinodeSimulator:
    """`async with LinodeSimulator() as sim:` serves `sim.url`; state, faults and journal are live."""

    def __init__(
        self,
        state: State | None = None,
        *,
        port: int = 0,
        limits: RateLimits | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.state = state or State()
        self.faults = Faults()
        self.journal = Journal()
        self.limiter = RateLimiter(limits or RateLimits())
        self.host, self.port = host, port
        self._pipeline = Pipeline(self.state, spec.load(), self.limiter, self.journal)
        self._observers: list[Observer] = []
        self._observing: list[asyncio.Future[Any]] = []
        self._entry: Entry | None = None
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.state.listeners.append(self._changed)

    # -- life ----------------------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The API's base, as a client or `LINODE_URL` wants it."""
        return f"{self.base}/v4"

    @property
    def violations(self) -> list[str]:
        """Must stay empty: answers that do not fit the API description, and errors of observers."""
        return self.journal.violations

    async def __aenter__(self) -> LinodeSimulator:
        app = web.Application(client_max_size=16 * 2**20)
        for version in VERSIONS:
            app.router.add_route("*", f"/{version}/{{tail:.*}}", self._serve)
        control.add_routes(app, self)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- observation ---------------------------------------------------------------------------------------

    def on_write(self, observer: Observer) -> None:
        """Call `observer` after every committed change, before its reply is sent."""
        self._observers.append(observer)

    def _changed(self, snapshot: Snapshot, actor: str) -> None:
        for observer in self._observers:
            try:
                result = observer(Write(snapshot, actor, self._entry))
            except Exception as error:
                self.journal.violations.append(f"observer: {error!r}")
                continue
            if inspect.isawaitable(result):
                self._observing.append(asyncio.ensure_future(result))

    async def _observed(self) -> None:
        while self._observing:
            results = await asyncio.gather(*self._take_observing(), return_exceptions=True)
            self.journal.violations += [f"observer: {r!r}" for r in results if isinstance(r, BaseException)]

    def _take_observing(self) -> list[asyncio.Future[Any]]:
        taken, self._observing = self._observing, []
        return taken

    # -- serving -------------------------------------------------------------------------------------------

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        version, _, tail = http.path.lstrip("/").partition("/")
        request = Request(
            http.method,
            f"/{tail}",
            dict(http.query),
            http.headers,
            await http.read(),
            http.remote or "127.0.0.1",
        )
        token = self._pipeline.token_of(request)
        entry = self.journal.open(
            token=token.name if token else None,
            method=request.method,
            path=request.path,
            query=http.query_string,
            filter=request.headers.get("X-Filter"),
            body=_json(request.content),
            version=version,
        )
        started = asyncio.get_running_loop().time()
        entry.template = self._template(request)
        fault = self.faults.take(request.method, request.path, entry.template, entry.token)
        answer: Answer | None = None
        if fault is not None:
            entry.fault = fault.kind
            answer = await self._strike(http, request, entry, fault)
        if answer is None:
            answer = await self._answer(request, entry)
        entry.seconds = asyncio.get_running_loop().time() - started
        cut = http.transport is None or http.transport.is_closing()
        entry.status = None if cut else answer.status
        return _response(answer)

    def _template(self, request: Request) -> str | None:
        try:
            return self._pipeline.spec.match(request.method, request.path)[0].template
        except Exception:  # unknown paths have no template; the pipeline answers for them
            return None

    async def _answer(self, request: Request, entry: Entry) -> Answer:
        self._entry = entry
        try:
            answer = self._pipeline.answer(request, entry)
        finally:
            self._entry = None
        await self._observed()
        return answer

    async def _strike(self, http: web.Request, request: Request, entry: Entry, fault: Fault) -> Answer | None:
        """What the fault makes of the request; None: go on as if nothing had happened."""
        if fault.kind == "expire-token":
            if entry.token is not None:
                self.state.expire_token(entry.token)
            return None
        effect = await self._answer(request, entry) if fault.after_effect else None
        if fault.delay:
            await self._pause(fault.delay)
        if fault.kind == "delay":
            return effect
        if fault.kind == "hang":
            await self._closing.wait()
            _cut(http)
        if fault.kind == "reset":
            _cut(http)
        return Answer(fault.status, fault.body or _error(fault), fault.headers())

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")


def _error(fault: Fault) -> dict[str, Any]:
    return {"errors": [{"reason": fault.reason}]}


def _response(answer: Answer) -> web.Response:
    if answer.status == 204:
        return web.Response(status=204, headers=answer.headers)
    if isinstance(answer.body, str):
        return web.Response(
            status=answer.status, text=answer.body, headers=answer.headers, content_type="text/html"
        )
    return web.json_response(answer.body, status=answer.status, headers=answer.headers)


def _cut(http: web.Request) -> None:
    """Reset the TCP connection: the client sees an error, not a reply."""
    transport = http.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    transport.abort()


class LinodeSimulatorThread:
    """The simulator with a loop and a thread of its own, for synchronous tests.

    `edit` runs a function of the state in that loop and answers its result.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="linode-simulator", daemon=True)
        self.sim: LinodeSimulator

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wrapped() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(timeout=60)

    def edit(self, change: Callable[[State], T]) -> T:
        async def apply() -> T:
            result = change(self.sim.state)
            await self.sim._observed()
            return result

        return self.run(apply())

    @property
    def url(self) -> str:
        return self.sim.url

    def __enter__(self) -> LinodeSimulatorThread:
        self._thread.start()

        async def start() -> LinodeSimulator:
            return await LinodeSimulator(**self._options).__aenter__()

        self.sim = self.run(start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.sim.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
