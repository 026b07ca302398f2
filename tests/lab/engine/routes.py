"""The paths that `vllm serve` has, by the kind of the model. Source: the log of vLLM 0.32.0's start."""

from __future__ import annotations

from collections.abc import Iterator

#: Always there.
_COMMON = (
    ("GET", "/load"),
    ("GET", "/version"),
    ("GET", "/kv_event_sources"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/v1/models"),
    ("GET", "/ping"),
    ("POST", "/ping"),
    ("POST", "/invocations"),
)
_DOCS = (("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/redoc"))
_GENERATE = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/batch"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/{response_id}"),
    ("POST", "/v1/responses/{response_id}/cancel"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/generative_scoring"),
    ("POST", "/scale_elastic_ep"),
    ("POST", "/is_scaling_elastic_ep"),
    ("POST", "/v1/chat/completions/render"),
    ("POST", "/v1/messages/render"),
    ("POST", "/v1/completions/render"),
    ("POST", "/v1/responses/render"),
    ("POST", "/v1/chat/completions/derender"),
    ("POST", "/v1/completions/derender"),
    ("POST", "/inference/v1/generate"),
    ("POST", "/inference/v1/abort_requests"),
)
_POOLING = (
    ("POST", "/pooling"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v2/embed"),
    ("POST", "/classify"),
    ("POST", "/score"),
    ("POST", "/v1/score"),
    ("POST", "/rerank"),
    ("POST", "/v1/rerank"),
    ("POST", "/v2/rerank"),
)


def listed(*, pooling: bool, docs: bool) -> Iterator[tuple[str, str]]:
    """Method and path of every route."""
    yield from _DOCS if docs else ()
    yield from _COMMON
    yield from _POOLING if pooling else _GENERATE
