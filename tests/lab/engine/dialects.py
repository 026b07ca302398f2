"""Answers in the forms of OpenAI's Responses and Anthropic's Messages, as vLLM 0.32.0 sends them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.engine.bodies import Event, Head, dump
from lab.engine.requests import Wanted

_REASONS = {"length": "max_tokens", "stop": "end_turn", "abort": "end_turn"}


def messages(head: Head, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """An answer in Anthropic's form."""
    one = wanted[0]
    return {
        "id": f"chatcmpl-{head.ident}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": one.text}],
        "model": head.model,
        "stop_reason": _REASONS[one.finish],
        "usage": {"input_tokens": one.prompt, "output_tokens": one.generated},
    }


def message_events(head: Head, wanted: Sequence[Wanted]) -> Iterator[Event]:
    """A stream in Anthropic's form."""
    one = wanted[0]
    used = {"input_tokens": one.prompt, "output_tokens": one.generated}
    empty: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": used | {"output_tokens": 0},
    }
    start = {key: value for key, value in messages(head, wanted).items() if key not in empty} | empty
    yield _named({"type": "message_start", "message": start})
    block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
    yield _named(block)
    for piece in one.answer:
        delta = {"type": "text_delta", "text": piece}
        yield _named({"type": "content_block_delta", "delta": delta, "index": 0}, token=True)
    yield _named({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": _REASONS[one.finish], "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": end, "usage": used})
    yield _named({"type": "message_stop"})


def responses(head: Head, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """An answer in the form of OpenAI's Responses."""
    one = wanted[0]
    cut = one.finish == "length"
    part: dict[str, Any] = {"annotations": [], "text": one.text, "type": "output_text", "logprobs": None}
    item = {
        "id": f"msg_{head.ident}",
        "content": [part],
        "role": "assistant",
        "status": "completed",
        "type": "message",
        "phase": None,
    }
    read: dict[str, Any] = {
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "input_tokens_per_turn": [],
        "cached_tokens_per_turn": [],
    }
    written: dict[str, Any] = {
        "reasoning_tokens": 0,
        "tool_output_tokens": 0,
        "output_tokens_per_turn": [],
        "tool_output_tokens_per_turn": [],
    }
    return {
        "id": f"resp_{head.ident}",
        "created_at": head.created,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "metadata": None,
        "model": head.model,
        "object": "response",
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": one.limit,
        "max_tool_calls": None,
        "previous_response_id": None,
        "prompt": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": "incomplete" if cut else "completed",
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": one.prompt,
            "input_tokens_details": read,
            "output_tokens": one.generated,
            "output_tokens_details": written,
            "total_tokens": one.prompt + one.generated,
        },
        "user": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def response_events(head: Head, wanted: Sequence[Wanted]) -> Iterator[Event]:
    """A stream of the Responses: the beginning, the text token by token, the end."""
    whole = responses(head, wanted)
    begun = whole | {"output": [], "status": "in_progress", "usage": None, "incomplete_details": None}
    number = 0
    for kind in ("response.created", "response.in_progress"):
        yield _named({"response": begun, "sequence_number": number, "type": kind})
        number += 1
    place = {"content_index": 0, "item_id": f"msg_{head.ident}", "output_index": 0}
    for piece in wanted[0].answer:
        kind = "response.output_text.delta"
        text = {"delta": piece, "logprobs": [], "sequence_number": number, "type": kind}
        yield _named(place | text, token=True)
        number += 1
    yield _named({"response": whole, "sequence_number": number, "type": "response.completed"})


def _named(fields: Mapping[str, Any], *, token: bool = False) -> Event:
    return Event(f"event: {fields['type']}\ndata: {dump(fields)}\n\n", token)
