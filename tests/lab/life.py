"""The first start of a sandbox as a user sees it: `python -m lab.life` prints `kubectl get aisb -w`.

On the lab's API server, with the real download from a simulated hub at a chosen speed, and the engine's
stand-in at the pace of a model of 7-8 billion parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import tempfile
import time

from lab.cluster import binaries
from lab.cluster.lab import Lab
from lab.engine.script import PHASES, Script
from lab.hub import Fault, Hub, Repository, small_model
from lab.world import World

MODEL = "acme/small-chat"
COLUMNS = (
    "READY:.status.conditions[?(@.type=='Ready')].status,"
    "REASON:.status.conditions[?(@.type=='Ready')].reason,"
    "MESSAGE:.status.conditions[?(@.type=='Ready')].message"
)


def main() -> int:
    """Run once and print."""
    parser = argparse.ArgumentParser(prog="python -m lab.life", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the model [200]")
    parser.add_argument("--download-seconds", type=float, default=60.0, help="how long it takes [60]")
    arguments = parser.parse_args()
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        asyncio.run(_life(lab, pathlib.Path(folder), arguments.megabytes * 10**6, arguments.download_seconds))
    return 0


async def _life(lab: Lab, folder: pathlib.Path, size: int, seconds: float) -> None:
    hub = Hub({MODEL: Repository(files=small_model(size, shards=4))})
    # Four files at a time, each on a connection of its own.
    hub.faults.append(Fault(at=("cdn",), bytes_per_second=size / seconds / 4))
    lab.nodes.behave("normal", component="fetch", fetch="real")
    lab.nodes.behave("normal", component="engine", engine=Script(phases=PHASES))
    async with World(lab, folder, hub=hub, operator={"flags": ["--no-leader-elect"]}) as world:
        await world.operator.start()
        watch = await asyncio.create_subprocess_exec(
            *(str(binaries.ensure() / "kubectl"), "--kubeconfig", str(lab.plane.kubeconfig)),
            *("-n", world.namespace, "get", "aisb", "--watch", "--output", f"custom-columns={COLUMNS}"),
            stdout=asyncio.subprocess.PIPE,
        )
        told = asyncio.create_task(_print(watch))
        await asyncio.sleep(1)
        await world.apply("demo", {"model": {"id": MODEL}})
        await world.until("demo", "Ready", timeout=seconds + sum(PHASES.values()) + 120)
        await asyncio.sleep(2)
        watch.terminate()
        await told


async def _print(watch: asyncio.subprocess.Process) -> None:
    """Each line that differs from the one before, with the second at which it came."""
    assert watch.stdout is not None
    began, before = time.monotonic(), b""
    async for line in watch.stdout:
        if line != before:
            sys.stdout.write(f"{time.monotonic() - began:5.0f} s  {line.decode()}")
            sys.stdout.flush()
        before = line


if __name__ == "__main__":
    sys.exit(main())
