"""What runs in the engine pods: the stand-in for vLLM, with the arguments and the key of the pod.

In this process and without a port: a run is a plan of its log, and an HTTP side that exists from the
moment when the start is over. The kubelet asks it how far it is, as a behaviour.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web

from lab.cluster.nodes.api import ApiError
from lab.cluster.nodes.behaviour import Behaviour, Kind
from lab.cluster.nodes.mounts import Read
from lab.engine import plan
from lab.engine.api import Api
from lab.engine.engine import Engine
from lab.engine.plan import Plan
from lab.engine.script import HEALTHY, Script

_LABEL_COMPONENT = "app.kubernetes.io/component"
#: Kinds of behaviour that leave the engine to itself; the others are the kubelet's.
_OWN = ("normal", "slow")
_RETRY = 0.5


class EngineRun:
    """One run of an engine pod's container.

    Args:
        pod: its manifest.
        read: the API server.
        ready: seconds of a usual start.
        tell: called when it serves, and when it has ended.
    """

    def __init__(self, pod: Mapping[str, Any], read: Read, ready: float, tell: Callable[[], None]) -> None:
        self.pod = pod
        self._read, self._ready, self._tell = read, ready, tell
        self._began = time.time()
        self._known: tuple[Script, float, Plan] | None = None
        self._up: float | None = None
        self._engine: Engine | None = None
        self._api: Api | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._crash_after: float | None = None
        self._ended = False
        # The key is read when the container starts and never again, as vLLM does.
        self._variables = asyncio.ensure_future(self._environment())

    def port(self, rule: Behaviour) -> int | None:
        """Where it listens; None: it does not serve."""
        self._advance(rule)
        return self._engine.arguments.port if self._engine is not None and not self._ended else None

    def view(self, rule: Behaviour) -> Behaviour:
        """The rule, and how far the engine is where the rule leaves it to itself."""
        if rule.kind not in _OWN:
            return rule
        if self._ended:
            return replace(rule, kind="crash", seconds=0.0, exit_code=0, log=self.log(rule))
        coming = self._advance(rule)
        if (failure := coming.failure) is not None:
            kind: Kind = "oom" if failure.reason == "OOMKilled" else "crash"
            log = "\n".join(coming.log(math.inf))
            return replace(rule, kind=kind, seconds=coming.ends, exit_code=failure.exit_code, log=log)
        if coming.up is None:
            return replace(rule, kind="never-ready")
        return replace(rule, kind="slow", seconds=coming.up)

    def _advance(self, rule: Behaviour) -> Plan:
        """Serve when the start is over, and follow the rule while it serves."""
        coming = self._plan(rule)
        if self._engine is None and coming.up is not None and time.time() >= self._began + coming.up:
            assert coming.arguments is not None
            self._up = self._began + coming.up
            self._engine = Engine(coming.arguments)
        if self._engine is not None:
            self._engine.script = rule.engine or HEALTHY
            self._prepare_crash(self._engine.script)
        return coming

    def log(self, rule: Behaviour) -> str:
        """What it has said so far."""
        said = self._plan(rule).log(math.inf if self._up is not None else time.time() - self._began)
        return "\n".join([*said, *(self._engine.said if self._engine else ())])

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """The answer to a request that came to its port."""
        variables = await self._variables
        assert self._engine is not None
        if self._api is None:
            keys = variables.get("VLLM_API_KEY")
            arguments = self._engine.arguments
            if keys is not None and not arguments.api_keys:
                self._engine.arguments = replace(arguments, api_keys=(keys,))
            self._api = Api(self._engine)
        return await self._api.answer(request, path)

    def stop(self) -> None:
        """It runs no longer."""
        self._variables.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._engine is not None and not self._ended:
            self._engine.dead = True

    def _plan(self, rule: Behaviour) -> Plan:
        """As long as it starts, the rule may change what will come; then no more."""
        script, total = rule.engine or HEALTHY, rule.duration(self._ready)
        known = self._known
        if known is None or (self._up is None and known[:2] != (script, total)):
            container = self.pod["spec"]["containers"][0]
            made = plan.of_container(container, script, total=total, began=self._began)
            known = self._known = script, total, made
            if made.up is not None:
                self._call(self._began + made.up, self._tell)
        return known[2]

    def _call(self, moment: float, what: Callable[..., None], *arguments: float) -> None:
        """Do something at a time; only one thing is ever due."""
        if self._timer is not None:
            self._timer.cancel()
        delay = max(moment - time.time(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(delay, what, *arguments)

    def _prepare_crash(self, script: Script) -> None:
        if script.crash_after == self._crash_after:
            return
        self._crash_after = script.crash_after
        if script.crash_after is not None and self._up is not None:
            self._call(self._up + script.crash_after, self._crash, script.dying)
        elif self._timer is not None:
            self._timer.cancel()

    def _crash(self, dying: float) -> None:
        assert self._engine is not None
        self._engine.crash(time.time())
        self._call(time.time() + dying, self._end)

    def _end(self) -> None:
        self._ended = True
        self._tell()

    async def _environment(self) -> dict[str, str]:
        """The container's variables that come from Secrets."""
        found: dict[str, str] = {}
        namespace = self.pod["metadata"]["namespace"]
        for variable in self.pod["spec"]["containers"][0].get("env") or ():
            if reference := (variable.get("valueFrom") or {}).get("secretKeyRef"):
                secret = await self._get(f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}")
                value = ((secret or {}).get("data") or {}).get(reference["key"])
                if value is not None:
                    found[variable["name"]] = base64.b64decode(value).decode()
        return found

    async def _get(self, path: str) -> dict[str, Any] | None:
        while True:
            try:
                return await self._read(path)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(_RETRY)


class Engines:
    """The engine pods by UID.

    Args:
        read: the API server.
        behaviour_of: the rule for a pod.
        ready: seconds of a usual start.
    """

    def __init__(
        self,
        read: Read,
        behaviour_of: Callable[[Mapping[str, Any]], Behaviour],
        ready: float,
    ) -> None:
        self._read, self._behaviour_of, self._ready = read, behaviour_of, ready
        self._runs: dict[str, EngineRun] = {}

    def start(self, pod: Mapping[str, Any], tell: Callable[[], None]) -> None:
        """The container starts, or starts again."""
        uid = pod["metadata"]["uid"]
        if (pod["metadata"].get("labels") or {}).get(_LABEL_COMPONENT) != "engine":
            return
        self.gone(uid)
        self._runs[uid] = EngineRun(pod, self._read, self._ready, tell)

    def gone(self, uid: str) -> None:
        """The pod is gone."""
        if (run := self._runs.pop(uid, None)) is not None:
            run.stop()

    def view(self, uid: str, rule: Behaviour) -> Behaviour:
        """The rule, and how far the engine is."""
        run = self._runs.get(uid)
        return run.view(rule) if run else rule

    def log(self, uid: str) -> str | None:
        """What the engine of a pod has said; None: what it says is the rule's."""
        if (run := self._runs.get(uid)) is None:
            return None
        rule = self._behaviour_of(run.pod)
        return run.log(rule) if rule.kind in _OWN else None

    def at(self, uid: str, port: int | None) -> EngineRun | None:
        """The engine that listens on that port of a pod."""
        if (run := self._runs.get(uid)) is None:
            return None
        rule = self._behaviour_of(run.pod)
        return run if rule.kind in _OWN and port is not None and run.port(rule) == port else None

    def stop(self) -> None:
        """End everything at once."""
        for uid in list(self._runs):
            self.gone(uid)
