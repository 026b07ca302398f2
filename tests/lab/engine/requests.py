"""Requests for text: what is asked for, what is refused in vLLM's words, and the answer. Pure.

The answer is an echo: `You said: ` and the last message, or the prompt. It ends by itself unless `ignore_eos`
asks for more; then it begins again until the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine import tokens

_ECHO = "You said: "
#: Sequences of one request at most, unless VLLM_MAX_N_SEQUENCES says otherwise.
MAX_CHOICES = 16_384


class Invalid(Exception):
    """A refusal: status, type and message of the error, and the field that it is about."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param = message, status, kind, param

    def body(self) -> dict[str, Any]:
        """As JSON, in the form of OpenAI's errors."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return {"error": fields}


@dataclass(frozen=True)
class Limits:
    """What the engine allows."""

    names: tuple[str, ...]
    max_model_len: int
    choices: int = MAX_CHOICES


@dataclass(frozen=True)
class Wanted:
    """One prompt and what is to follow it.

    Attributes:
        prompt: tokens of the prompt.
        answer: tokens of each choice.
        finish: why it ends: `stop` or `length`.
        stop: the stop string that ended it.
        limit: tokens that were allowed.
    """

    prompt: int
    answer: tuple[str, ...]
    finish: str
    stop: str | None
    choices: int
    limit: int

    @property
    def text(self) -> str:
        return "".join(self.answer)

    @property
    def generated(self) -> int:
        return len(self.answer) * self.choices


def check_model(body: Mapping[str, Any], limits: Limits) -> str:
    """The served name; a request without a name means the first one.

    Raises:
        Invalid: the name is not served.
    """
    name = body.get("model")
    if name and name not in limits.names:
        raise Invalid(
            f"The model `{name}` does not exist. Valid aliases: {', '.join(limits.names)}.",
            status=404,
            kind="NotFoundError",
            param="model",
        )
    return str(name or (limits.names[0] if limits.names else ""))


def missing(body: Mapping[str, Any], *fields: str) -> None:
    """Raises: Invalid: one of the fields is not there."""
    absent = [field for field in fields if field not in body]
    entry = "{{'type': 'missing', 'loc': 'body.{}', 'msg': 'Field required', 'input': '<dict of {} items>'}}"
    refuse([entry.format(field, len(body)) for field in absent], f"body.{absent[0]}" if absent else None)


def refuse(errors: Sequence[str], param: str | None) -> None:
    """Raises: Invalid: there are errors, each in the words of the validator."""
    if errors:
        head = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''}:\n"
        raise Invalid(head + "\n".join(f"  {error}" for error in errors), kind="Bad Request", param=param)


def chat_prompt(messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The text of a conversation as the model gets it, and the last message.

    Raises:
        Invalid: there is no message.
    """
    if not messages:
        raise Invalid("Cannot apply chat template to an empty conversation. Provide at least one message.")
    texts = [plain(message.get("content")) for message in messages]
    turns = zip(messages, texts, strict=True)
    return "".join(f"{turn.get('role', 'user')} {text}" for turn, text in turns), texts[-1]


def plain(content: Any) -> str:
    """The text of a message, of its parts if it has parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


def prompts(prompt: Any) -> list[str]:
    """The prompts of a completion: text, tokens, or several of either.

    Raises:
        Invalid: there is none.
    """
    if not prompt:
        message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise Invalid(message, param="prompt")
    match prompt:
        case str():
            return [prompt]
        case [int(), *_]:
            return [tokens.decode(prompt)]
        case _:
            return [one if isinstance(one, str) else tokens.decode(one) for one in prompt]


def plan(prompt: str, last: str, body: Mapping[str, Any], limits: Limits, *, most: int | None) -> Wanted:
    """The answer to one prompt; `most` is the number of tokens that was asked for.

    Raises:
        Invalid: it does not fit, or a number is out of range.
    """
    size = _prompt_tokens(prompt, limits)
    choices: int = body.get("n", 1) if body.get("n") is not None else 1
    if most is not None and most > limits.max_model_len:
        raise _value(
            f"max_tokens={most} cannot be greater than max_model_len={limits.max_model_len}. "
            "Please request fewer output tokens.",
            "max_tokens",
            most,
        )
    if most is not None and size + most > limits.max_model_len:
        most = limits.max_model_len - size
    _check_choices(choices, body, limits)
    if most is not None and most < 1:
        raise _value(f"max_tokens must be at least 1, got {most}.", "max_tokens", most)
    limit = limits.max_model_len - size if most is None else most
    endless = bool(body.get("ignore_eos"))
    pieces = tokens.split(_ECHO + last)
    source = itertools.cycle(pieces) if endless else iter(pieces)
    answer = list(itertools.islice(source, limit))
    finish = "stop" if not endless and len(pieces) <= limit else "length"
    answer, stopped = _stop(answer, body)
    return Wanted(size, tuple(answer), "stop" if stopped else finish, stopped, choices, limit)


def _prompt_tokens(prompt: str, limits: Limits) -> int:
    size = len(tokens.split(prompt))
    # vLLM cuts one token beyond the limit, so that it does not know how many there are.
    if size > limits.max_model_len:
        known = min(size, limits.max_model_len + 1)
        raise _value(
            f"This model's maximum context length is {limits.max_model_len} tokens. However, your prompt contains "
            f"{'at least ' if known > limits.max_model_len else ''}{known} input tokens, which exceeds this limit "
            "even without any output tokens. Please reduce the length of the input prompt.",
            "input_tokens",
            known,
        )
    return size


def _check_choices(choices: int, body: Mapping[str, Any], limits: Limits) -> None:
    if choices < 1:
        raise Invalid(f"n must be at least 1, got {choices}.")
    if choices > limits.choices:
        raise Invalid(
            f"n must be at most {limits.choices}, got {choices}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )
    if choices > 1 and body.get("temperature") == 0:
        raise Invalid(f"n must be 1 when using greedy sampling, got {choices}.")


def _value(message: str, param: str, value: int) -> Invalid:
    return Invalid(f"{message} (parameter={param}, value={value})", param=param)


def _stop(answer: list[str], body: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The answer up to the first stop string."""
    stops = body.get("stop") or []
    for count in range(1, len(answer) + 1):
        text = "".join(answer[:count])
        for stop in [stops] if isinstance(stops, str) else stops:
            if (place := text.find(stop)) >= 0:
                end = place + len(stop) if body.get("include_stop_str_in_output") else place
                rest = text[:end][len("".join(answer[: count - 1])) :]
                kept = [*answer[: count - 1], rest] if rest else _cut(answer[: count - 1], end)
                return kept, stop
    return answer, None


def _cut(answer: list[str], length: int) -> list[str]:
    """As many characters of the pieces."""
    kept: list[str] = []
    for piece in answer:
        left = length - sum(map(len, kept))
        if left <= 0:
            break
        kept.append(piece[:left])
    return kept
