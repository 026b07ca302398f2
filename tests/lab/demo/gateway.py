"""The chapter of the gateway: a real Envoy, and curl at its door."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from ai_sandbox_operator.api import names
from lab.demo.curl import Answer, Curl, shown
from lab.demo.stage import Stage
from lab.envoy.balancer import Balancer
from lab.world import World

HOME, OFFICE, STRANGER = "198.51.100.7", "203.0.113.4", "192.0.2.99"
_CLIENTS = {"home": HOME, "office": OFFICE, "stranger": STRANGER}
_HOME = {"cidr": "198.51.100.0/24", "description": "home", "to": ["API"]}
_OFFICE = {"cidr": "203.0.113.4/32", "description": "office"}
_BODY = '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'


@dataclasses.dataclass(frozen=True)
class Call:
    """One call and what must come of it.

    Attributes:
        expected: status, and what the body shows: the code of an error, or `streamed`.
    """

    client: str
    path: str
    expected: str
    key: str = ""
    stream: bool = False
    port: int = names.PORT_API

    def arguments(self, address: str) -> tuple[str, ...]:
        """Arguments of curl."""
        key = ("-H", f"Authorization: Bearer ${self.key}") if self.key else ()
        stream = ("-H", "Content-Type: application/json", "-d", _BODY) if self.stream else ()
        return ("--cacert", "ca.crt", *key, *stream, f"https://{address}:{self.port}{self.path}")


class GatewayChapter:
    """Who gets in, before and after two edits."""

    def __init__(self, world: World, stage: Stage, name: str) -> None:
        self._world = world
        self._stage = stage
        self._name = name
        self._keys: dict[str, str] = {}
        self._address = ""

    async def play(self) -> None:
        """The chapter."""
        stage, world = self._stage, self._world
        stage.chapter(
            "4. At the gateway's door",
            "The two gateway pods are real Envoys, with the files that the operator put into the Secret, and\n"
            "curl checks the sandbox's own certificate. The kubelet brings changed Secrets once a minute, as\n"
            "in a cluster; the operator makes it hurry, and says NetworkProtected when every pod serves the\n"
            "change. The Cloud Firewall would stop the stranger earlier; here everybody gets past it.",
        )
        # First, so that nobody waits for a minute.
        await world.edit(self._name, {"access": {"allowlist": [_HOME, _OFFICE]}})
        await world.until(self._name, "NetworkProtected")
        world.lab.nodes.sync(60)
        pods = await self._pods()
        await self._look()
        stage.say(
            "from a machine that trusts only the sandbox's own authority (status.endpoints.caSecretName):"
        )
        async with Balancer(world, self._name, _CLIENTS) as balancer:
            await self._calls(balancer, "home may use the API, the office also the chat", self._opening())
            edit = {"access": {"apiKeys": [{"name": "laptop"}]}}
            took = await self._edit(edit)
            title = f"Key default revoked, key laptop added: served by both pods after {took:.1f} s"
            await self._calls(balancer, title, self._rekeyed())
            took = await self._edit({"access": {"allowlist": [_HOME]}})
            title = f"The office taken off the list: served by both pods after {took:.1f} s"
            await self._calls(balancer, title, self._narrowed())
        stage.claim(await self._pods() == pods, "no gateway pod was restarted for that")
        await self._engine_saw()
        await self._log()
        world.lab.nodes.sync(0.5)

    def _opening(self) -> list[Call]:
        completions = "/v1/chat/completions"
        return [
            Call("home", completions, "200 streamed", key="DEFAULT", stream=True),
            Call("home", "/v1/models", "401 invalid_api_key"),
            Call("stranger", "/v1/models", "403 ip_not_allowed", key="DEFAULT"),
            Call("home", "/invocations", "404 not_found", key="DEFAULT"),
            Call("office", "/", "200", port=names.PORT_CHAT),
            Call("home", "/", "403 ip_not_allowed", port=names.PORT_CHAT),
        ]

    def _rekeyed(self) -> list[Call]:
        return [
            Call("home", "/v1/models", "401 invalid_api_key", key="DEFAULT"),
            Call("home", "/v1/models", "200", key="LAPTOP"),
            Call("office", "/v1/models", "200", key="LAPTOP"),
        ]

    def _narrowed(self) -> list[Call]:
        return [
            Call("office", "/v1/models", "403 ip_not_allowed", key="LAPTOP"),
            Call("home", "/v1/models", "200", key="LAPTOP"),
        ]

    async def _calls(self, balancer: Balancer, title: str, calls: list[Call]) -> None:
        """Every call twice, so that both pods are met."""
        rows, right = [], True
        for call in calls:
            curl = Curl(
                self._world.folder,
                host=balancer.host,
                source=balancer.local(call.client),
                variables=self._keys,
            )
            arguments = call.arguments(self._address)
            got = {_said(await curl.run(*arguments), call) for _ in range(2)}
            right = right and got == {call.expected}
            rows.append((call.client, shown(arguments), call.expected, " / ".join(sorted(got))))
        self._stage.table(title, ("from", "command", "expected", "got"), rows)
        self._stage.claim(right, f"all {len(calls)} answers are as expected, from both pods")

    async def _edit(self, spec: dict[str, Any]) -> float:
        """Seconds until every pod serves it."""
        began = time.monotonic()
        await self._world.edit(self._name, spec)
        await self._world.until(self._name, "NetworkProtected")
        took = time.monotonic() - began
        await self._look()
        return took

    async def _look(self) -> None:
        """What a user reads from the cluster: address, authority, keys."""
        endpoints = (await self._world.sandbox(self._name))["status"]["endpoints"]
        self._address = endpoints["api"].split("://")[1].split(":")[0]
        authority = await self._world.values(endpoints["caSecretName"])
        (self._world.folder / "ca.crt").write_text(authority["ca.crt"])
        keys = await self._world.values(f"{self._name}-api-keys")
        self._keys |= {name.upper(): value for name, value in keys.items()}

    async def _pods(self) -> set[tuple[str, int]]:
        pods = await self._world.pods(self._name, "gateway")
        return {(p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"]) for p in pods}

    async def _engine_saw(self) -> None:
        seen = self._world.lab.nodes.upstream(self._world.namespace, self._name)
        engine = [one["headers"] for one in seen if one["component"] == "engine"]
        own = {f"Bearer {key}" for key in (await self._world.values(f"{self._name}-engine-key")).values()}
        self._stage.claim(
            bool(engine) and {headers["authorization"] for headers in engine} <= own,
            "the engine saw only its own key, never a client's",
        )

    async def _log(self) -> None:
        """The access log, where clients are known by address and by the name of their key."""
        world = self._world

        async def written() -> dict[str, Any] | None:
            text = world.lab.plane.kubectl(
                *("logs", "-n", world.namespace, "--tail=-1"),
                *("-l", f"{names.LABEL_SANDBOX}={self._name},{names.LABEL_COMPONENT}=gateway"),
            )
            lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
            return next((line for line in lines if line["key"] == "laptop"), None)

        line = await world.eventually(written, what="the access log")
        part = {key: line[key] for key in ("client", "key", "method", "path", "status")}
        self._stage.claim(
            line["client"] in (HOME, OFFICE), f"kubectl logs knows who it was: {json.dumps(part)}"
        )


def _said(answer: Answer, call: Call) -> str:
    more = answer.code or ("streamed" if call.stream and answer.streamed else "")
    return f"{answer.status} {more}".strip()
