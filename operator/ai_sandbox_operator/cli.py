"""Command line: `ai-sandbox-operator run | fetch | orphans | version`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from . import __version__
from .runtime import settings


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Subcommands load only what they need: the fetch Job must not import a watch framework.
    match arguments[:1]:
        case ["fetch"]:
            from .fetch import main as fetch

            return fetch.main(arguments[1:])
        case _:
            pass
    parsed = parser().parse_args(arguments)
    from .runtime import main as runtime

    chosen = settings.from_arguments(parsed)
    return runtime.orphans(chosen) if parsed.command == "orphans" else runtime.run(chosen)


def parser(environment: Mapping[str, str] = os.environ) -> argparse.ArgumentParser:
    """All flags but those of `fetch`, which has a parser of its own."""
    made = argparse.ArgumentParser(
        prog="ai-sandbox-operator",
        description="Keeps AISandbox objects: private LLM sandboxes, closed by default, on Linode Kubernetes Engine.",
    )
    made.add_argument("--version", action="version", version=__version__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the operator, in a cluster or outside",
        description="Run the operator. Every flag can be given by the environment variable in brackets.",
    )
    settings.add_arguments(run, environment)
    orphans = commands.add_parser(
        "orphans",
        help="list Linode objects of sandboxes that are gone",
        description="List Cloud Firewalls and NodeBalancers that carry this operator's tags but belong to no "
        "living sandbox. Nothing is changed.",
    )
    settings.add_arguments(orphans, environment)
    commands.add_parser(
        "fetch", help="download a model into a volume (runs in the fetch Job)", add_help=False
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
