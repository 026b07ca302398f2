"""`python -m lab.demo [--keep]`: from nothing to a finished show."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import pathlib
import signal
import sys
import tempfile

from lab.cluster import binaries
from lab.cluster.controlplane import StartError
from lab.cluster.lab import Lab
from lab.demo.show import Show
from lab.demo.stage import ClaimFailed, Stage
from lab.envoy import balancer, layout
from lab.world import World


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running and say what to try")
    arguments = parser.parse_args()
    stage = Stage()
    try:
        asyncio.run(_run(stage, keep=arguments.keep))
    except (ClaimFailed, AssertionError) as error:
        stage.console.print(f"\n[bold red]The demo failed:[/bold red] {error}", markup=True)
        return 1
    except (binaries.BuildError, StartError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _run(stage: Stage, *, keep: bool) -> None:
    stage.chapter(
        "AI Sandbox operator",
        "A real Kubernetes API server, scheduler and controller manager start on this machine, with fake\n"
        "nodes that have a GPU on paper, a simulator of Linode's API, and a stand-in for Linode's cloud\n"
        "controller manager, which turns Services into NodeBalancers. The operator is the real one, and so\n"
        "are the gateways.",
    )
    stage.say("starting …")
    with Lab(envoy=layout.binary() is not None) as lab, tempfile.TemporaryDirectory() as folder:
        flags = ["--linode-check-interval", "3"]
        if lab.loopback_prefix:
            flags += ["--nodebalancer-range", balancer.nodebalancer_range(lab.loopback_prefix)]
        else:
            stage.say("(there is no envoy beside this Python, so the gateways are stand-ins)")
        async with World(lab, pathlib.Path(folder), operator={"flags": flags}) as world:
            await world.operator.start()
            show = Show(world, stage)
            await show.play()
            stage.finish()
            if keep:
                await _keep(world, show, stage)


async def _keep(world: World, show: Show, stage: Stage) -> None:
    """Bring a sandbox back and wait for Ctrl-C."""
    await show.encore()
    kubeconfig = world.lab.plane.kubeconfig
    stage.chapter(
        "It stays up until Ctrl-C",
        f"export KUBECONFIG={kubeconfig}\n"
        f"kubectl config set-context --current --namespace={world.namespace}\n\n"
        "1. See who may come in, and change it:\n"
        "   kubectl get aisb mistral -o wide\n"
        "   kubectl edit aisb mistral            # spec.access.allowlist\n"
        "2. Vandalise the firewall as a person in the Cloud Manager could, and look again after 3 s:\n"
        f"   export LINODE_LAB_URL={world.linode.base} PYTHONPATH=tests\n"
        "   .venv/bin/python -m lab.linode show\n"
        "   .venv/bin/python -m lab.linode open-firewall $(kubectl get aisb mistral "
        "-o jsonpath='{.status.linode.firewallID}')\n"
        "3. Free the GPU and keep everything else:\n"
        '   kubectl patch aisb mistral --type=merge -p \'{"spec":{"lifecycle":{"state":"Suspended"}}}\'\n'
        "   kubectl get aisb,pods",
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with contextlib.suppress(asyncio.CancelledError):
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
