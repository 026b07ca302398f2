"""`python -m lab.node prepare | check | run COMMAND...`: what a node needs, and a command in its namespace."""

from __future__ import annotations

import argparse
import sys

from chart import helm
from lab.cluster import binaries
from lab.node import images, needs, space, tools


def main() -> int:
    """Exit code of the command, or 1 with a sentence on what is missing."""
    parser = argparse.ArgumentParser(prog="python -m lab.node", description=__doc__)
    orders = parser.add_subparsers(dest="order", required=True)
    orders.add_parser("check", help="say what is missing")
    orders.add_parser("prepare", help="install Debian packages, build programs and images (root)")
    run = orders.add_parser("run", help="run a command inside; prepares programs and images first")
    run.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        if options.order == "check":
            needs.require()
            return 0
        if options.order == "prepare":
            needs.install()
        needs.require()
        prepare()
        return space.run(options.command) if options.order == "run" else 0
    except (needs.Unavailable, binaries.BuildError, helm.Missing) as error:
        print(f"tests/node cannot run: {error}", file=sys.stderr)
        return 1


def prepare() -> None:
    """Everything that comes from the network or takes long."""
    binaries.ensure()
    helm.ensure(helm.HELM_4)
    images.ensure(tools.ensure()["coredns"], lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    sys.exit(main())
