"""The network of the pods, as far as an operator outside the cluster needs it: an HTTP proxy.

`GET http://10.2.x.y:9902/stats/prometheus` through this proxy is answered for the pod with that address:
by a stand-in for the gateway's Envoy, or by the real one where the nodes run it. Pods that do not run
are not reached.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.gateway import StandIn
from lab.cluster.nodes.lifecycle import Phase, State

#: A pod by its address: the pod, its state, its behaviour.
Find = Callable[[str], tuple[dict[str, Any], State, Behaviour] | None]
#: Reads an object of the API server, or None.
Read = Callable[[str], Awaitable[dict[str, Any] | None]]
#: Where a pod's real process listens, if it has one: its loopback address.
Real = Callable[[str], str | None]

STATUS_PORT = 9902


class PodNetwork:
    """The proxy. `url` is known after `start`.

    Attributes:
        sync_seconds: how old the mounted files of a pod may be that nobody touched.
    """

    def __init__(self, find: Find, read: Read, real: Real = lambda _uid: None) -> None:
        self._find = find
        self._read = read
        self._real = real
        self._gateways: dict[str, StandIn] = {}
        self._runner: web.ServerRunner
        self._session: aiohttp.ClientSession
        self.sync_seconds = 0.5
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

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._gateways.pop(uid, None)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        target = urllib.parse.urlsplit(request.raw_path)
        if request.method != "GET" or target.scheme != "http" or target.hostname is None:
            return web.Response(status=501, text="only GET of an http URL")
        found = self._find(target.hostname)
        if found is None or found[1].phase not in (Phase.RUNNING, Phase.READY):
            return web.Response(status=502, text=f"no pod answers at {target.hostname}")
        pod, _, behaviour = found
        if behaviour.status_seconds:
            await asyncio.sleep(behaviour.status_seconds)
        if behaviour.status == "unreachable":
            return web.Response(status=502, text="connection refused")
        if (address := self._real(pod["metadata"]["uid"])) is not None:
            return await self._forward(f"http://{address}:{target.port}{target.path}?{target.query}")
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component")
        if component != "gateway" or target.port != STATUS_PORT:
            return web.Response(status=502, text="connection refused")
        return await self._status(pod, behaviour, target.path, urllib.parse.parse_qs(target.query, True))

    async def _status(
        self, pod: dict[str, Any], behaviour: Behaviour, path: str, query: Mapping[str, list[str]]
    ) -> web.Response:
        uid = pod["metadata"]["uid"]
        stand_in = self._gateways.setdefault(uid, StandIn())
        if behaviour.status != "frozen":
            await stand_in.sync(pod, self._read, self.sync_seconds)
        if path == "/ready":
            return web.Response(text="LIVE\n")
        if path == "/stats/prometheus":
            text = stand_in.statistics(
                readouts="text_readouts" in query, pattern=query.get("filter", [""])[0]
            )
            return web.Response(text=text)
        return web.Response(status=404)

    async def _forward(self, url: str) -> web.Response:
        try:
            async with self._session.get(url) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            return web.Response(status=502, text=str(error))
