"""Envoy's configuration as files: listeners, clusters, bootstrap and certificate.

Everything is read from one directory, which the kubelet replaces by renaming `..data`; Envoy watches
that directory and reacts to the rename. What is read only at start is `envoy.json` alone.
Sources: Envoy docs/configuration/best_practices/edge, docs/configuration/operations/dynamic_configuration.
"""

from __future__ import annotations

import json
from typing import Any

from ai_sandbox_operator.api import names, v1alpha1

from . import access, chat, common, engine, envoy_listeners, envoy_routes
from .facts import Facts

Json = dict[str, Any]

TLS_PATH = "/tls"
BOOTSTRAP = "envoy.json"
ADMIN_PORT = 9901

#: Connections of all clients together; probes are not counted. More than the listeners allow in sum.
_MAX_CONNECTIONS = 4096
#: Below the container's memory limit: Envoy sheds load before the kernel ends it.
MAX_HEAP_BYTES = 900 * 1024 * 1024


def configuration(sandbox: v1alpha1.AISandbox, facts: Facts) -> tuple[str, dict[str, str]]:
    """The revision that the gateway will report, and every file of the configuration directory."""
    entries = envoy_routes.entries(sandbox)
    encrypted = access.tls_name(sandbox) is not None
    content: dict[str, Json] = {
        BOOTSTRAP: bootstrap(),
        "lds.json": _discovery(
            [
                *(envoy_listeners.listener(entry, encrypted=encrypted) for entry in entries),
                envoy_listeners.status_listener(),
            ]
        ),
        "cds.json": _discovery(_clusters(sandbox)),
    }
    revision, routes = envoy_routes.configurations(sandbox, facts)
    for file, routing in routes.items():
        content[file] = _discovery([routing], revision)
    if encrypted:
        content["sds.json"] = _discovery([_certificate()])
    texts = {
        name: json.dumps(value, separators=(",", ":"), sort_keys=True) for name, value in content.items()
    }
    return revision, texts


def bootstrap() -> Json:
    """What Envoy reads once. The same for every sandbox, so only a release restarts a gateway."""
    return {
        "node": {"id": "gateway", "cluster": "ai-sandbox"},
        # The admin port can stop Envoy and show keys: loopback only.
        "admin": {"address": envoy_listeners.address("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {
            "lds_config": envoy_listeners.source("lds.json"),
            "cds_config": envoy_listeners.source("cds.json"),
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "admin",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": _assignment("admin", "127.0.0.1", ADMIN_PORT),
                }
            ]
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                _monitor(
                    "global_downstream_max_connections",
                    "downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=_MAX_CONNECTIONS,
                ),
                _monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=MAX_HEAP_BYTES),
            ],
            "actions": [
                _action("shrink_heap", 0.90),
                _action("stop_accepting_requests", 0.97),
            ],
        },
    }


def _monitor(name: str, type_: str, **configuration: int) -> Json:
    type_url = f"{envoy_listeners.TYPE}envoy.extensions.resource_monitors.{type_}"
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {"@type": type_url, **configuration},
    }


def _action(name: str, share: float) -> Json:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def _discovery(resources: list[Json], version: str | None = None) -> Json:
    return {"version_info": version or common.fingerprint(resources), "resources": resources}


def _assignment(cluster: str, address: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": envoy_listeners.address(address, port)}}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _certificate() -> Json:
    return {
        "@type": envoy_listeners.TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "certificate",
        "tls_certificate": {
            "certificate_chain": {"filename": f"{TLS_PATH}/tls.crt"},
            "private_key": {"filename": f"{TLS_PATH}/tls.key"},
            # Certificate and key are read again together when the mounted Secret changes.
            "watched_directory": {"path": TLS_PATH},
        },
    }


def _clusters(sandbox: v1alpha1.AISandbox) -> list[Json]:
    clusters = [_cluster("engine", engine.service_name(sandbox), names.PORT_ENGINE)]
    if sandbox.spec.chat.enabled:
        clusters.append(_cluster("chat", chat.service_name(sandbox), names.PORT_OPEN_WEBUI))
    return clusters


def _cluster(name: str, host: str, port: int) -> Json:
    limits = {"max_connections": 1024, "max_pending_requests": 256, "max_requests": 1024, "max_retries": 3}
    return {
        "@type": envoy_listeners.TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        # The bare Service name: the pod's search list completes it, whatever the cluster's domain.
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": _assignment(name, host, port),
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": envoy_listeners.TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                # Below the servers' keep-alive of 5 s: the gateway closes first, or a request meets
                # a connection that is just being closed.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
