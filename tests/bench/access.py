"""`python -m bench.access`: from an edit of the sandbox to its effect, layer by layer.

The operator, the API server, Linode's simulator and two real Envoys per sandbox run on this machine. The
kubelet brings changed Secrets once an hour, so every effect at the gateway is the operator's hurrying; a
real kubelet adds the time it takes to write the files, about a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ai_sandbox_operator.api import kinds
from bench.figures import spread
from lab.cluster.lab import Lab
from lab.envoy import process
from lab.world import World

NAME = "demo"
OFFICE, HOME = "203.0.113.9", "198.51.100.7"
WITHOUT = [{"cidr": "203.0.113.0/24"}]
WITH = [*WITHOUT, {"cidr": f"{HOME}/32"}]
_LIMIT = 60.0

Probe = Callable[[], Awaitable[bool]]


class Bench:
    """One sandbox behind a NodeBalancer that the bench plays."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tls: ssl.SSLContext
        self._addresses: list[str] = []
        self._balancer = 0

    async def prepare(self) -> None:
        """Bring the sandbox up."""
        world = self._world
        await world.apply(NAME, {"access": {"exposure": "NodeBalancer", "allowlist": WITHOUT}})
        await world.until(NAME, "Ready", timeout=90)
        status = (await world.sandbox(NAME))["status"]
        self._balancer = status["linode"]["nodeBalancerID"]
        authority = await self._world.values(status["endpoints"]["caSecretName"])
        self._tls = ssl.create_default_context(cadata=authority["ca.crt"])
        pods = await world.pods(NAME, "gateway")
        self._addresses = [world.lab.loopback(pod["status"]["podIP"]) for pod in pods]

    async def allowlist(self, *, wider: bool) -> dict[str, float]:
        """Seconds until each layer holds the edited allowlist."""
        key = (await self._world.values(f"{NAME}-api-keys"))["default"]
        status = 200 if wider else 403
        edit = {"access": {"allowlist": WITH if wider else WITHOUT}}
        return await self._effects(
            edit,
            {
                "Cloud Firewall": self._firewall(wider),
                "NetworkPolicy": self._policy(wider),
                "gateway, both pods": self._answers(key, HOME, status),
                "NetworkProtected": self._protected,
            },
        )

    async def key(self, *, added: bool) -> dict[str, float]:
        """Seconds until a key that was added is accepted, or one that was removed is refused."""
        if added:
            await self._world.edit(NAME, {"access": {"apiKeys": [{"name": "default"}]}})
            await self._settle()
        keys = ["default", "laptop"]
        value = "" if added else (await self._world.values(f"{NAME}-api-keys"))["laptop"]

        async def answers() -> bool:
            found = value or (await self._world.values(f"{NAME}-api-keys")).get("laptop", "")
            return bool(found) and await self._answers(found, OFFICE, 200 if added else 401)()

        edit = {"access": {"apiKeys": [{"name": name} for name in (keys if added else keys[:1])]}}
        return await self._effects(edit, {"gateway, both pods": answers, "NetworkProtected": self._protected})

    async def _effects(self, edit: dict[str, Any], probes: dict[str, Probe]) -> dict[str, float]:
        began = time.perf_counter()
        await self._world.edit(NAME, edit)
        found: dict[str, float] = {}

        async def watch(layer: str, probe: Probe) -> None:
            while not await probe():
                if time.perf_counter() - began > _LIMIT:
                    raise TimeoutError(layer)
                await asyncio.sleep(0.005)
            found[layer] = time.perf_counter() - began

        await asyncio.gather(*(watch(layer, probe) for layer, probe in probes.items()))
        await self._settle()
        return found

    async def _settle(self) -> None:
        await self._world.until(NAME, "NetworkProtected")
        await self._world.quiet(0.5)

    def _firewall(self, wider: bool) -> Probe:
        async def probe() -> bool:
            return self._world.linode.state.snapshot().admits(self._balancer, HOME, 8000) is wider

        return probe

    def _policy(self, wider: bool) -> Probe:
        async def probe() -> bool:
            live = await self._world.api.get(kinds.NETWORK_POLICY, self._world.namespace, f"{NAME}-gateway")
            return (HOME in json.dumps(live["spec"])) is wider

        return probe

    def _answers(self, key: str, source: str, status: int) -> Probe:
        def ask(address: str) -> int:
            return process.request(
                8443,
                "/v1/models",
                headers={"Authorization": f"Bearer {key}"},
                source=source,
                tls=self._tls,
                address=address,
                peer=self._world.lab.loopback("10.2.255.7"),
            ).status

        async def probe() -> bool:
            found = await asyncio.gather(*(asyncio.to_thread(ask, one) for one in self._addresses))
            return set(found) == {status}

        return probe

    async def _protected(self) -> bool:
        return bool((await self._world.condition(NAME, "NetworkProtected"))["status"] == "True")


async def _run(turns: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {}
    with Lab(envoy=True) as lab, tempfile.TemporaryDirectory() as folder:
        flags = ["--nodebalancer-range", f"{lab.loopback('10.2.255.0')}/24"]
        async with World(lab, pathlib.Path(folder), operator={"flags": flags}) as world:
            await world.operator.start()
            bench = Bench(world)
            await bench.prepare()
            lab.nodes.sync(3600)
            for turn in range(turns):
                print(f"turn {turn + 1} of {turns}", flush=True)
                for what, effects in (
                    ("network added", await bench.allowlist(wider=True)),
                    ("network removed", await bench.allowlist(wider=False)),
                    ("key added", await bench.key(added=True)),
                    ("key removed", await bench.key(added=False)),
                ):
                    for layer, seconds in effects.items():
                        found.setdefault(what, {}).setdefault(layer, []).append(seconds)
    return {what: {layer: spread(times) for layer, times in layers.items()} for what, layers in found.items()}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-access-results.json"))
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    results = asyncio.run(_run(arguments.turns))
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{'edit':18}{'layer':22}{'p50':>9}{'max':>9}")
    for what, layers in results.items():
        for layer, figures in layers.items():
            print(f"{what:18}{layer:22}{figures['p50']:8.3f}s{figures['max']:8.3f}s")
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
