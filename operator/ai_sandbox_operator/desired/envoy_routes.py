"""Envoy's routes: who may call what. The part of the gateway that changes while it runs.

Each listener has one route configuration file. It carries the allowlist, as a per-route override of
an access filter that by itself admits nobody, and for the API one route per key. A change of either
is one file that Envoy swaps between two requests, without a restart or a drained stream.

Order of judgement: address (403), then path (404), method (405), key (401). Keys are plain text in these
files, so they live in a Secret, and Envoy's admin port stays on the loopback address.
Sources: Envoy docs/configuration/http/http_filters/rbac_filter, api/v3 route_components.proto.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import v1alpha1

from . import allowlist
from .facts import Facts, split_keys

Json = dict[str, Any]

#: Every path of the API. All others, `/invocations` with its keyless inference among them, are 404.
API_PATHS = "/v1/(chat/completions|completions|embeddings|responses|messages|models)"
#: And every method.
API_METHODS = "GET|HEAD|POST"
#: Pods of the gateway. Two, so that one may be drained while the other serves.
REPLICAS = 2
#: The filter that limits requests by key, and the type of its configuration.
RATE_LIMIT = "envoy.filters.http.local_ratelimit"
RATE_LIMIT_TYPE = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
#: Namespace of the routes' metadata; the access log reads the name of the key there.
METADATA = "sandbox.linode.com"
#: What a usable key looks like: nothing in it needs escaping but `.` and `+`, and it cannot be guessed.
_USABLE_KEY = re.compile(r"[A-Za-z0-9_.~+/=-]{16,512}")
#: Headers by which a client could pass for another one, or learn of the engine's own key.
_CREDENTIALS = ["authorization", "x-api-key", "api-key", "proxy-authorization"]
_FORWARDING = ["forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server", "x-real-ip"]
#: A prefill may be silent for minutes.
_IDLE, _SOCKET_IDLE = "900s", "3600s"
#: Admission is judged when a WebSocket opens. After this time it must be opened, and judged, again.
SOCKET_DURATION = "3600s"
#: Escaped control characters have no place in a path of the chat, and its router takes a line feed at
#: the end for the end, so that a hidden path followed by one would not be hidden.
_CONTROL = "(?i).*%([01][0-9a-f]|7f).*"
#: Paths of the chat for its probes and its developers, with all below them. And the one at which Open WebUI
#: makes the first visitor its administrator, whatever its settings say, when it has not made one by itself.
_CHAT_HIDDEN = (
    "/health",
    "/ready",
    "/metrics",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/api/v1/auths/signup",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One listener: what it leads to, and from where."""

    target: v1alpha1.Target
    external: bool

    @property
    def name(self) -> str:
        """Name of the listener, of its route configuration and of its statistics."""
        return f"{'external' if self.external else 'internal'}_{self.target.lower()}"

    @property
    def file(self) -> str:
        """File with its route configuration."""
        return f"rds-{self.name.replace('_', '-')}.json"


_TARGETS: tuple[v1alpha1.Target, ...] = ("API", "Chat")
#: Every listener that a gateway can have.
ENTRIES = tuple(Entry(target, external) for external in (True, False) for target in _TARGETS)


def entries(sandbox: v1alpha1.AISandbox) -> list[Entry]:
    """The listeners that the sandbox needs; without a NodeBalancer nothing speaks PROXY protocol."""
    exposed = sandbox.spec.access.exposure == "NodeBalancer"
    return [
        entry
        for entry in ENTRIES
        if (exposed or not entry.external) and (sandbox.spec.chat.enabled or entry.target == "API")
    ]


def usable_key(value: str) -> bool:
    """Whether a key admits anybody: printable without spaces, and at least 16 characters."""
    return _USABLE_KEY.fullmatch(value) is not None


def configurations(sandbox: v1alpha1.AISandbox, facts: Facts) -> tuple[str, dict[str, Json]]:
    """The revision that names exactly these route configurations, and they by file.

    Envoy reports the revision in `rds.<name>.version_text`.

    A listener that goes is drained for minutes, and requests on its open connections are judged all
    that time. So the configuration of a listener that is not wanted is written too, and admits nobody.

    The revision is the access revision, then a fingerprint of everything that is served. It is keyed
    with the engine's key, because statistics are no secret and a key that a user chose may be guessable.
    """
    wanted = entries(sandbox)
    routes = {
        entry.file: _route_configuration(
            entry, [_virtual_host(entry, sandbox, facts)] if entry in wanted else []
        )
        for entry in ENTRIES
    }
    served = json.dumps(routes, sort_keys=True).encode()
    digest = hmac.new(facts.material.engine_key.encode(), served, hashlib.sha256).hexdigest()
    return f"{allowlist.access_revision(sandbox)}-{digest[:12]}", routes


