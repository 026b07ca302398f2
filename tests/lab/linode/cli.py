"""Command line of the simulator: serve it, look at it, and edit it as a person would in the Cloud Manager.

Every subcommand but `serve` and `ccm` speaks to a running simulator's `/_lab` routes; its base address
comes from `--url` or from LINODE_LAB_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.linode.ccm import CloudControllerManager
from lab.linode.control import FAULT_FIELDS
from lab.linode.ratelimit import RateLimits
from lab.linode.server import LinodeSimulator

DEFAULT_URL = "http://127.0.0.1:8080"
EDITS = {
    "open-firewall": ("firewalls/{id}/vandalise", "open", "add a first rule that admits everybody"),
    "disable-firewall": ("firewalls/{id}/vandalise", "disable", "let everything pass"),
    "enable-firewall": ("firewalls/{id}/vandalise", "enable", "undo disable-firewall"),
    "delete-firewall": ("firewalls/{id}/vandalise", "delete", "delete it, attached or not"),
    "detach": ("nodebalancers/{id}", "detach", "leave a NodeBalancer without a firewall"),
    "delete-nodebalancer": ("nodebalancers/{id}", "delete", "delete a NodeBalancer"),
}


def call(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One control request; the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/_lab/{path}", data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def describe_rule(rule: Mapping[str, Any]) -> str:
    addresses = [*rule["addresses"].get("ipv4", []), *rule["addresses"].get("ipv6", [])]
    shown = ", ".join(addresses[:4]) + (f" and {len(addresses) - 4} more" if len(addresses) > 4 else "")
    return f"{rule['action']} {rule['protocol']} {rule.get('ports') or 'all ports'} from {shown}"


def show(state: Mapping[str, Any], console: Console) -> None:
    """Firewalls with their rules, NodeBalancers with their firewall."""
    firewalls = Table(
        "id", "label", "status", "inbound rules, then policy", "version", "attached to", title="Firewalls"
    )
    for firewall in state["firewalls"]:
        rules = firewall["rules"]
        lines = [describe_rule(rule) for rule in rules["inbound"] or []] + [f"else {rules['inbound_policy']}"]
        attached = ", ".join(f"{entity['type']} {entity['id']}" for entity in firewall["entities"])
        status = firewall["status"]
        firewalls.add_row(
            str(firewall["id"]),
            firewall["label"],
            status if status == "enabled" else f"[red]{status}[/red]",
            "\n".join(lines),
            str(rules["version"]),
            attached or "-",
        )
    console.print(firewalls)
    nodebalancers = Table("id", "label", "address", "ports", "firewall", "tags", title="NodeBalancers")
    for nb in state["nodebalancers"]:
        ports = ", ".join(f"{c['port']} ({len(c['nodes'])} nodes)" for c in nb["configs"])
        guard = ", ".join(map(str, nb["firewall_ids"])) or "[red]none: open[/red]"
        nodebalancers.add_row(str(nb["id"]), nb["label"], nb["ipv4"], ports, guard, ", ".join(nb["tags"]))
    console.print(nodebalancers)


def show_requests(answer: Mapping[str, Any], console: Console) -> None:
    table = Table("#", "token", "request", "status", "write", "fault", title="Requests")
    for entry in answer["requests"]:
        query = f"?{entry['query']}" if entry["query"] else ""
        table.add_row(
            str(entry["index"]),
            entry["token"] or "-",
            f"{entry['method']} {entry['path']}{query}",
            str(entry["status"] or "cut"),
            "yes" if entry["wrote"] else "",
            entry["fault"] or "",
        )
    console.print(table)


async def serve(port: int, limits: RateLimits) -> None:
    """Until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with LinodeSimulator(port=port, limits=limits) as sim:
        print(f"LINODE_URL={sim.url}", f"LINODE_LAB_URL={sim.base}", sep="\n", flush=True)
        await stop.wait()


async def run_ccm(arguments: argparse.Namespace) -> None:
    """The cloud controller manager's stand-in, until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with CloudControllerManager(
        kubeconfig=arguments.kubeconfig,
        linode_url=arguments.linode_url,
        token=arguments.token,
        cluster_name=arguments.cluster_name,
        region=arguments.region,
        ignore_firewall_annotation=arguments.ignore_firewall_annotation,
        creation_delay=arguments.creation_delay,
    ):
        print("synced", flush=True)
        await stop.wait()


def fault_body(pairs: Sequence[str]) -> dict[str, Any]:
    """`kind=status method=POST status=503` as a fault; values are JSON where they can be."""
    body: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            body[name] = json.loads(text)
        except ValueError:
            body[name] = text
        if name in ("retry_after", "maintenance", "path", "token"):
            body[name] = text
    return body


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lab.linode", description=__doc__)
    top.add_argument(
        "--url", default=os.environ.get("LINODE_LAB_URL", DEFAULT_URL), help="of a running simulator"
    )
    commands = top.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="run the simulator")
    serving.add_argument("--port", type=int, default=8080)
    serving.add_argument("--no-rate-limit", action="store_true")
    ccm = commands.add_parser("ccm", help="run the cloud controller manager's stand-in")
    ccm.add_argument("--kubeconfig", required=True)
    ccm.add_argument("--linode-url", default=os.environ.get("LINODE_URL", f"{DEFAULT_URL}/v4"))
    ccm.add_argument("--token", default=os.environ.get("LINODE_API_TOKEN", "ccm-token"))
    ccm.add_argument("--cluster-name", default="lke7")
    ccm.add_argument("--region", default="us-ord")
    ccm.add_argument("--ignore-firewall-annotation", action="store_true")
    ccm.add_argument("--creation-delay", type=float, default=0.0)
    commands.add_parser("show", help="firewalls and NodeBalancers as tables")
    requests = commands.add_parser("requests", help="the journal")
    requests.add_argument("--since", type=int, default=0)
    for name, (_, _, text) in EDITS.items():
        commands.add_parser(name, help=text).add_argument("id", type=int)
    fault = commands.add_parser(
        "fault", help="switch a fault on: NAME=VALUE ...; without arguments list them"
    )
    fault.add_argument("pairs", nargs="*", metavar="NAME=VALUE", help=", ".join(sorted(FAULT_FIELDS)))
    fault.add_argument("--clear", action="store_true")
    return top


def control(arguments: argparse.Namespace, console: Console) -> None:
    """One subcommand against a running simulator."""
    url, command = arguments.url, arguments.command
    if command == "show":
        show(call(url, "GET", "state"), console)
    elif command == "requests":
        show_requests(call(url, "GET", f"requests?since={arguments.since}"), console)
    elif command == "fault":
        if arguments.clear:
            call(url, "DELETE", "faults")
        if arguments.pairs:
            call(url, "POST", "faults", fault_body(arguments.pairs))
        console.print_json(data=call(url, "GET", "faults"))
    else:
        path, action, _ = EDITS[command]
        show(call(url, "POST", path.format(id=arguments.id), {"action": action}), console)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.command == "serve":
        asyncio.run(serve(arguments.port, RateLimits.off() if arguments.no_rate_limit else RateLimits()))
        return 0
    if arguments.command == "ccm":
        asyncio.run(run_ccm(arguments))
        return 0
    try:
        control(arguments, Console(width=None if sys.stdout.isatty() else 140))
    except urllib.error.HTTPError as error:
        print(f"refused: {error.read().decode()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"no simulator at {arguments.url}: {error}", file=sys.stderr)
        return 1
    return 0
