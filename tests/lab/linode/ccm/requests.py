"""The bodies that the cloud controller manager sends, and the status it writes. Pure.

Source: CCM v0.9.8, cloud/linode/loadbalancers.go (buildLoadBalancerRequest, updateNodeBalancer,
makeLoadBalancerStatus); shapes as in `data/ccm-recordings.jsonl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.linode.ccm import annotations as ann
from lab.linode.ccm.annotations import SyncError
from lab.linode.errors import Json

# Fields that a rebuild copies from the answer to a config's creation.
REBUILD_FIELDS = (
    "port",
    "protocol",
    "proxy_protocol",
    "algorithm",
    "stickiness",
    "check",
    "check_interval",
    "check_attempts",
    "check_path",
    "check_body",
    "check_passive",
    "check_timeout",
    "udp_check_port",
)


def name_of(service: Mapping[str, Json]) -> str:
    return f"{service['metadata'].get('namespace', 'default')}/{service['metadata']['name']}"


def ports_of(service: Mapping[str, Json]) -> list[dict[str, Json]]:
    return list(service["spec"].get("ports") or [])


def backend_address(node: Mapping[str, Json]) -> str:
    """The address that the NodeBalancer dials: annotation, else the node's internal address."""
    annotated = (node["metadata"].get("annotations") or {}).get(ann.NODE_PRIVATE_IP)
    if annotated:
        return str(annotated)
    for address in node.get("status", {}).get("addresses") or []:
        if address["type"] == "InternalIP":
            return str(address["address"])
    raise SyncError(f"no internal IP found for node {node['metadata']['name']}")


def backend_label(name: str) -> str:
    """3 to 32 characters: padded with `node-`, or cut."""
    while len(name) < 3:
        name = f"node-{name}"
    return name[:32]


def config(annotations: Mapping[str, str], port: Mapping[str, Json]) -> dict[str, Json]:
    """One port of the Service as a NodeBalancer config, without nodes."""
    wanted = ann.port_config(annotations, port)
    body: dict[str, Json] = {
        "port": wanted.port,
        "protocol": wanted.protocol,
        "proxy_protocol": wanted.proxy_protocol,
        "algorithm": wanted.algorithm,
        **ann.health_check(annotations, str(port.get("protocol", "TCP")), wanted.protocol),
    }
    if wanted.stickiness is not None:
        body["stickiness"] = wanted.stickiness
    if wanted.udp_check_port is not None:
        body["udp_check_port"] = wanted.udp_check_port
    return body


def nodes(
    cluster_nodes: Sequence[Mapping[str, Json]],
    port: Mapping[str, Json],
    protocol: str,
    present: Mapping[str, int] | None = None,
) -> list[dict[str, Json]]:
    """Every node at the NodePort; `present` maps addresses to ids that are kept."""
    found: list[dict[str, Json]] = []
    for node in cluster_nodes:
        address = f"{backend_address(node)}:{port.get('nodePort', 0)}"
        body: dict[str, Json] = {
            "address": address,
            "label": backend_label(node["metadata"]["name"]),
            "weight": 100,
        }
        if protocol != "udp":
            body["mode"] = "accept"
        if present and address in present:
            body["id"] = present[address]
        found.append(body)
    return found


def create_body(
    service: Mapping[str, Json],
    cluster_nodes: Sequence[Mapping[str, Json]],
    *,
    label: str,
    region: str,
    tags: list[str],
    default_type: str,
    firewall_id: int | None,
    tls: Mapping[int, tuple[str, str]],
) -> dict[str, Json]:
    """The one POST that makes a NodeBalancer."""
    annotations = ann.of(service)
    configs = []
    for port in ports_of(service):
        made = with_tls(config(annotations, port), tls)
        made["nodes"] = nodes(cluster_nodes, port, made["protocol"])
        configs.append(made)
    body: dict[str, Json] = {
        "label": label,
        "region": region,
        "client_conn_throttle": ann.throttle(annotations),
        "configs": configs,
        "tags": tags,
        "type": ann.nodebalancer_type(annotations, default_type),
    }
    if firewall_id is not None:
        body["firewall_id"] = firewall_id
    if "reserved-ipv4" in annotations:
        body["ipv4"] = annotations["reserved-ipv4"]
    return body


def with_tls(body: dict[str, Json], tls: Mapping[int, tuple[str, str]]) -> dict[str, Json]:
    """Certificate and key of an https config."""
    if body["protocol"] == "https":
        body["ssl_cert"], body["ssl_key"] = tls[body["port"]]
    return body


def update_body(nodebalancer: Mapping[str, Json], **changes: Json) -> dict[str, Json]:
    """PUT of a NodeBalancer: always all four fields, one of them changed."""
    fields = ("label", "client_conn_throttle", "client_udp_sess_throttle", "tags")
    return {**{name: nodebalancer[name] for name in fields}, **changes}


def rebuild_of_created(created: Mapping[str, Json], own: Mapping[str, Json]) -> dict[str, Json]:
    """After a config's creation: the server's values, with the certificate that it redacts."""
    body = {name: created[name] for name in REBUILD_FIELDS if created.get(name) not in (None, "", 0)}
    return {**body, **{name: own[name] for name in ("ssl_cert", "ssl_key") if name in own}}


def status(
    service: Mapping[str, Json], nodebalancer: Mapping[str, Json], hostname_only_default: bool
) -> list[dict[str, str]]:
    """`status.loadBalancer.ingress`: address and host name, or the host name alone."""
    annotations = ann.of(service)
    hostname = {"hostname": nodebalancer["hostname"]}
    hostname_only = ann.lenient_bool(annotations.get("hostname-only-ingress"))
    if hostname_only if hostname_only is not None else hostname_only_default:
        return [hostname]
    ingress = [{**hostname, "ip": nodebalancer["ipv4"]}]
    if ann.lenient_bool(annotations.get("enable-ipv6-ingress")) and nodebalancer.get("ipv6"):
        ingress.append({**hostname, "ip": nodebalancer["ipv6"]})
    return ingress
