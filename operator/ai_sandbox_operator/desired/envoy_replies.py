"""Bodies of what Envoy itself answers, in the form that clients of the OpenAI API understand.

They are chosen by status. Answers of engine and chat are never touched; 401 and 404 are routes with
bodies of their own (envoy_routes.py).
Source: Envoy docs/configuration/http/http_conn_man/local_reply.
"""

from __future__ import annotations

from typing import Any

from . import envoy_routes

Json = dict[str, Any]

#: Seconds after which a client may try again: a starting engine takes minutes, a bucket refills steadily.
_RETRY_ENGINE, _RETRY_LIMIT = "30", "10"


def mappers(entry: envoy_routes.Entry) -> list[Json]:
    """Bodies by status, the first that fits wins."""
    what = "model" if entry.target == "API" else "chat"
    request, server = "invalid_request_error", "server_error"
    return [
        _mapper(
            {"and_filter": {"filters": [_status_is(403), _upgrade()]}},
            "Your address is not on the allowlist of this sandbox, or this path takes no WebSocket.",
            request,
            "not_allowed",
        ),
        _mapper(
            _status_is(403),
            "Your address is not on the allowlist of this sandbox.",
            request,
            "ip_not_allowed",
        ),
        _mapper(_status_is(408), "The request did not arrive in time.", request, "request_timeout"),
        _mapper(
            _status_is(429),
            "This key has used up its requests per minute.",
            "rate_limit_error",
            "rate_limit_exceeded",
            retry_after=_RETRY_LIMIT,
        ),
        _mapper(_status_is(431), "The headers of the request are too large.", request, "headers_too_large"),
        _mapper(_status_is(503), f"The {what} is not ready.", server, "not_ready", retry_after=_RETRY_ENGINE),
        _mapper(_status_is(504), f"The {what} did not answer in time.", server, "timeout"),
        # The details are Envoy's own words, such as http1.codec_error; they hold nothing of the request.
        _mapper(
            _status_is(400), "The request is malformed (%RESPONSE_CODE_DETAILS%).", request, "bad_request"
        ),
    ]


def _mapper(chosen: Json, message: str, kind: str, code: str, *, retry_after: str = "") -> Json:
    result: Json = {"filter": chosen, "body_format_override": envoy_routes.error(message, kind, code)}
    if retry_after:
        header = {"key": "retry-after", "value": retry_after}
        result["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return result


def _status_is(code: int) -> Json:
    value = {"default_value": code, "runtime_key": f"unused.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _upgrade() -> Json:
    return {"header_filter": {"header": {"name": "upgrade", "present_match": True}}}
