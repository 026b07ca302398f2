"""What the cloud controller manager reads from a Service: annotations, with its quirks. Pure.

Refused (the sync fails): a firewall id that is no integer, unknown protocols, algorithms, check types and
proxy protocols, unparsable `check-*` values. Booleans elsewhere: unparsable means false. A throttle that
is no number means 0. `check-passive` defaults to true, whatever the documentation says. Source: CCM
v0.9.8, cloud/annotations/annotations.go, cloud/linode/loadbalancers.go, loadbalancers_helpers.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lab.linode.errors import Json

PREFIX = "service.beta.kubernetes.io/linode-loadbalancer-"
NODE_PRIVATE_IP = "node.k8s.linode.com/private-ip"
MAX_THROTTLE = 20
PROTOCOLS = frozenset({"tcp", "udp", "http", "https"})
PROXY_PROTOCOLS = frozenset({"none", "v1", "v2"})
CHECKS = frozenset({"none", "connection", "http", "http_body"})
TCP_ALGORITHMS = frozenset({"roundrobin", "leastconn", "source"})
UDP_ALGORITHMS = frozenset({"roundrobin", "leastconn", "ring_hash"})
HTTP_STICKINESS = frozenset({"none", "table", "http_cookie"})
UDP_STICKINESS = frozenset({"none", "session", "source_ip"})
TYPES = frozenset({"common", "premium", "premium_40gb"})
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class SyncError(Exception):
    """The sync of one Service failed; the text goes into the event."""


def of(service: Mapping[str, Json]) -> dict[str, str]:
    """The annotations that concern the CCM, without their prefix."""
    found = service["metadata"].get("annotations") or {}
    return {k.removeprefix(PREFIX): v for k, v in found.items() if k.startswith(PREFIX)}


def lenient_bool(value: str | None) -> bool | None:
    """None if absent; anything that Go cannot parse is false."""
    return None if value is None else value in TRUE


def integer(value: str) -> int:
    """As Go's Atoi; the error text is what users see in the event."""
    text = value.removeprefix("+").removeprefix("-")
    if not (text.isascii() and text.isdigit()):
        raise SyncError(f'strconv.Atoi: parsing "{value}": invalid syntax')
    return int(value)


def throttle(annotations: Mapping[str, str]) -> int:
    try:
        return min(MAX_THROTTLE, max(0, integer(annotations.get("throttle", ""))))
    except SyncError:
        return 0


def tags(annotations: Mapping[str, str], cluster_name: str, flags: tuple[str, ...] = ()) -> list[str]:
    """Cluster name, flags, then the Service's comma list, untrimmed."""
    found = ([cluster_name] if cluster_name else []) + list(flags)
    return found + annotations["tags"].split(",") if "tags" in annotations else found


def nodebalancer_type(annotations: Mapping[str, str], default: str) -> str:
    wanted = annotations.get("nodebalancer-type", default).lower()
    return wanted if wanted in TYPES else default


@dataclass(frozen=True)
class PortConfig:
    port: int
    protocol: str
    proxy_protocol: str
    algorithm: str
    stickiness: str | None
    udp_check_port: int | None
    tls_secret: str


def _one_of(value: str, allowed: frozenset[str], what: str) -> str:
    if value.lower() not in allowed:
        raise SyncError(f'invalid {what}: "{value}" specified')
    return value.lower()


def _own(annotations: Mapping[str, str], port: int) -> dict[str, str]:
    raw = annotations.get(f"port-{port}")
    if raw is None:
        return {}
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise SyncError(f"invalid port configuration for {port}: {error}") from None
    if not isinstance(found, dict):
        raise SyncError(f"invalid port configuration for {port}")
    return {str(k): str(v) for k, v in found.items()}


def port_config(annotations: Mapping[str, str], port: Mapping[str, Json]) -> PortConfig:
    """Protocol, PROXY protocol, algorithm and stickiness of one port: own annotation, default, code."""
    own = _own(annotations, int(port["port"]))
    default_protocol = annotations.get("default-protocol", str(port.get("protocol", "TCP")))
    protocol = _one_of(own.get("protocol") or default_protocol, PROTOCOLS, "protocol")
    udp = protocol == "udp"
    proxy = own.get("proxy-protocol") or annotations.get("default-proxy-protocol", "none")
    proxy = _one_of(proxy, PROXY_PROTOCOLS, "NodeBalancer proxy protocol value")
    if udp and proxy != "none":
        raise SyncError(f"proxy protocol [{proxy}] is not supported for UDP")
    algorithm = own.get("algorithm") or annotations.get("default-algorithm", "roundrobin")
    algorithm = _one_of(algorithm, UDP_ALGORITHMS if udp else TCP_ALGORITHMS, "algorithm")
    stickiness = own.get("stickiness") or annotations.get("default-stickiness", "session" if udp else "table")
    check_port = own.get("udp-check-port") or annotations.get("udp-check-port", "80")
    return PortConfig(
        port=int(port["port"]),
        protocol=protocol,
        proxy_protocol=proxy,
        algorithm=algorithm,
        stickiness=None
        if protocol == "tcp"
        else _one_of(stickiness, UDP_STICKINESS if udp else HTTP_STICKINESS, "stickiness"),
        udp_check_port=integer(check_port) if udp else None,
        tls_secret=own.get("tls-secret-name", ""),
    )


def health_check(annotations: Mapping[str, str], service_protocol: str, protocol: str) -> dict[str, Json]:
    """The `check*` fields of a config, in the CCM's defaults."""
    default = "none" if service_protocol == "UDP" else "connection"
    kind = annotations.get("check-type", default)
    if kind not in CHECKS:
        raise SyncError(f'invalid health check type: "{kind}" specified in annotation: "{PREFIX}check-type"')
    passive = annotations.get("check-passive", "true")
    if protocol != "udp" and passive not in TRUE | FALSE:
        raise SyncError(f'strconv.ParseBool: parsing "{passive}": invalid syntax')
    fields: dict[str, Json] = {
        "check": kind,
        "check_interval": integer(annotations.get("check-interval", "5")),
        "check_attempts": integer(annotations.get("check-attempts", "2")),
        "check_timeout": integer(annotations.get("check-timeout", "3")),
        "check_passive": protocol != "udp" and passive in TRUE,
    }
    if kind in ("http", "http_body"):
        fields["check_path"] = annotations.get("check-path") or "/"
    if kind == "http_body":
        if not annotations.get("check-body"):
            raise SyncError(f"for health check type http_body need body regex annotation {PREFIX}check-body")
        fields["check_body"] = annotations["check-body"]
    return fields
