"""The control API of the process form: plain HTTP on 127.0.0.1, JSON both ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from lab.cluster.nodes import behaviour
from lab.cluster.nodes.api import ApiError
from lab.cluster.nodes.server import FakeNodes


class Control:
    """Routes to one `FakeNodes`."""

    def __init__(self, nodes: FakeNodes) -> None:
        self._nodes = nodes
        self._runner: web.AppRunner

    async def start(self, port: int) -> str:
        """Listen; the address. Port 0 takes a free one."""
        app = web.Application(middlewares=[_say_why])
        app.router.add_get("/nodes", self._list)
        app.router.add_post("/nodes", self._add)
        app.router.add_delete("/nodes/{name}", self._remove)
        app.router.add_get("/behaviours", self._rules)
        app.router.add_post("/behaviours", self._behave)
        app.router.add_delete("/behaviours", self._clear)
        app.router.add_delete("/behaviours/{id:[0-9]+}", self._forget)
        app.router.add_put("/sync", self._sync)
        app.router.add_get("/upstreams/{namespace}/{sandbox}", self._seen)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"nodes": self._nodes.describe()})

    async def _add(self, request: web.Request) -> web.Response:
        body = await request.json()
        names = await self._nodes.add(
            body["plan"],
            pool=body.get("pool"),
            count=int(body.get("count", 1)),
            gpu_taint=bool(body.get("gpu_taint")),
        )
        return web.json_response({"names": names}, status=201)

    async def _remove(self, request: web.Request) -> web.Response:
        await self._nodes.remove(request.match_info["name"])
        return web.json_response({})

    async def _rules(self, _: web.Request) -> web.Response:
        return web.json_response({"rules": [rule.to_json() for rule in self._nodes.behaviours.rules()]})

    async def _behave(self, request: web.Request) -> web.Response:
        ident = self._nodes.behaviours.add(*behaviour.parse(await request.json()))
        return web.json_response({"id": ident}, status=201)

    async def _clear(self, _: web.Request) -> web.Response:
        self._nodes.behaviours.clear()
        return web.json_response({})

    async def _sync(self, request: web.Request) -> web.Response:
        self._nodes.workloads.mounts.period = float((await request.json())["seconds"])
        return web.json_response({})

    async def _seen(self, request: web.Request) -> web.Response:
        info = request.match_info
        seen = self._nodes.workloads.upstreams.seen(info["namespace"], info["sandbox"])
        return web.json_response({"requests": seen})

    async def _forget(self, request: web.Request) -> web.Response:
        if not self._nodes.behaviours.remove(int(request.match_info["id"])):
            raise ValueError(f"no behaviour {request.match_info['id']}")
        return web.json_response({})


@web.middleware
async def _say_why(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What the caller did wrong, as text."""
    try:
        return await handler(request)
    except KeyError as error:
        return web.Response(status=400, text=f"{error.args[0]} is missing")
    except (ValueError, TypeError, ApiError) as error:
        return web.Response(status=400, text=str(error))
