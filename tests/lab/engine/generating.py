"""Answers that take the engine's time: as a whole or as a stream of events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from lab.engine import bodies, dialects, requests, tokens
from lab.engine.bodies import Event, Head
from lab.engine.engine import Aborted, Engine, Run
from lab.engine.requests import Invalid, Limits, Wanted

#: What a completion gets without `max_tokens`.
_COMPLETION_TOKENS = 16
GENERATING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
POOLING = frozenset({"/v1/embeddings"})
Whole = Callable[[Head, Sequence[Wanted]], dict[str, Any]]
Events = Callable[[Head, Sequence[Wanted]], Iterator[Event]]


async def generate(
    engine: Engine, request: web.BaseRequest, path: str, body: Mapping[str, Any]
) -> web.StreamResponse:
    """The answer of one of the endpoints.

    Raises:
        Invalid: the request is refused.
    """
    if path == "/v1/embeddings":
        return _embed(engine, body)
    _check_types(body)
    wanted = _wanted(path, body, engine.limits)
    head = engine.head(str(body.get("model") or engine.limits.names[0]))
    options = body.get("stream_options") or {}
    whole, events = _forms(path, with_usage=bool(options.get("include_usage")))
    if body.get("stream"):
        return await _stream(engine, request, wanted, lambda said: events(head, said))
    async with engine.running(wanted) as run:
        wanted = await _make(run, wanted)
    return web.Response(
        text=bodies.dump(whole(head, wanted)),
        content_type="application/json",
        headers={"Server": "uvicorn"},
    )


def _check_types(body: Mapping[str, Any]) -> None:
    if not isinstance(body.get("stream", False), (bool, type(None))):
        message = "Input should be a valid boolean, unable to interpret input"
        entry = f"{{'type': 'bool_parsing', 'loc': 'body.stream', 'msg': '{message}', 'input': {body['stream']!r}}}"
        requests.refuse([entry], "body.stream")


def _wanted(path: str, body: Mapping[str, Any], limits: Limits) -> list[Wanted]:
    """What is to be generated, one element per prompt.

    Raises:
        Invalid: the request is refused.
    """
    if path == "/v1/completions":
        requests.check_model(body, limits)
        texts = requests.prompts(body.get("prompt"))
        most = body.get("max_tokens", _COMPLETION_TOKENS)
        return [requests.plan(text, text, body, limits, most=most) for text in texts]
    if path == "/v1/responses":
        requests.missing(body, "input")
        requests.check_model(body, limits)
        said = body["input"]
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        most = body.get("max_output_tokens")
    elif path == "/v1/messages":
        requests.missing(body, "model", "messages", "max_tokens")
        requests.check_model(body, limits)
        messages, most = body["messages"], body["max_tokens"]
    else:
        requests.missing(body, "messages")
        requests.check_model(body, limits)
        messages = body["messages"]
        most = body.get("max_completion_tokens", body.get("max_tokens"))
    prompt, last = requests.chat_prompt(messages)
    return [requests.plan(prompt, last, body, limits, most=most)]


def _forms(path: str, *, with_usage: bool) -> tuple[Whole, Events]:
    match path:
        case "/v1/completions":
            return bodies.completion, lambda *a: bodies.completion_events(*a, with_usage=with_usage)
        case "/v1/responses":
            return dialects.responses, dialects.response_events
        case "/v1/messages":
            return dialects.messages, dialects.message_events
        case _:
            return bodies.chat, lambda *a: bodies.chat_events(*a, with_usage=with_usage)


async def _make(run: Run, wanted: list[Wanted]) -> list[Wanted]:
    """Wait for every token; what was made, if the engine ends before."""
    made = 0
    try:
        for one in wanted:
            for _ in range(one.generated):
                await run.token()
                made += 1
    except Aborted:
        return [replace(one, answer=one.answer[:made], finish="abort") for one in wanted]
    run.finish()
    return wanted


async def _stream(
    engine: Engine,
    request: web.BaseRequest,
    wanted: list[Wanted],
    events: Callable[[Sequence[Wanted]], Iterator[Event]],
) -> web.StreamResponse:
    """The events, each token when it is made. An error after the first goes into the stream."""
    async with engine.running(wanted) as run:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.headers["Server"] = "uvicorn"
        await response.prepare(request)
        try:
            for event in events(wanted):
                await _write(run, response, event)
            run.finish()
        except Invalid as error:
            # With spaces, unlike all other events.
            await response.write(f"data: {json.dumps(error.body())}\n\n{bodies.DONE}".encode())
        except Aborted:
            cut = list(events([replace(one, answer=(), finish="abort") for one in wanted]))
            await response.write("".join(event.text for event in cut[-2:]).encode())
        except ConnectionError:
            # The client has gone; nobody is left to be told.
            return response
    with contextlib.suppress(ConnectionError):
        await response.write_eof()
    return response


async def _write(run: Run, response: web.StreamResponse, event: Event) -> None:
    if event.token:
        await run.token()
    await response.write(event.text.encode())


def _embed(engine: Engine, body: Mapping[str, Any]) -> web.Response:
    requests.missing(body, "input")
    model = requests.check_model(body, engine.limits)
    engine.check()
    said = body["input"]
    texts = [said] if isinstance(said, str) else [str(one) for one in said]
    sizes = [len(tokens.split(text)) for text in texts]
    engine.metrics.add("prompt_tokens", sum(sizes))
    engine.metrics.add("request_success stop", len(texts))
    text = bodies.dump(bodies.embeddings(engine.head(model), texts, sizes))
    return web.Response(text=text, content_type="application/json", headers={"Server": "uvicorn"})
