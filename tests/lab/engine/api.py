"""The HTTP side of one engine: routing, key, access log, errors, in the order of the real server.

It answers requests of any aiohttp server, so that one process can stand for hundreds of engines.
"""

from __future__ import annotations

import hashlib
import http
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lab.engine import bodies, requests, routes, startup, tokens
from lab.engine.engine import Engine
from lab.engine.generating import GENERATING, POOLING, generate
from lab.engine.requests import Invalid

#: Only these prefixes are behind the key. Source: vllm serve/middleware/authenticate.py.
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
#: Not counted by the web server's metrics.
_UNCOUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})


class Api:
    """Answers for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        arguments = engine.arguments
        self._keys = [hashlib.sha256(key.encode()).digest() for key in arguments.api_keys]
        self._routes: dict[str, set[str]] = {}
        for method, path in routes.listed(pooling=arguments.pooling, docs=arguments.docs):
            self._routes.setdefault(path, set()).add(method)
        self._load = 0

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """The answer to one request; `path` has no query."""
        began = time.monotonic()
        response = await self._route(request, path)
        arguments = self._engine.arguments
        if arguments.access_log and path not in arguments.quiet_paths:
            self._engine.say(self._access(request, path, response.status))
        if path not in _UNCOUNTED:
            handler = path if path in self._routes else "none"
            sizes = (request.content_length or 0, response.content_length or 0)
            seconds = time.monotonic() - began
            self._engine.metrics.http(handler, request.method, response.status, seconds, sizes)
        return response

    async def _route(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if self._guarded(path) and request.method != "OPTIONS" and not self._with_key(request):
            return _json({"error": "Unauthorized"}, 401)
        methods = self._routes.get(path)
        if methods is None:
            return _json({"detail": "Not Found"}, 404)
        if request.method not in methods:
            return _json({"detail": "Method Not Allowed"}, 405)
        try:
            if request.method == "GET":
                return self._get(path)
            return await self._post(request, path)
        except Invalid as error:
            return _refusal(path, error)

    def _guarded(self, path: str) -> bool:
        return bool(self._keys) and path.startswith(_GUARDED)

    def _with_key(self, request: web.BaseRequest) -> bool:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = hashlib.sha256(key.encode()).digest()
        return scheme.lower() == "bearer" and any(
            secrets.compare_digest(given, known) for known in self._keys
        )

    def _get(self, path: str) -> web.Response:
        engine = self._engine
        match path:
            case "/health" | "/ping":
                return web.Response(status=503 if engine.dead else 200)
            case "/version":
                return _json({"version": startup.VERSION})
            case "/load":
                return _json({"server_load": self._load})
            case "/metrics":
                return web.Response(text=engine.metrics.text(), content_type="text/plain")
            case "/v1/models":
                head, limits = engine.head(""), engine.limits
                root = engine.arguments.model
                return _json(
                    bodies.models(limits.names, root, limits.max_model_len, head.created, head.ident)
                )
            case "/docs" | "/redoc":
                return web.Response(text="<title>FastAPI</title>", content_type="text/html")
            case _:
                return _json({})

    async def _post(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path == "/ping":
            return self._get(path)
        if path == "/is_scaling_elastic_ep":
            return _json({"is_scaling_elastic_ep": False})
        body = await _body(request)
        if path == "/invocations":
            path = self._invoked(body)
        if path in (POOLING if self._engine.arguments.pooling else GENERATING):
            self._load += self._engine.arguments.load_tracking
            try:
                return await generate(self._engine, request, path, body)
            finally:
                self._load -= self._engine.arguments.load_tracking
        return _json(self._other(path, body))

    def _invoked(self, body: Mapping[str, Any]) -> str:
        """The endpoint that a request to `/invocations` means, by its fields. It is never behind the key."""
        if self._engine.arguments.pooling:
            return "/v1/embeddings"
        return "/v1/chat/completions" if "messages" in body else "/v1/completions"

    def _other(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        limits = self._engine.limits
        match path:
            case "/tokenize":
                requests.check_model(body, limits)
                if "messages" not in body:
                    requests.missing(body, "prompt")
                text = requests.chat_prompt(body["messages"])[0] if "messages" in body else body["prompt"]
                ids = tokens.encode(text)
                size = {"count": len(ids), "max_model_len": limits.max_model_len}
                return size | {"tokens": ids, "token_strs": None}
            case "/detokenize":
                requests.check_model(body, limits)
                requests.missing(body, "tokens")
                return {"prompt": tokens.decode(body["tokens"])}
            case "/generative_scoring":
                requests.missing(body, "query", "items", "label_token_ids")
            case "/scale_elastic_ep":
                message = "new_data_parallel_size is required"
                if "new_data_parallel_size" not in body:
                    raise Invalid(message, kind="Bad Request")
            case "/v1/messages/count_tokens":
                requests.missing(body, "model", "messages")
                return {"input_tokens": len(tokens.split(requests.chat_prompt(body["messages"])[0]))}
        message = f"The stand-in for the engine does not imitate {path}."
        raise Invalid(message, status=501, kind="NotImplementedError")

    def _access(self, request: web.BaseRequest, path: str, status: int) -> str:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        client = f"{peer[0]}:{peer[1]}" if peer else "-"
        phrase = http.HTTPStatus(status).phrase
        return f'INFO:     {client} - "{request.method} {path} HTTP/1.1" {status} {phrase}'


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    """The JSON object of the request.

    Raises:
        Invalid: it is none.
    """
    if request.headers.get("Content-Type", "").lower().partition(";")[0] != "application/json":
        requests.refuse(["Unsupported Media Type: Only 'application/json' is allowed"], None)
    text = await request.text()
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        entry = (
            f"{{'type': 'json_invalid', 'loc': 'body.{error.pos}', 'msg': 'JSON decode error', "
            f"'input': '<dict of 0 items>', 'ctx': {{'error': '{error.msg}'}}}}"
        )
        requests.refuse([entry], f"body.{error.pos}")
    if not isinstance(body, dict):
        requests.refuse(["{'type': 'model_attributes_type', 'loc': 'body'}"], "body")
    found: dict[str, Any] = body
    return found


def _refusal(path: str, error: Invalid) -> web.Response:
    body = error.body()
    if path == "/v1/messages":
        body = {"type": "error", "error": {"type": error.kind, "message": error.message}}
    return _json(body, error.status)


def _json(body: Any, status: int = 200) -> web.Response:
    headers = {"Server": "uvicorn"}
    return web.Response(
        text=bodies.dump(body), status=status, content_type="application/json", headers=headers
    )
