"""`python -m lab build | up`: the lab from the command line.

build    build the control plane's programs, once
up       start control plane, fake nodes and the Linode simulator, and stay until Ctrl-C
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Sequence

from lab.cluster import binaries
from lab.cluster.controlplane import StartError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__, formatter_class=_Plain)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the control plane's programs, once")
    up = commands.add_parser("up", help="start everything and stay until Ctrl-C")
    up.add_argument("--json", action="store_true", help="print one line of JSON instead of text")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "build":
            binaries.ensure()
            return 0
        return _up(as_json=arguments.json)
    except (binaries.BuildError, StartError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _up(*, as_json: bool) -> int:
    # Imported here: `build` must work before the rest of the lab can.
    from lab.cluster.lab import Lab
    from lab.linode import LinodeSimulatorThread

    with Lab() as lab, LinodeSimulatorThread() as linode:
        facts = {
            "kubeconfig": str(lab.plane.kubeconfig),
            "linode": linode.url,
            "nodes": lab.nodes.url,
        }
        if as_json:
            print(json.dumps(facts), flush=True)
        else:
            print(_HINTS.format(**facts), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description."""


_HINTS = """The lab is up. In another terminal:

  export KUBECONFIG={kubeconfig}
  kubectl get nodes -L node.kubernetes.io/instance-type
  LINODE_TOKEN=operator-token ai-sandbox-operator run --linode-url {linode} --log-format text
  kubectl apply -f manifests/samples/mistral.yaml

Ctrl-C ends it."""

if __name__ == "__main__":
    sys.exit(main())
