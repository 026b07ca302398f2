"""`python -m bench`: figures of the operator on the lab, as a table and as JSON.

one        20 sandboxes in a row: apply to all children, to the first policy, to Ready
burst      100 at once: the same, child objects a second, requests and writes until settled
quiet      60 s after the burst: requests and writes
restart    with 100 sandboxes: time to settled, writes; and kill -9 to the first new object
memory     at 0, 100, 500 and 1,000 sandboxes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.watching import Watching
from lab.cluster.lab import Lab
from lab.world import World

POOLS = {"g2-gpu-rtx4000a4-m": 34, "g6-standard-8": 12}
SPEC: dict[str, Any] = {
    "model": {"id": "Qwen/Qwen3-0.6B"},
    "access": {"allowlist": [{"cidr": "203.0.113.4/32"}]},
}
PUBLIC: dict[str, Any] = {**SPEC, "access": {**SPEC["access"], "exposure": "NodeBalancer"}}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-results.json"))
    parser.add_argument("--singles", type=int, default=20, help="sandboxes that are made one at a time")
    parser.add_argument("--most", type=int, default=1000, help="sandboxes of the last memory figure")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}

    def keep(name: str, group: Any) -> None:
        """A figure is shown and written when it is known: an interruption loses nothing."""
        results[name] = group
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")
        _print(name, group)

    keep("machine", {"cpus": os.cpu_count(), "python": platform.python_version()})
    keep("date", time.strftime("%Y-%m-%d"))
    asyncio.run(_run(keep, singles=arguments.singles, most=arguments.most))
    print(f"written to {arguments.out}")
    return 0


async def _run(keep: Callable[[str, Any], None], *, singles: int, most: int) -> None:
    memory: dict[str, float] = {}
    with Lab(pools=POOLS) as lab, tempfile.TemporaryDirectory() as folder:
        async with (
            World(lab, pathlib.Path(folder), through_proxy=False) as world,
            Watching(
                server=lab.plane.server, tls=lab.plane.tls_context(), namespace=world.namespace
            ) as watching,
        ):
            await world.operator.start()
            bench = Bench(world, watching)
            memory["0"] = figures.resident_megabytes(world.operator.pid)
            keep("one", await bench.one(singles))
            keep("public", await bench.public())
            keep("burst", await bench.burst(100))
            memory["100"] = figures.resident_megabytes(world.operator.pid)
            keep("quiet", await bench.quiet(60))
            keep("restart", await bench.restart())
            keep("kill", await bench.kill())
            for count in (500, most):
                if count <= most:
                    await bench.grow(count)
                    memory[str(count)] = figures.resident_megabytes(world.operator.pid)
                    keep("memory_mb", memory)


class Bench:
    """The scenarios, on one world."""

    def __init__(self, world: World, watching: Watching) -> None:
        self._world = world
        self._watching = watching
        self._made = 0

    async def one(self, count: int) -> dict[str, Any]:
        """One after the other; each is Ready before the next comes."""
        children, policies, ready, requests = [], [], [], []
        for index in range(count):
            _say(f"one at a time: {index + 1} of {count}")
            name = f"one-{index:02}"
            before = await self._requests()
            began = time.monotonic()
            await self._world.apply(name, SPEC)
            await self._world.until(name, "Ready", timeout=120)
            ready.append(self._watching.ready[name] - began)
            seen = self._watching.children[name]
            children.append(max(seen.values()) - began)
            policies.append(min(at for (kind, _), at in seen.items() if kind == "NetworkPolicy") - began)
            await asyncio.sleep(3)
            requests.append((await self._requests()).since(before))
        self._made += count
        return {
            "first_policy_s": figures.spread(policies),
            "all_children_s": figures.spread(children),
            "ready_s": figures.spread(ready),
            "children": len(self._watching.children["one-00"]),
            "writes_per_sandbox": figures.spread([r.writes for r in requests]),
            "events_per_sandbox": figures.spread([r.events for r in requests]),
            "requests_of_the_last": requests[-1].by_verb,
        }

    async def public(self) -> dict[str, Any]:
        """One with a NodeBalancer: Linode calls until settled."""
        before = await self._requests()
        began = time.monotonic()
        await self._world.apply("public", PUBLIC)
        await self._world.until("public", "Ready", timeout=120)
        ready = time.monotonic() - began
        await asyncio.sleep(5)
        spent = (await self._requests()).since(before)
        self._made += 1
        return {
            "ready_s": round(ready, 3),
            "children": len(self._watching.children["public"]),
            "writes": spent.writes,
            "linode_calls": spent.linode,
            "linode_writes": spent.linode_writes,
        }

    async def burst(self, count: int) -> dict[str, Any]:
        """All at once."""
        _say(f"{count} at once")
        names = [f"burst-{index:03}" for index in range(count)]
        before = await self._requests()
        began = time.monotonic()
        await asyncio.gather(*(self._world.apply(name, SPEC) for name in names))
        wanted = len(self._watching.children["one-00"])
        done = await self._all_children(names, wanted, began)
        settled = [await self._ready(name, began) for name in names]
        await self._settle()
        spent = (await self._requests()).since(before)
        self._made += count
        return {
            "all_children_s": figures.spread(done),
            "ready_s": figures.spread(settled),
            "child_objects_per_s": round(wanted * count / max(done), 1),
            "writes_per_sandbox": round(spent.writes / count, 2),
            "events_per_sandbox": round(spent.events / count, 2),
            "requests_by_verb": spent.by_verb,
        }

    async def quiet(self, seconds: int) -> dict[str, Any]:
        """Nothing happens; what does the operator do?"""
        _say(f"{seconds} quiet seconds")
        before = await self._requests()
        cpu = _cpu_seconds(self._world.operator.pid)
        await asyncio.sleep(seconds)
        spent = (await self._requests()).since(before)
        return {
            "seconds": seconds,
            "sandboxes": self._made,
            "writes": spent.writes + spent.events,
            "linode_writes": spent.linode_writes,
            "requests": spent.by_verb,
            "linode_calls": spent.linode,
            "cpu_s": round(_cpu_seconds(self._world.operator.pid) - cpu, 2),
        }

    async def restart(self) -> dict[str, Any]:
        """A clean restart: how long until everything was looked at, and what was written?"""
        _say("restart")
        await self._world.operator.stop()
        began = time.monotonic()
        await self._world.operator.start()
        reconciling = time.monotonic() - began
        await self._settle()
        spent = await self._requests()
        return {
            "sandboxes": self._made,
            "reconciling_after_s": round(reconciling, 2),
            "settled_after_s": round(time.monotonic() - began - SETTLE, 2),
            "writes": spent.writes + spent.events,
            "linode_writes": spent.linode_writes,
        }

    async def kill(self) -> dict[str, Any]:
        """kill -9 and start again: when is a new object handled?"""
        _say("kill -9")
        self._world.operator.kill()
        await self._world.operator.wait()
        began = time.monotonic()
        await self._world.operator.start(wait=False)
        await self._world.apply("after-kill", SPEC)
        while "after-kill" not in self._watching.children:
            await asyncio.sleep(0.02)
        first = min(self._watching.children["after-kill"].values()) - began
        self._made += 1
        return {"first_child_after_s": round(first, 2)}

    async def grow(self, count: int) -> None:
        """Add suspended sandboxes, which need no GPU, until there are `count`."""
        missing = [f"more-{index:04}" for index in range(count - self._made)]
        _say(f"growing to {count} sandboxes")
        spec = {**SPEC, "lifecycle": {"state": "Suspended"}}
        wanted = len(self._watching.children["one-00"])
        for start in range(0, len(missing), 50):
            names = [n for n in missing[start : start + 50] if n not in self._watching.children]
            await asyncio.gather(*(self._world.apply(name, spec) for name in names))
            await self._all_children(names, wanted, time.monotonic())
            _say(f"growing to {count} sandboxes: {self._made + start + len(names)}")
        self._made = count
        await self._settle()

    async def _all_children(self, names: list[str], wanted: int, began: float) -> list[float]:
        """Seconds until each has its children."""
        deadline = time.monotonic() + 300
        while any(len(self._watching.children.get(name, {})) < wanted for name in names):
            if time.monotonic() > deadline:
                raise RuntimeError("the children did not come in 300 s")
            await asyncio.sleep(0.05)
        return [sorted(self._watching.children[name].values())[wanted - 1] - began for name in names]

    async def _ready(self, name: str, began: float) -> float:
        deadline = time.monotonic() + 300
        while name not in self._watching.ready:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready\n{await self._world.describe()}"[:4000])
            await asyncio.sleep(0.05)
        return self._watching.ready[name] - began

    async def _settle(self) -> None:
        """Wait until no write was made for `SETTLE` seconds."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < SETTLE:
            spent = await self._requests()
            if (now := spent.writes + spent.events) != last:
                last, since = now, time.monotonic()
            await asyncio.sleep(0.5)

    async def _requests(self) -> figures.Requests:
        ports = re.findall(r'"port": (\d+)', self._world.operator.log())
        return await figures.requests(f"http://127.0.0.1:{ports[-1]}/metrics")


SETTLE = 6.0


def _cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _print(name: str, group: Any) -> None:
    table = Table(title=name, show_header=False, title_justify="left")
    for key, value in (group if isinstance(group, dict) else {name: group}).items():
        shown = "  ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(key, shown)
    Console(width=110).print(table)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
