"""`python -m lab build | up | nodes | behaviour`: the lab from the command line.

build       build the control plane's programs, once
up          start control plane, fake nodes and the Linode simulator, and stay until Ctrl-C
nodes       list, add and remove fake nodes of a running lab
behaviour   say what the pods of a running lab do

The running lab of `nodes` and `behaviour` comes from `--url` or from NODES_LAB_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, get_args

from lab.cluster import binaries
from lab.cluster.controlplane import StartError
from lab.cluster.nodes.behaviour import Kind
from lab.cluster.nodes.client import ControlError, NodesClient

_SELECTORS = ("component", "namespace", "sandbox", "prefix")
_TEXTS = ("message", "log", "previous_log")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        match arguments.command:
            case "build":
                binaries.ensure()
            case "up":
                _up(as_json=arguments.json)
            case "nodes":
                _nodes(_client(arguments), arguments)
            case "behaviour":
                _behaviour(_client(arguments), arguments)
    except (binaries.BuildError, StartError, ControlError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__, formatter_class=_Plain)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the control plane's programs, once")
    up = commands.add_parser("up", help="start everything and stay until Ctrl-C")
    up.add_argument("--json", action="store_true", help="print one line of JSON instead of text")

    nodes = commands.add_parser("nodes", help="list, add and remove fake nodes")
    behaviour = commands.add_parser("behaviour", help="say what pods do")
    for command in (nodes, behaviour):
        command.add_argument("--url", default=os.environ.get("NODES_LAB_URL"), help="of the fake nodes")

    verbs = nodes.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every node, its plan and how many pods it has")
    add = verbs.add_parser("add", help="add nodes of a plan; prints their names")
    add.add_argument("plan", help="such as g2-gpu-rtx4000a1-s or g6-standard-4")
    add.add_argument("--count", type=int, default=1)
    add.add_argument("--gpu-taint", action="store_true", help="taint them nvidia.com/gpu=true:NoSchedule")
    verbs.add_parser("remove", help="remove a node and its pods").add_argument("name")

    verbs = behaviour.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the rules in force; the last that matches a pod wins")
    rule = verbs.add_parser("set", help="add a rule; prints its id")
    rule.add_argument("kind", choices=get_args(Kind))
    for name in (*_SELECTORS, *_TEXTS):
        rule.add_argument(f"--{name.replace('_', '-')}")
    rule.add_argument("--seconds", type=float, help="until ready, or until the end")
    rule.add_argument("--exit-code", type=int)
    verbs.add_parser("forget", help="remove one rule, or all").add_argument("id", type=int, nargs="?")
    return parser


def _client(arguments: argparse.Namespace) -> NodesClient:
    if not arguments.url:
        raise ControlError("which lab? give --url or NODES_LAB_URL, as `python -m lab up` prints it")
    return NodesClient(arguments.url)


def _nodes(client: NodesClient, arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "list":
            for node in client.nodes():
                print(f"{node['name']}\t{node['plan']}\t{node['internal_ip']}\t{node['pods']} pods")
        case "add":
            names = client.add(arguments.plan, arguments.count, gpu_taint=arguments.gpu_taint)
            print("\n".join(names))
        case "remove":
            client.remove(arguments.name)


def _behaviour(client: NodesClient, arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "list":
            for rule in client.behaviours():
                print(json.dumps(rule))
        case "set":
            said: dict[str, Any] = {
                name: value
                for name in (*_SELECTORS, *_TEXTS, "seconds", "exit_code")
                if (value := getattr(arguments, name)) is not None
            }
            print(client.behave(arguments.kind, **said))
        case "forget":
            client.forget(arguments.id)


def _up(*, as_json: bool) -> None:
    # Imported here: `build` must work before the rest of the lab can.
    from lab.cluster.lab import Lab
    from lab.linode import LinodeSimulatorThread

    # SIGTERM ends it as Ctrl-C does: by an exception, so that every part is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Lab() as lab, LinodeSimulatorThread() as linode:
        facts = {
            "kubeconfig": str(lab.plane.kubeconfig),
            "linode": linode.url,
            "nodes": lab.nodes.url,
        }
        if as_json:
            print(json.dumps(facts), flush=True)
        else:
            print(_HINTS.format(**facts, programs=binaries.ensure()), flush=True)
        while True:
            signal.pause()


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description."""


_HINTS = """The lab is up. In another terminal:

  export PATH=$PATH:{programs} PYTHONPATH=tests KUBECONFIG={kubeconfig}
  kubectl get nodes -L node.kubernetes.io/instance-type
  LINODE_TOKEN=operator-token ai-sandbox-operator run --linode-url {linode} --log-format text
  kubectl apply -f manifests/samples/mistral.yaml

What its nodes and their pods do:

  export NODES_LAB_URL={nodes}
  python -m lab nodes add g2-gpu-rtx4000a1-s
  python -m lab behaviour set crash --component engine --exit-code 3
  python -m lab behaviour forget

Ctrl-C ends it."""

if __name__ == "__main__":
    sys.exit(main())
