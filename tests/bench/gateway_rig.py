"""Engine, gateways and load for the figures of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

from bench.figures import percentile
from gateway.cases import KEY, KNOWN, OFFICE, Spec, sandbox, with_access
from gateway.traffic.certificates import Authority
from gateway.traffic.running import Running
from lab.envoy import process as envoy_process

PATH = "/v1/chat/completions"
PLAIN: Spec = with_access(tls={"mode": "Disabled"})
ENCRYPTED: Spec = with_access(tls={"mode": "SelfSigned"})
#: The ways of a request, from the shortest: to the engine itself, and through a gateway with PROXY
#: header, allowlist and key, without and with TLS.
WAYS = ("direct", "plain", "tls")


@dataclasses.dataclass
class Sample:
    """What one way showed, over all its turns. Times in microseconds."""

    latencies: list[int] = dataclasses.field(default_factory=list)
    firsts: list[int] = dataclasses.field(default_factory=list)
    gaps: list[int] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    requests: int = 0
    events: int = 0
    failed: int = 0
    cpu: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, result: dict[str, Any], cpu: dict[str, float], *, skip: int) -> None:
        """Add one turn, without the `skip` latencies of its beginning."""
        self.latencies += result["latencies"][skip:]
        self.firsts += result["firsts"] or ()
        self.gaps += result["gaps"] or ()
        self.seconds += result["seconds"]
        self.requests += result["requests"]
        self.events += result["events"]
        self.failed += result["failed"]
        for name, seconds in cpu.items():
            self.cpu[name] = self.cpu.get(name, 0.0) + seconds

    def cores(self) -> dict[str, float]:
        """How many cores each process kept busy: at the machine's sum, the machine is the limit."""
        return {name: round(seconds / self.seconds, 2) for name, seconds in self.cpu.items()}


class Rig:
    """One engine, one gateway without TLS and one with it."""

    def __init__(
        self, tool: pathlib.Path, engine: asyncio.subprocess.Process, port: int, authority: str
    ) -> None:
        self._tool = tool
        self._engine = engine
        self._port = port
        self._authority = authority
        self.gateways: dict[str, Running] = {}

    def plan(self, way: str, **more: Any) -> dict[str, Any]:
        """A plan of load on one way."""
        port = self._port if way == "direct" else self.gateways[way].ports["external_api"]
        plan: dict[str, Any] = {"port": port, "path": PATH, "concurrency": 1}
        if way != "direct":
            plan |= {"key": KEY, "source": OFFICE}
        if way == "tls":
            plan |= {"authority": self._authority}
        return plan | more

    async def load(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Run a plan to its end."""
        process = await asyncio.create_subprocess_exec(
            str(self._tool), "load", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        output, _ = await process.communicate(json.dumps(plan).encode())
        if process.returncode:
            raise RuntimeError(f"the load failed: {plan}")
        result: dict[str, Any] = json.loads(output)
        result["latencies"] = result["latencies"] or []
        return result

    async def compare(
        self, *, turns: int, skip: int = 0, ways: tuple[str, ...] = WAYS, **more: Any
    ) -> dict[str, Sample]:
        """The same load on all ways in turn, so that what else the machine does meets all alike."""
        samples = {way: Sample() for way in ways}
        for _ in range(turns):
            for way in ways:
                samples[way].add(*await self.measured(way, **more), skip=skip)
        return samples

    async def measured(self, way: str, **more: Any) -> tuple[dict[str, Any], dict[str, float]]:
        """One turn, and the processor seconds of each process."""
        before = self._cpu(way)
        result = await self.load(self.plan(way, **more))
        after = self._cpu(way)
        return result, {"client": result["cpu"], **{name: after[name] - before[name] for name in after}}

    def _cpu(self, way: str) -> dict[str, float]:
        pids = {"engine": self._engine.pid}
        if way in self.gateways:
            pids["gateway"] = self.gateways[way].pid
        return {name: cpu_seconds(pid) for name, pid in pids.items()}

    @contextlib.asynccontextmanager
    async def holding(self, plan: dict[str, Any], count: int) -> AsyncIterator[None]:
        """Idle connections, as many as `count`."""
        process = await asyncio.create_subprocess_exec(
            str(self._tool), "load", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(plan | {"hold": count}).encode())
        if await process.stdout.readline() != b"holding\n":
            raise RuntimeError("the connections could not be opened")
        yield
        process.stdin.close()
        await process.wait()


@contextlib.asynccontextmanager
async def rig(directory: pathlib.Path) -> AsyncIterator[Rig]:
    """Build the load generator, start engine and gateways."""
    if shutil.which("go") is None or envoy_process.binary() is None:
        raise RuntimeError("the figures need Go, as the lab does, and Envoy")
    tool = directory / "gateway_load"
    source = pathlib.Path(__file__).with_name("gateway_load.go")
    await asyncio.to_thread(
        subprocess.run, ["go", "build", "-trimpath", "-o", str(tool), str(source)], check=True
    )
    port = envoy_process.free_port()
    engine = await asyncio.create_subprocess_exec(str(tool), "serve", str(port))
    authority = Authority("bench")
    result = Rig(tool, engine, port, authority.pem)
    try:
        for way, spec in (("plain", PLAIN), ("tls", ENCRYPTED)):
            gateway = Running(directory / f"gateway-{way}", Port(port))
            authority.renew(gateway.tls)
            gateway.write(sandbox(spec), KNOWN)
            result.gateways[way] = gateway
            gateway.start()
        yield result
    finally:
        for gateway in result.gateways.values():
            gateway.stop()
        engine.terminate()
        await engine.wait()


@dataclasses.dataclass(frozen=True)
class Port:
    """Where the engine listens."""

    port: int


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def milliseconds(microseconds: list[int]) -> dict[str, float]:
    """p50 and p99."""
    return {
        "p50_ms": round(percentile(microseconds, 0.5) / 1000, 3),
        "p99_ms": round(percentile(microseconds, 0.99) / 1000, 3),
    }


def added(sample: list[int], base: list[int]) -> dict[str, float]:
    """What a way adds to p50 and p99."""
    one, other = milliseconds(sample), milliseconds(base)
    return {f"added_{name}": round(one[name] - other[name], 3) for name in one}


def waited(began: float) -> float:
    """Milliseconds since then."""
    return round((time.monotonic() - began) * 1000, 1)
