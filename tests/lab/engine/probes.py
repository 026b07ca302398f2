"""Questions to a running engine, and answers in a form in which two engines can be compared.

Of a success the form is kept: types instead of values, so that what a model says does not matter. Of a
refusal every word is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

#: Marks the model's name in a body; the caller puts the served one in its place.
MODEL = "MODEL"
#: The end of every stream.
DONE = b"data: [DONE]\n\n"
_HELLO = [{"role": "user", "content": "a b c"}]
#: Names of metrics that depend on the process and not on the engine.
_PROCESS = re.compile(r"^(python|process)_")


@dataclass(frozen=True)
class Probe:
    """One request.

    Attributes:
        name: what it shows.
        auth: value of the Authorization header; `KEY` stands for the right key. None: no header.
        body: as JSON; text is sent as it is.
    """

    name: str
    method: str
    path: str
    auth: str | None = "Bearer KEY"
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": _HELLO, "max_tokens": 3, "temperature": 0, **more}


def _text(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "a b c", "max_tokens": 3, "temperature": 0, **more}


def _open(method: str, path: str, body: Any = None, what: str = "") -> Probe:
    return Probe(f"without key: {method} {path}{what}", method, path, None, body)


_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
#: Without a key: what the engine gives away (facts of `--api-key`: vLLM docs/usage/security.md).
KEYLESS = (
    *(_open("GET", path) for path in ("/health", "/ping", "/version", "/load", "/metrics")),
    *(_open("GET", path) for path in ("/docs", "/redoc", "/openapi.json", "/server_info", "/tokenizer_info")),
    *(_open("GET", path) for path in ("/", "/nothing", "/v1", "/v1/models", "/v1/nothing", "/V1/models")),
    *(_open("GET", path) for path in ("//v1/models", "/v1x", "/v2/rerank", "/inference/x", "/cohere/x")),
    *(
        _open("POST", path)
        for path in ("/pause", "/resume", "/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache")
    ),
    *(_open("POST", path, {}) for path in ("/update_weights", "/start_profile", "/is_scaling_elastic_ep")),
    _open("POST", "/scale_elastic_ep", {}),
    _open("POST", "/invocations", _chat(), " as a chat"),
    _open("POST", "/invocations", _text(), " as a completion"),
    _open("POST", "/invocations", _chat(stream=True), " as a stream"),
    _open("POST", "/invocations", {}),
    _open("POST", "/tokenize", {"model": MODEL, "prompt": "a b c"}),
    _open("POST", "/detokenize", {"model": MODEL, "tokens": [3, 4]}),
    _open("POST", "/generative_scoring", {}),
    *(_open("POST", path, {}) for path in ("/pooling", "/classify", "/score", "/rerank")),
    *(
        _open("POST", f"/v1/{path}", {})
        for path in (
            *("chat/completions", "completions", "embeddings", "responses", "messages"),
            *("load_lora_adapter", "chat/completions/render"),
        )
    ),
    Probe("OPTIONS needs no key", "OPTIONS", _CHAT, None),
)
KEYS = (
    Probe("wrong key", "GET", "/v1/models", "Bearer wrong"),
    Probe("another scheme", "GET", "/v1/models", "Basic KEY"),
    Probe("scheme in lower case", "GET", "/v1/models", "bearer KEY"),
    Probe("x-api-key is no key", "GET", "/v1/models", None, headers={"x-api-key": "KEY"}),
    Probe("x-api-key is no key for messages", "POST", "/v1/messages", None, {}, {"x-api-key": "KEY"}),
)
ANSWERS = (
    Probe("models", "GET", "/v1/models"),
    Probe("chat", "POST", _CHAT, body=_chat()),
    Probe("chat, one token", "POST", _CHAT, body=_chat(max_tokens=1)),
    Probe("chat, two choices", "POST", _CHAT, body=_chat(n=2, temperature=1)),
    Probe("chat, no model", "POST", _CHAT, body={"messages": _HELLO, "max_tokens": 1}),
    Probe("chat, stream", "POST", _CHAT, body=_chat(stream=True)),
    Probe(
        "chat, stream with usage",
        "POST",
        _CHAT,
        body=_chat(stream=True, stream_options={"include_usage": True}),
    ),
    Probe("completion", "POST", _COMPLETIONS, body=_text()),
    Probe("completion of two prompts", "POST", _COMPLETIONS, body=_text(prompt=["a", "b"])),
    Probe("completion, stream", "POST", _COMPLETIONS, body=_text(stream=True)),
    Probe(
        "completion, stream with usage",
        "POST",
        _COMPLETIONS,
        body=_text(stream=True, stream_options={"include_usage": True}),
    ),
    Probe("responses", "POST", "/v1/responses", body={"model": MODEL, "input": "a", "max_output_tokens": 3}),
    Probe(
        "messages",
        "POST",
        "/v1/messages",
        body={"model": MODEL, "messages": _HELLO, "max_tokens": 3},
    ),
    Probe("tokenize a chat", "POST", "/tokenize", body={"model": MODEL, "messages": _HELLO}),
)
REFUSALS = (
    Probe("unknown model", "POST", _CHAT, body=_chat(model="nothing")),
    Probe("unknown model, completion", "POST", _COMPLETIONS, body=_text(model="nothing")),
    Probe(
        "unknown model, messages",
        "POST",
        "/v1/messages",
        body={"model": "nothing", "messages": _HELLO, "max_tokens": 3},
    ),
    Probe("unknown model, responses", "POST", "/v1/responses", body={"model": "nothing", "input": "a"}),
    Probe("unknown model, tokenize", "POST", "/tokenize", body={"model": "nothing", "prompt": "a"}),
    Probe("prompt too long", "POST", _COMPLETIONS, body=_text(prompt="a " * 3000)),
    Probe("prompt and answer too long", "POST", _COMPLETIONS, body=_text(max_tokens=4000)),
    Probe("chat too long", "POST", _CHAT, body=_chat(messages=[{"role": "user", "content": "a " * 3000}])),
    Probe("no token asked for", "POST", _CHAT, body=_chat(max_tokens=0)),
    Probe("no choice asked for", "POST", _CHAT, body=_chat(n=0)),
    Probe("no message", "POST", _CHAT, body=_chat(messages=[])),
    Probe("messages missing", "POST", _CHAT, body={"model": MODEL}),
    Probe("no JSON", "POST", _CHAT, body="{"),
    Probe("no JSON content type", "POST", _CHAT, body="{}", headers={"Content-Type": "text/plain"}),
    Probe(
        "embeddings of a model that generates", "POST", "/v1/embeddings", body={"model": MODEL, "input": "a"}
    ),
    Probe("unknown path", "POST", "/v1/nothing", body={}),
    Probe("GET of a POST path", "GET", _CHAT),
    Probe("POST of a GET path", "POST", "/v1/models", body={}),
    Probe("two choices without chance", "POST", _CHAT, body=_chat(n=2)),
)
ALL = (*KEYLESS, *KEYS, *ANSWERS, *REFUSALS)


async def ask(url: str, probe: Probe, *, model: str, key: str) -> dict[str, Any]:
    """Status and form of one answer.

    Raises:
        aiohttp.ClientError: there was none.
    """
    headers = {name: value.replace("KEY", key) for name, value in probe.headers.items()}
    if probe.auth is not None:
        headers["Authorization"] = probe.auth.replace("KEY", key)
    data = None
    if probe.body is not None:
        text = probe.body if isinstance(probe.body, str) else json.dumps(probe.body)
        data = text.replace(MODEL, model)
        headers.setdefault("Content-Type", "application/json")
    async with (
        aiohttp.ClientSession() as session,
        session.request(probe.method, url + probe.path, data=data, headers=headers) as answer,
    ):
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        return {"status": answer.status, "type": kind, "body": form(answer.status, kind, await answer.text())}


async def ask_all(url: str, *, model: str, key: str) -> dict[str, Any]:
    """The answers to all probes by name; metrics last, when they have moved."""
    found = {probe.name: await ask(url, probe, model=model, key=key) for probe in ALL}
    last = Probe("metrics", "GET", "/metrics", None)
    return found | {last.name: await ask(url, last, model=model, key=key)}


def form(status: int, kind: str, text: str) -> Any:
    """What is compared of a body."""
    if kind == "text/event-stream":
        return events(text)
    if kind == "text/plain" and "# TYPE" in text:
        return metrics(text)
    if kind != "application/json":
        return text if status >= 400 else bool(text)
    found = json.loads(text)
    return found if status >= 400 else shape(found)


def shape(value: Any) -> Any:
    """A JSON value with types instead of values; of a list its first element."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value[:1]]
        case None | bool():
            return value
        case _:
            return type(value).__name__


def events(text: str) -> list[Any]:
    """The events of a stream in order, repeated ones once."""
    found: list[Any] = []
    for block in text.split("\n\n"):
        if not block:
            continue
        kind, _, data = block.rpartition("data: ")
        event: Any = shape(json.loads(data)) if data.startswith("{") else data
        event = [kind.strip(), event] if kind.strip() else event
        if event not in found[-1:]:
            found.append(event)
    return found


def metrics(text: str) -> dict[str, list[str]]:
    """Labels by name of the series, of those that are the engine's own."""
    found: dict[str, list[str]] = {}
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        if not _PROCESS.match(name):
            found[name] = sorted(re.findall(r'(\w+)="', labels))
    return found