def _route_configuration(entry: Entry, virtual_hosts: Sequence[Json]) -> Json:
    """The route configuration of one listener. Without a virtual host its access filter admits nobody."""
    routing: Json = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": entry.name,
    }
    return routing | ({"virtual_hosts": [*virtual_hosts]} if virtual_hosts else {})


def _virtual_host(entry: Entry, sandbox: v1alpha1.AISandbox, facts: Facts) -> Json:
    """Who is admitted, and what to."""
    shares = _shares(sandbox) if entry.target == "API" else {}
    return {
        "name": entry.name,
        "domains": ["*"],
        "typed_per_filter_config": {
            "envoy.filters.http.rbac": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                "rbac": {"rules": _rules(entry, sandbox, facts)},
            },
            **_limits(shares),
        },
        "routes": _api_routes(sandbox, facts, shares) if entry.target == "API" else _chat_routes(),
    }


def error(message: str, kind: str, code: str) -> Json:
    """A body in the form that clients of the OpenAI API understand."""
    return {"json_format": {"error": {"message": message, "type": kind, "param": None, "code": code}}}


def _rules(entry: Entry, sandbox: v1alpha1.AISandbox, facts: Facts) -> Json:
    """Who is admitted. ALLOW without policies admits nobody."""
    access = sandbox.spec.access
    clients = _addresses("remote_ip", allowlist.networks(access, entry.target))
    if entry.external:
        # Anybody who reaches the pod can write a PROXY header, so both the address in the header
        # and the peer that wrote it must be right.
        balancers = _addresses("direct_remote_ip", allowlist.collapse(facts.nodebalancer_ranges))
        both = {"and_ids": {"ids": [_any(balancers), _any(clients)]}} if clients and balancers else None
        principals = [both] if both else []
    else:
        # Pods are selected by label, which only the NetworkPolicy can see: when there are such
        # clients, the gateway admits all pod addresses and relies on the policy for the choice.
        pods = facts.pod_ranges if allowlist.peers(access, entry.target) else ()
        principals = [*clients, *_addresses("remote_ip", allowlist.collapse(pods))]
    if not principals:
        return {"action": "ALLOW"}
    return {
        "action": "ALLOW",
        "policies": {"allowlist": {"permissions": [{"any": True}], "principals": principals}},
    }


def _addresses(field: str, networks: Iterable[allowlist.Network]) -> list[Json]:
    return [
        {field: {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}}
        for network in networks
    ]


def _any(principals: Sequence[Json]) -> Json:
    return {"or_ids": {"ids": list(principals)}}


def _keys(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[tuple[str, str]]:
    """Name and value of the keys that admit somebody. Nameless values of the Secret do not count."""
    values: Mapping[str, str] = facts.material.api_keys
    wanted = sorted({key.name for key in sandbox.spec.access.api_keys})
    found = ((name, value) for name in wanted for value in split_keys(values.get(name, "")))
    return [(name, value) for name, value in found if usable_key(value)]


def _shares(sandbox: v1alpha1.AISandbox) -> dict[str, int]:
    """Requests per minute that one gateway pod gives to each key with a limit.

    Each pod counts for itself, so each gives its share; both together never give more than the limit,
    rounded up.
    """
    return {
        key.name: math.ceil(key.requests_per_minute / REPLICAS)
        for key in sandbox.spec.access.api_keys
        if key.requests_per_minute is not None
    }


def _limits(shares: Mapping[str, int]) -> Json:
    """Buckets of the keys that have a limit, filled steadily."""
    if not shares:
        return {}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        RATE_LIMIT: {
            "@type": RATE_LIMIT_TYPE,
            "stat_prefix": "key",
            "filter_enabled": always,
            "filter_enforced": always,
            # Required by Envoy, and drawn on by requests without a limited key: without effect.
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "always_consume_default_token_bucket": False,
            "descriptors": [
                {
                    "entries": [{"key": "key", "value": name}],
                    "token_bucket": {
                        "max_tokens": share,
                        "tokens_per_fill": share,
                        "fill_interval": "60s",
                    },
                }
                for name, share in sorted(shares.items())
            ],
        }
    }


