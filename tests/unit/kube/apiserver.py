"""An API server of a hundred lines on a real socket: enough for clients, a Lease and Events.

Objects live in `objects` by path. `faults` strike before the effect: a coroutine function that gets the
request and may return a response, sleep, or cut the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from kubernetes.aio import client as aio

from ai_sandbox_operator.kube.client import KubeClient

Json = Any
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class ApiServer:
    """Create, read, replace, merge-patch, delete and list, with versions and preconditions."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Json] = []
        self.faults: list[Fault] = []
        self.port = 0
        self.version = 1

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ApiServer]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    def configuration(self) -> aio.Configuration:
        return aio.Configuration(
            host=f"http://127.0.0.1:{self.port}", api_key={"BearerToken": "Bearer s3cret"}
        )

    @contextlib.asynccontextmanager
    async def client(self, **options: Json) -> AsyncIterator[KubeClient]:
        client = KubeClient(self.configuration(), **options)
        try:
            yield client
        finally:
            await client.close()

    def put(self, path: str, body: dict[str, Json]) -> dict[str, Json]:
        """Store an object, with a new version."""
        self.version += 1
        metadata = {"uid": f"uid-{self.version}", **body.get("metadata", {})}
        self.objects[path] = {**body, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        return self.objects[path]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.text()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, request.path_qs))
        self.headers.append({name.title(): value for name, value in request.headers.items()})
        self.bodies.append(body)
        for fault in self.faults:
            if (answer := await fault(request)) is not None:
                return answer
        return self._answer(request, body)

    def _answer(self, request: web.Request, body: Json) -> web.Response:
        path, held = request.path, self.objects.get(request.path)
        match request.method:
            case "GET" if held is None and path.rpartition("/")[2].endswith("s"):
                return self._list(request)
            case "POST":
                path = f"{path}/{body['metadata']['name']}"
                if path in self.objects:
                    return failure(409, "AlreadyExists")
                return web.json_response(self.put(path, body), status=201)
            case _ if held is None:
                return failure(404, "NotFound")
            case "GET":
                return web.json_response(held)
            case "PUT":
                if body["metadata"].get("resourceVersion") != held["metadata"]["resourceVersion"]:
                    return failure(409, "Conflict")
                return web.json_response(self.put(path, body))
            case "DELETE":
                if body["preconditions"]["uid"] != held["metadata"]["uid"]:
                    return failure(409, "Conflict")
                del self.objects[path]
                return web.json_response({"kind": "Status", "status": "Success"})
            case _:
                return web.json_response(self.put(path, {**held, **body}))

    def _list(self, request: web.Request) -> web.Response:
        names = sorted(path for path in self.objects if path.startswith(request.path + "/"))
        start, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        page = names[start : start + limit]
        more = {"continue": str(start + limit)} if start + limit < len(names) else {}
        return web.json_response({"metadata": more, "items": [self.objects[path] for path in page]})


def failure(status: int, reason: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    """A metav1.Status."""
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": f"it says {reason}"}
    return web.json_response(body, status=status, headers=headers)


def answers(
    status: int, reason: str = "", *, times: int = 10**6, headers: Mapping[str, str] | None = None
) -> Fault:
    """The next `times` requests fail."""
    left = times

    async def fault(_: web.Request) -> web.StreamResponse | None:
        nonlocal left
        left -= 1
        return failure(status, reason, headers) if left >= 0 else None

    return fault


async def hangs(_: web.Request) -> web.StreamResponse | None:
    """Silence."""
    await asyncio.sleep(60)
    return None


async def resets(request: web.Request) -> web.StreamResponse | None:
    """The connection is cut."""
    assert request.transport is not None
    request.transport.abort()
    return None
