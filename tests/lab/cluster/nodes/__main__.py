"""Fake nodes as a process of their own.

    python -m lab.cluster.nodes --kubeconfig K --pool g2-gpu-rtx4000a1-m=1 --pool g6-standard-4=2

Prints `{"control": "http://127.0.0.1:PORT", "podProxy": ..., "loopback": "127.2"}` when the nodes take
pods, and ends when its standard input closes, so that it never outlives its owner.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import pathlib
import sys
import threading

from lab.cluster.nodes import plans
from lab.cluster.nodes.control import Control
from lab.cluster.nodes.lifecycle import Times
from lab.cluster.nodes.server import FakeNodes


def _pool(text: str) -> tuple[str, int]:
    """`PLAN` or `PLAN=COUNT`."""
    plan, _, count = text.partition("=")
    try:
        return plans.find(plan).name, int(count or 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> tuple[str, float]:
    """A field of `Times` and its value."""
    step, _, seconds = text.partition("=")
    if step not in Times.__dataclass_fields__:
        raise argparse.ArgumentTypeError(f"known are {', '.join(Times.__dataclass_fields__)}")
    return step, float(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.cluster.nodes", description="Fake nodes of an LKE cluster.")
    parser.add_argument("--kubeconfig", required=True, help="an administrator's, with a client certificate")
    parser.add_argument("--pool", action="append", default=[], type=_pool, metavar="PLAN[=COUNT]")
    parser.add_argument("--gpu-taint", action="store_true", help="taint the GPU pools nvidia.com/gpu")
    parser.add_argument("--control-port", type=int, default=0, help="of the control API; 0 takes a free one")
    parser.add_argument("--pods-per-node", type=int, default=110)
    parser.add_argument(
        "--envoy-folder", type=pathlib.Path, help="gateways run the real Envoy, with their files here"
    )
    parser.add_argument("--time", action="append", default=[], type=_time, metavar="STEP=SECONDS")
    return parser


async def _serve(arguments: argparse.Namespace) -> None:
    times = Times(**dict(arguments.time))
    pods = arguments.pods_per_node
    envoy_folder: pathlib.Path | None = arguments.envoy_folder
    async with FakeNodes(
        arguments.kubeconfig, times=times, pods_per_node=pods, envoy_folder=envoy_folder
    ) as nodes:
        for plan, count in arguments.pool:
            taint = arguments.gpu_taint and plans.find(plan).gpus > 0
            await nodes.add(plan, count=count, gpu_taint=taint)
        control = Control(nodes)
        url = await control.start(arguments.control_port)
        try:
            said = {
                "control": url,
                "podProxy": nodes.network.url,
                "loopback": nodes.workloads.prefix,
            }
            print(json.dumps(said), flush=True)
            await _closed_stdin()
        finally:
            await control.stop()


async def _closed_stdin() -> None:
    """Return when standard input ends; a thread reads it because it may be a file."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def read() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, daemon=True).start()
    await closed.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(_parser().parse_args()))
