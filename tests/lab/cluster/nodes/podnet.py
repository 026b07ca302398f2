"""The network of the pods, as far as an operator outside the cluster needs it: an HTTP proxy.

`GET http://10.2.x.y:9902/stats/prometheus` through this proxy is answered for the pod with that address:
by a stand-in for the gateway's Envoy, or by the real one where the nodes run it. Port 8000 of an engine
that serves is the stand-in for vLLM, for any method. Pods that do not run are not reached.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.gateway import StandIn
from lab.cluster.nodes.lifecycle import Phase, State
from lab.cluster.nodes.workloads import Workloads

#: A pod by its address: the pod, its state, its behaviour.
Find = Callable[[str], tuple[dict[str, Any], State, Behaviour] | None]

STATUS_PORT = 9902


class PodNetwork:
    """The proxy. `url` is known after `start`."""

    def __init__(self, find: Find, workloads: Workloads) -> None:
        self._find = find
        self._workloads = workloads
        self._runner: web.ServerRunner
        self._session: aiohttp.ClientSession
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        target = urllib.parse.urlsplit(request.raw_path)
        if target.scheme != "http" or target.hostname is None:
            return web.Response(status=501, text="only an http URL")
        found = self._find(target.hostname)
        if found is None or found[1].phase not in (Phase.RUNNING, Phase.READY):
            return web.Response(status=502, text=f"no pod answers at {target.hostname}")
        pod, _, behaviour = found
        uid = pod["metadata"]["uid"]
        if (engine := self._workloads.engines.at(uid, target.port)) is not None:
            return await engine.answer(request, target.path)
        if request.method != "GET":
            return web.Response(status=501, text="only GET of what is no engine")
        if behaviour.status_seconds:
            await asyncio.sleep(behaviour.status_seconds)
        if behaviour.status == "unreachable":
            return web.Response(status=502, text="connection refused")
        if behaviour.status == "error":
            return web.Response(status=503, text="upstream connect error")
        if (address := self._workloads.real(uid)) is not None:
            return await self._forward(f"http://{address}:{target.port}{target.path}?{target.query}")
        stand_in = self._workloads.stand_in(uid)
        if stand_in is None or target.port != STATUS_PORT:
            return web.Response(status=502, text="connection refused")
        query = urllib.parse.parse_qs(target.query, True)
        return _status(stand_in, target.path, query, ready=behaviour.kind != "never-ready")

    async def _forward(self, url: str) -> web.Response:
        try:
            async with self._session.get(url) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            return web.Response(status=502, text=str(error))


def _status(stand_in: StandIn, path: str, query: Mapping[str, list[str]], *, ready: bool) -> web.Response:
    """What Envoy's status listener answers."""
    if path == "/ready":
        return web.Response(text="LIVE\n") if ready else web.Response(status=503, text="INITIALIZING\n")
    if path != "/stats/prometheus":
        return web.Response(status=404)
    try:
        text = stand_in.statistics(readouts="text_readouts" in query, pattern=query.get("filter", [""])[0])
    except ValueError as error:
        return web.Response(status=400, text=f"Invalid re2 regex: {error}")
    return web.Response(text=text)
