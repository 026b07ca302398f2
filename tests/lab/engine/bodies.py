"""Answers in the form of OpenAI's chat and completions, field by field as vLLM 0.32.0 sends them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine.requests import Wanted

_FINGERPRINT = "vllm-0.33.0-a3905bf5"
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Head:
    """What every piece of an answer begins with; `created` in seconds since 1970."""

    ident: str
    created: int
    model: str


def models(names: Sequence[str], root: str, max_model_len: int, created: int, ident: str) -> dict[str, Any]:
    """The list of models."""
    permission = {
        "id": f"modelperm-{ident}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    common = {"object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": None}
    return {
        "object": "list",
        "data": [
            {"id": name, **common, "max_model_len": max_model_len, "permission": [permission]}
            for name in names
        ],
    }


def chat(head: Head, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """A whole chat completion; one element of `wanted` for the conversation."""
    message = {
        "role": "assistant",
        "content": wanted[0].text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": wanted[0].finish,
            "stop_reason": wanted[0].stop,
            "token_ids": None,
            "routed_experts": None,
        }
        for index in range(wanted[0].choices)
    ]
    prompt = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return _whole(f"chatcmpl-{head.ident}", "chat.completion", head, choices, wanted, prompt)


def completion(head: Head, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """A whole completion, of one prompt or several."""
    choices = [
        {
            "index": index,
            "text": one.text,
            "logprobs": None,
            "finish_reason": one.finish,
            "stop_reason": one.stop,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        for index, one in enumerate(one for one in wanted for _ in range(one.choices))
    ]
    return _whole(f"cmpl-{head.ident}", "text_completion", head, choices, wanted, {})


def _whole(
    ident: str,
    kind: str,
    head: Head,
    choices: list[dict[str, Any]],
    wanted: Sequence[Wanted],
    prompt: dict[str, Any],
) -> dict[str, Any]:
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {
        "id": ident,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": _FINGERPRINT,
        "usage": usage(wanted) | details,
        **prompt,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def usage(wanted: Sequence[Wanted]) -> dict[str, int]:
    """Tokens of prompts and answers."""
    prompt, generated = sum(one.prompt for one in wanted), sum(one.generated for one in wanted)
    return {"prompt_tokens": prompt, "total_tokens": prompt + generated, "completion_tokens": generated}


@dataclass(frozen=True)
class Event:
    """One event of a stream; `token`: whether it carries a token, so that time passes before it."""

    text: str
    token: bool = False


def chat_events(head: Head, wanted: Sequence[Wanted], *, with_usage: bool) -> Iterator[Event]:
    """The stream of a chat: a role for each choice, tokens, the usage if it is asked for, the end."""
    first, ident, kind = wanted[0], f"chatcmpl-{head.ident}", "chat.completion.chunk"
    for index in range(first.choices):
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}}
        choice |= {"logprobs": None, "finish_reason": None}
        yield _chunk(ident, kind, head, [choice], prompt_token_ids=None, prompt_text=None)
    for choice in _steps(wanted, lambda text: {"delta": {"content": text}}):
        yield _chunk(ident, kind, head, [choice], **_mark(choice, with_usage), token=True)
    yield from _finish(ident, kind, head, wanted, with_usage)


def completion_events(head: Head, wanted: Sequence[Wanted], *, with_usage: bool) -> Iterator[Event]:
    """The stream of a completion."""
    ident, kind = f"cmpl-{head.ident}", "text_completion"
    for choice in _steps(wanted, lambda text: {"text": text}):
        token_ids = choice.pop("token_ids")
        choice |= {"stop_reason": choice.get("stop_reason"), "prompt_token_ids": None, "token_ids": token_ids}
        yield _chunk(ident, kind, head, [choice], **_mark(choice, with_usage), token=True)
    yield from _finish(ident, kind, head, wanted, with_usage)


def _steps(wanted: Sequence[Wanted], form: Any) -> Iterator[dict[str, Any]]:
    """The choices of all chunks that carry tokens; the choices of one prompt take turns."""
    index = 0
    for one in wanted:
        pieces = one.answer or ("",)
        for number, piece in enumerate(pieces):
            for turn in range(one.choices):
                last = number == len(pieces) - 1
                choice = {"index": index + turn, **form(piece), "logprobs": None}
                choice["finish_reason"] = one.finish if last else None
                yield choice | ({"stop_reason": one.stop} if last else {}) | {"token_ids": None}
        index += one.choices


def _mark(choice: Mapping[str, Any], with_usage: bool) -> dict[str, str]:
    """The last chunk of a choice carries the fingerprint unless the usage comes after it."""
    return {"system_fingerprint": _FINGERPRINT} if choice["finish_reason"] and not with_usage else {}


def _finish(ident: str, kind: str, head: Head, wanted: Sequence[Wanted], with_usage: bool) -> Iterator[Event]:
    if with_usage:
        yield _chunk(ident, kind, head, [], usage=usage(wanted), system_fingerprint=_FINGERPRINT)
    yield Event(DONE)


def _chunk(
    ident: str, kind: str, head: Head, choices: list[dict[str, Any]], *, token: bool = False, **more: Any
) -> Event:
    fields = {"id": ident, "object": kind, "created": head.created, "model": head.model, "choices": choices}
    return Event(f"data: {dump(fields | more)}\n\n", token)


def embeddings(head: Head, inputs: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
    """Vectors of four numbers that follow from the texts."""
    data = [
        {"index": index, "object": "embedding", "embedding": [len(text) % 7 / 7, 0.5, 0.25, 0.125]}
        for index, text in enumerate(inputs)
    ]
    used = {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes), "completion_tokens": 0}
    return {
        "id": f"embd-{head.ident}",
        "object": "list",
        "created": head.created,
        "model": head.model,
        "data": data,
        "usage": used | {"prompt_tokens_details": None},
    }


def dump(value: Any) -> str:
    """JSON without spaces, as vLLM writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
