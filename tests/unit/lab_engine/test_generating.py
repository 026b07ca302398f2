from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engine import tokens
from lab.engine.script import Script
from unit.lab_engine.conftest import MODEL, Served, serve


@given(st.text())
def test_tokens_can_be_undone(text: str) -> None:
    assert "".join(tokens.split(text)) == text
    assert tokens.decode(tokens.encode(text)) == text


async def text_of(served: Served, path: str, body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The text of a stream, and its events."""
    async with served.session.post(served.url + path, json={**body, "stream": True}) as answer:
        blocks = (await answer.text()).split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    found = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    choices = [choice for event in found for choice in event["choices"]]
    pieces = [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]
    return "".join(pieces), found


async def test_an_answer_is_an_echo_and_always_the_same(served: Served) -> None:
    for _ in range(2):
        choice = (await served.chat("Hello, wörld!"))["choices"][0]
        assert choice["message"]["content"] == "You said: Hello, wörld!"
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_says_the_same_as_a_whole_answer(served: Served, path: str) -> None:
    said = (
        {"prompt": "a b"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a b"}]}
    )
    body = {"model": MODEL, "max_tokens": 100, **said}
    _, whole = await served.post(path, body)
    choice = whole["choices"][0]
    text, events = await text_of(served, path, {**body, "stream_options": {"include_usage": True}})
    assert text == choice.get("text", choice.get("message", {}).get("content")) == "You said: a b"
    assert events[-1]["usage"] == {key: whole["usage"][key] for key in events[-1]["usage"]}
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_max_tokens_cuts_the_answer(served: Served) -> None:
    answer = await served.chat(max_tokens=1)
    assert answer["choices"][0]["message"]["content"] == "You"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 1


async def test_a_completion_without_a_limit_has_sixteen_tokens(served: Served) -> None:
    _, answer = await served.post("/v1/completions", {"model": MODEL, "prompt": "x " * 100})
    assert answer["usage"]["completion_tokens"] == 16


async def test_a_model_that_may_not_end_goes_on_to_the_limit(served: Served) -> None:
    answer = await served.chat("a", max_tokens=50, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 50
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("stop", "more", "text"),
    [
        ("said", {}, "You "),
        (["nothing", "hel"], {}, "You said: "),
        ("said", {"include_stop_str_in_output": True}, "You said"),
        ("You", {}, ""),
        ("nothing", {}, "You said: hello"),
    ],
)
async def test_a_stop_string_ends_the_answer(
    served: Served, stop: Any, more: dict[str, Any], text: str
) -> None:
    choice = (await served.chat(stop=stop, **more))["choices"][0]
    assert choice["message"]["content"] == text
    assert choice["stop_reason"] == (None if stop == "nothing" else stop if isinstance(stop, str) else "hel")


async def test_several_choices_are_numbered_and_counted(served: Served) -> None:
    answer = await served.chat(n=3, temperature=1, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 6
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "n": 2, "temperature": 1}
    _, events = await text_of(served, "/v1/chat/completions", {**body, "max_tokens": 2})
    indices = [choice["index"] for event in events for choice in event["choices"]]
    assert indices == [0, 1] * 3


async def test_a_conversation_is_answered_at_its_end_and_parts_are_text(served: Served) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}]
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    _, answer = await served.post("/v1/chat/completions", {"model": MODEL, "messages": turns})
    assert answer["choices"][0]["message"]["content"] == "You said: one two"


async def test_prompts_may_be_tokens(served: Served) -> None:
    body = {"model": MODEL, "prompt": [tokens.encode("one"), tokens.encode("two")], "max_tokens": 20}
    _, answer = await served.post("/v1/completions", body)
    assert [choice["text"] for choice in answer["choices"]] == ["You said: one", "You said: two"]


async def test_tokenize_and_detokenize_agree(served: Served) -> None:
    _, found = await served.post("/tokenize", {"model": MODEL, "prompt": "a bc def"})
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 2048
    _, back = await served.post("/detokenize", {"model": MODEL, "tokens": found["tokens"]})
    assert back == {"prompt": "a bc def"}


async def test_a_served_name_that_is_not_listed_is_unknown() -> None:
    async with serve(script=Script(unlisted=True)) as served:
        async with served.session.get(f"{served.url}/v1/models") as answer:
            assert (await answer.json())["data"] == []
        status, body = await served.post("/v1/completions", {"model": MODEL, "prompt": "a"})
        assert (status, body["error"]["type"]) == (404, "NotFoundError")


async def test_a_pooling_model_embeds_and_does_not_chat() -> None:
    async with serve("--runner", "pooling") as served:
        status, body = await served.post("/v1/embeddings", {"model": MODEL, "input": ["a", "bb"]})
        assert status == 200
        assert [one["index"] for one in body["data"]] == [0, 1]
        status, _ = await served.post("/v1/chat/completions", {"model": MODEL, "messages": []})
        assert status == 404


async def test_the_first_token_and_the_next_take_their_time() -> None:
    async with serve(script=Script(first_token=0.2, token=0.05)) as served:
        await served.chat(max_tokens=3)
        first = await served.value("vllm:time_to_first_token_seconds_sum")
        whole = await served.value("vllm:e2e_request_latency_seconds_sum")
    assert first >= 0.2
    assert whole >= 0.3
