"""Envoy's listeners: two from outside behind the PROXY protocol, two from inside, one for status.

A listener says how a connection is read, never who is admitted: that is in its route configuration,
so that a listener stays the same for as long as the sandbox's shape does. Changing one drains its
connections. What Envoy itself answers is in envoy_replies.py.
Sources: Envoy docs/configuration/best_practices/edge, api/v3 http_connection_manager.proto.
"""

from __future__ import annotations

from typing import Any

from ai_sandbox_operator.api import names

from . import envoy_replies, envoy_routes

Json = dict[str, Any]

CONFIG_PATH = "/etc/envoy"
TYPE = "type.googleapis.com/"
#: Open connections of one listener: whoever uses up one leaves the others alone.
MAX_CONNECTIONS = 1000
_MANAGER = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_PORTS = {
    "external_api": names.PORT_GATEWAY_API,
    "external_chat": names.PORT_GATEWAY_CHAT,
    "internal_api": names.PORT_GATEWAY_INTERNAL_API,
    "internal_chat": names.PORT_GATEWAY_INTERNAL_CHAT,
}


def source(file: str) -> Json:
    """A file of the configuration directory as a source of resources.

    The kubelet replaces all files at once by renaming `..data`, and only afterwards makes the names of
    new files. The path goes through `..data`, so that a listener that comes with its route file finds it.
    """
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": f"{CONFIG_PATH}/..data/{file}",
            # The file itself never moves; the directory sees the rename.
            "watched_directory": {"path": CONFIG_PATH},
        },
    }


def address(host: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}


def listener(entry: envoy_routes.Entry, *, encrypted: bool) -> Json:
    """The listener of chat or API."""
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.connection_limit",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
                    "stat_prefix": entry.name,
                    "max_connections": MAX_CONNECTIONS,
                },
            },
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(entry),
            },
        ],
    }
    if encrypted:
        chain["transport_socket"] = _tls()
        # A client that never ends its handshake is not a client.
        chain["transport_socket_connect_timeout"] = "10s"
    result: Json = {
        "@type": TYPE + "envoy.config.listener.v3.Listener",
        "name": entry.name,
        # IPv4, as all of a cluster's Services are: a client's IPv4 address is never seen as mapped IPv6.
        "address": address("0.0.0.0", _PORTS[entry.name]),  # noqa: S104 - narrowed by NetworkPolicy
        "per_connection_buffer_limit_bytes": 1048576,
        "filter_chains": [chain],
    }
    if entry.external:
        # A connection without PROXY header, like the NodeBalancer's own check, is closed in silence.
        result["listener_filters_timeout"] = "5s"
        result["listener_filters"] = [
            {
                "name": "envoy.filters.listener.proxy_protocol",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                    "disallowed_versions": ["V1"],
                    "stat_prefix": entry.name,
                },
            }
        ]
    return result


def _connection_manager(entry: envoy_routes.Entry) -> Json:
    return {
        "@type": _MANAGER,
        "stat_prefix": entry.name,
        # The client's address is that of the connection or of the PROXY header, never of X-Forwarded-For.
        "use_remote_address": True,
        "xff_num_trusted_hops": 0,
        # No address is trusted with x-envoy-* headers, private ones included.
        "internal_address_config": {"unix_sockets": False},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        # For the whole request: prompts are small, documents for the chat are not. It ends with the
        # first byte of the answer, so it cuts neither a stream nor a WebSocket.
        "request_timeout": "120s" if entry.target == "API" else "1800s",
        "stream_idle_timeout": "300s",
        "max_request_headers_kb": 32,
        "common_http_protocol_options": {
            "idle_timeout": "600s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
        # Off unless a route turns it on.
        "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}],
        "rds": {"route_config_name": entry.name, "config_source": source(entry.file)},
        "http_filters": [
            {
                "name": "envoy.filters.http.rbac",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBAC",
                    # ALLOW without policies admits nobody: a route file without its own rules fails closed.
                    "rules": {"action": "ALLOW"},
                },
            },
            *([_rate_limit()] if entry.target == "API" else []),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
                    # Clients learn nothing of what is behind the gateway.
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "local_reply_config": {"mappers": envoy_replies.mappers(entry)},
        "access_log": [_access_log(entry)],
    }


def _rate_limit() -> Json:
    """Limits of keys. The buckets are in the route configuration, so that a listener never changes."""
    return {
        "name": envoy_routes.RATE_LIMIT,
        "typed_config": {"@type": envoy_routes.RATE_LIMIT_TYPE, "stat_prefix": "key"},
    }


def _access_log(entry: envoy_routes.Entry) -> Json:
    """One JSON line per request: who, what, with which key; never the key itself, nor a query string."""
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "listener": entry.name,
                    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ)%",
                    "route": "%ROUTE_NAME%",
                    "key": f"%METADATA(ROUTE:{envoy_routes.METADATA}:key)%",
                    "status": "%RESPONSE_CODE%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "duration_ms": "%DURATION%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "tls": "%DOWNSTREAM_TLS_VERSION%",
                }
            },
        },
    }


def _tls() -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [
                    {"name": "certificate", "sds_config": source("sds.json")}
                ],
            },
        },
    }


def status_listener() -> Json:
    """Readiness and statistics, nothing else of the admin interface, for kubelet and operator."""
    routes = [
        {"name": path, "match": {"path": path}, "route": {"cluster": "admin", "timeout": "5s"}}
        for path in ("/ready", "/stats/prometheus")
    ]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "status",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "5s",
        "route_config": {
            "name": "status",
            "virtual_hosts": [
                {
                    "name": "status",
                    "domains": ["*"],
                    "routes": [*routes, {"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                }
            ],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "@type": TYPE + "envoy.config.listener.v3.Listener",
        "name": "status",
        "address": address("0.0.0.0", names.PORT_GATEWAY_STATUS),  # noqa: S104 - narrowed by NetworkPolicy
        # A gateway at its limit is busy, not dead.
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