def _api_routes(sandbox: v1alpha1.AISandbox, facts: Facts, shares: Mapping[str, int]) -> list[Json]:
    path: Json = {"safe_regex": {"regex": API_PATHS}}
    forward: Json = {
        "route": {
            "cluster": "engine",
            "timeout": "0s",
            "idle_timeout": _IDLE,
            # Whatever the client calls the gateway, the engine has one name.
            "host_rewrite_literal": "engine",
        },
        "request_headers_to_remove": [*_CREDENTIALS, *_FORWARDING, "cookie"],
        # The engine has a key of its own; the client's never leaves the gateway.
        "request_headers_to_add": [_overwrite("authorization", f"Bearer {facts.material.engine_key}")],
    }
    routes: list[Json] = []
    for name, value in _keys(sandbox, facts):
        descriptor = {"generic_key": {"descriptor_key": "key", "descriptor_value": name}}
        draws = {"rate_limits": [{"actions": [descriptor]}]} if name in shares else {}
        bearer = {"safe_regex": {"regex": f"(?i:bearer) {re.escape(value)}"}}
        for header, match in (("authorization", bearer), ("x-api-key", {"exact": value})):
            # The name of the route is the name of the key in the access log.
            routes.append(
                {
                    "name": f"key:{name}",
                    "match": {**path, "headers": [{"name": header, "string_match": match}]},
                    "metadata": {"filter_metadata": {METADATA: {"key": name}}},
                    **forward,
                    "route": {**forward["route"], **draws},
                }
            )
    unauthorized = error("Missing or invalid API key.", "invalid_request_error", "invalid_api_key")
    methods = {
        "name": ":method",
        "string_match": {"safe_regex": {"regex": API_METHODS}},
        "invert_match": True,
    }
    return [
        {
            # TRACE, for one, would show the engine's key to the client.
            "name": "method",
            "match": {**path, "headers": [methods]},
            "direct_response": {
                "status": 405,
                "body_format": error("Method not allowed.", "invalid_request_error", "method_not_allowed"),
            },
            "response_headers_to_add": [_overwrite("allow", API_METHODS.replace("|", ", "))],
        },
        *routes,
        {
            "name": "no-key",
            "match": path,
            "direct_response": {"status": 401, "body_format": unauthorized},
            "response_headers_to_add": [_overwrite("www-authenticate", "Bearer")],
        },
        _not_found("other", {"prefix": "/"}),
    ]


def _chat_routes() -> list[Json]:
    shared: Json = {
        "request_headers_to_remove": _FORWARDING,
        # The chat's own log and limits must see the client as the gateway does, not as it claims.
        "request_headers_to_add": [
            _overwrite("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", raw=True)
        ],
    }
    return [
        _not_found("control", {"safe_regex": {"regex": _CONTROL}}),
        {
            "name": "socket",
            "match": {"path_separated_prefix": "/ws/socket.io"},
            "route": {
                "cluster": "chat",
                "timeout": "0s",
                "idle_timeout": _SOCKET_IDLE,
                "max_stream_duration": {"max_stream_duration": SOCKET_DURATION},
                "upgrade_configs": [{"upgrade_type": "websocket", "enabled": True}],
            },
            **shared,
        },
        *(_not_found("hidden", {"path_separated_prefix": path}) for path in _CHAT_HIDDEN),
        {
            "name": "chat",
            "match": {"prefix": "/"},
            "route": {"cluster": "chat", "timeout": "0s", "idle_timeout": _IDLE},
            **shared,
        },
    ]


def _not_found(name: str, match: Json) -> Json:
    body = error("Unknown path.", "invalid_request_error", "not_found")
    return {"name": name, "match": match, "direct_response": {"status": 404, "body_format": body}}


def _overwrite(header: str, value: str, *, raw: bool = False) -> Json:
    """Set a header. `%` begins a command in Envoy's format, unless doubled."""
    text = value if raw else value.replace("%", "%%")
    return {"header": {"key": header, "value": text}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
