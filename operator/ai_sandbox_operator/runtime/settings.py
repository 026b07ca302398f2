"""Settings: each has a flag and an environment variable; a flag wins."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import math
import os
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import facts

ENVIRONMENT_PREFIX = "AI_SANDBOX_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `ai-sandbox-operator run`."""

    kubeconfig: str | None
    context: str | None
    namespaces: tuple[str, ...]
    cluster_id: str | None
    linode_url: str
    linode_token_file: str | None
    linode_check_interval: float
    attach_grace: float
    leak_grace: float
    resync_interval: float
    workers: int
    lease_namespace: str
    lease_name: str
    leader_elect: bool
    health_host: str
    health_port: int
    log_format: str
    log_level: str
    storage_class: str
    operator_namespace: str
    pod_proxy: str | None
    hub_endpoint: str
    hub_networks: tuple[str, ...]
    engine_update_patience: float
    nodebalancer_ranges: tuple[str, ...]
    pod_ranges: tuple[str, ...]
    dns_networks: tuple[str, ...]
    release: facts.Release


class _Collect(argparse.Action):
    """Like `append`, but the first use replaces the default instead of adding to it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        held = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if held is self.default else [*held, values])


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Declare every flag, with its environment variable named in the help text."""

    def option(group: argparse._ArgumentGroup, flag: str, default: Any, text: str, **options: Any) -> None:
        variable = ENVIRONMENT_PREFIX + flag.removeprefix("--").replace("-", "_").upper()
        # An empty variable is one that a manifest leaves open.
        value = environment.get(variable) or default
        shown = f" Default: {default}." if default not in (None, "", False) else ""
        if options.get("action") is _Collect:
            value = [part.strip() for part in str(value or "").split(",") if part.strip()]
        if variable in environment:
            _check(parser, variable, value, options)
        if options.get("action") is _Collect:
            value = [options.get("type", str)(part) for part in value]
        group.add_argument(flag, default=value, help=f"{text}{shown} [{variable}]", **options)

    cluster = parser.add_argument_group("Kubernetes")
    option(
        cluster,
        "--kubeconfig",
        environment.get("KUBECONFIG"),
        "Kubeconfig file. Absent: the pod's service account.",
    )
    option(cluster, "--context", None, "Context of the kubeconfig.")
    option(
        cluster,
        "--namespace",
        None,
        "Namespace to serve; may be repeated (comma-separated in the environment). Absent: all.",
        action=_Collect,
        dest="namespaces",
    )
    option(cluster, "--workers", "16", "Sandboxes that are worked on at the same time.", type=_positive)
    option(
        cluster,
        "--resync-interval",
        "300",
        "Seconds between two comparisons with the API server.",
        type=_seconds,
    )
    option(cluster, "--storage-class", "linode-block-storage", "StorageClass where a spec names none.")
    option(
        cluster,
        "--pod-range",
        "10.2.0.0/16",
        "Network of the cluster's pods; may be repeated.",
        action=_Collect,
        dest="pod_ranges",
        type=_network,
    )
    option(
        cluster,
        "--dns-network",
        None,
        "Network of resolvers that are no pods labelled kube-dns or coredns, such as a cache on each node, which "
        "sandboxes may then ask; may be repeated.",
        action=_Collect,
        dest="dns_networks",
        type=_network,
    )

    option(
        cluster,
        "--operator-namespace",
        environment.get("POD_NAMESPACE"),
        "Namespace of the operator's own pods, which gateways then let read their status port.",
    )
    option(
        cluster,
        "--pod-proxy",
        None,
        "HTTP proxy through which pods are reached, where the operator runs outside the cluster.",
    )
    option(
        cluster,
        "--hub-endpoint",
        environment.get("HF_ENDPOINT", ""),
        "Base URL of a mirror of the model hub, for the operator and the fetch Jobs. Absent: the public hub.",
        type=_endpoint,
    )
    option(
        cluster,
        "--hub-network",
        None,
        "Network of a mirror that is not on the internet, which fetch Jobs may then reach; may be repeated.",
        action=_Collect,
        dest="hub_networks",
        type=_network,
    )

    option(
        cluster,
        "--engine-update-patience",
        "600",
        "Seconds for which a changed engine's image that cannot be pulled, or its pod that no node takes, is waited "
        "for before the change is rolled back.",
        type=_seconds,
    )

    election = parser.add_argument_group("leader election")
    option(
        election, "--lease-namespace", environment.get("POD_NAMESPACE", "default"), "Namespace of the Lease."
    )
    option(election, "--lease-name", "ai-sandbox-operator", "Name of the Lease.")
    election.add_argument(
        "--no-leader-elect",
        action="store_true",
        help="Run without a Lease. Only where nothing else can run an operator on this cluster.",
    )

    linode = parser.add_argument_group("Linode")
    option(linode, "--linode-url", "https://api.linode.com/v4", "Base URL of Linode's API.")
    option(
        linode,
        "--linode-token-file",
        None,
        "File with the API token; read again when it changes. Absent: LINODE_TOKEN from the environment. "
        "Without any token, exposure NodeBalancer is refused and nothing is exposed.",
    )
    option(
        linode, "--linode-check-interval", "180", "Seconds between two checks of a firewall.", type=_seconds
    )
    option(
        linode,
        "--attach-grace",
        "20",
        "Seconds after which a firewall that the cloud controller manager did not attach is attached by the "
        "operator.",
        type=_seconds,
    )
    option(
        linode,
        "--leak-grace",
        "60",
        "Seconds after which a NodeBalancer that outlives its Service counts as leaked and is deleted.",
        type=_seconds,
    )
    option(
        linode,
        "--cluster-id",
        None,
        "Marks Linode objects of this cluster. Absent: UID of namespace kube-system.",
    )
    option(
        linode,
        "--nodebalancer-range",
        names.DEFAULT_NODEBALANCER_RANGE,
        "Network that NodeBalancers connect from; may be repeated.",
        action=_Collect,
        dest="nodebalancer_ranges",
        type=_network,
    )

    images = parser.add_argument_group("images")
    release = facts.Release()
    for field in dataclasses.fields(facts.Release):
        flag = "--" + field.name.replace("_", "-")
        option(
            images, flag, getattr(release, field.name), f"Image of the {field.name.removesuffix('_image')}."
        )

    service = parser.add_argument_group("health and logs")
    option(service, "--health-host", "0.0.0.0", "Address of /healthz, /readyz and /metrics.")  # noqa: S104
    option(
        service, "--health-port", "8080", "Port of /healthz, /readyz and /metrics; 0 chooses one.", type=_port
    )
    option(service, "--log-format", "json", "json or text.", choices=("json", "text"))
    option(
        service,
        "--log-level",
        "info",
        "debug, info, warning or error.",
        choices=("debug", "info", "warning", "error"),
    )


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed flags."""
    images = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(facts.Release)}
    return Settings(
        kubeconfig=arguments.kubeconfig or None,
        context=arguments.context or None,
        namespaces=tuple(arguments.namespaces or ()),
        cluster_id=arguments.cluster_id,
        linode_url=arguments.linode_url.rstrip("/"),
        linode_token_file=arguments.linode_token_file,
        linode_check_interval=arguments.linode_check_interval,
        attach_grace=arguments.attach_grace,
        leak_grace=arguments.leak_grace,
        resync_interval=arguments.resync_interval,
        workers=arguments.workers,
        lease_namespace=arguments.lease_namespace,
        lease_name=arguments.lease_name,
        leader_elect=not arguments.no_leader_elect,
        health_host=arguments.health_host,
        health_port=arguments.health_port,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
        storage_class=arguments.storage_class,
        operator_namespace=arguments.operator_namespace or "",
        pod_proxy=arguments.pod_proxy or None,
        hub_endpoint=arguments.hub_endpoint,
        hub_networks=tuple(arguments.hub_networks or ()),
        engine_update_patience=arguments.engine_update_patience,
        nodebalancer_ranges=tuple(arguments.nodebalancer_ranges),
        pod_ranges=tuple(arguments.pod_ranges),
        dns_networks=tuple(arguments.dns_networks or ()),
        release=facts.Release(**images),
    )


def _check(parser: argparse.ArgumentParser, variable: str, value: Any, options: Mapping[str, Any]) -> None:
    """End with a sentence on a bad environment variable; argparse itself would not look at its choices."""
    for part in value if isinstance(value, list) else [value]:
        try:
            options.get("type", str)(part)
        except (argparse.ArgumentTypeError, ValueError) as error:
            parser.error(f"environment variable {variable}: {error}")
        if part not in options.get("choices", (part,)):
            parser.error(f"environment variable {variable}: {part!r} must be {_either(options['choices'])}")


def _either(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _checked(convert: Callable[[str], Any], text: str, wanted: str) -> Any:
    try:
        return convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be {wanted}") from None


def _positive(text: str) -> int:
    value = int(_checked(int, text, "a whole number"))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(_checked(float, text, "a number of seconds"))
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0 seconds, and finite")
    return value


def _port(text: str) -> int:
    value = int(_checked(int, text, "a port number"))
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port number")
    return value


def _endpoint(text: str) -> str:
    """A base URL without credentials, which would end in every Job; empty for none."""
    url = urllib.parse.urlsplit(text)
    usable = (
        url.scheme in ("http", "https") and url.hostname and not (url.username or url.query or url.fragment)
    )
    if text and not usable:
        raise argparse.ArgumentTypeError(f"{text!r} must be a URL such as https://hub.example.com")
    return text.rstrip("/")


def _network(text: str) -> str:
    return str(_checked(ipaddress.ip_network, text, "a network such as 192.168.255.0/24, without host bits"))
