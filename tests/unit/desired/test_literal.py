"""Text that a user wrote reaches the container as it was written: no reference in it is expanded (I6)."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.desired import common
from unit.desired import samples

VARIABLES = {"VLLM_API_KEY": samples.MATERIAL.engine_key, "A": "", "": "nameless", "$": "$(A)"}


def expanded(text: str) -> str:
    """What the kubelet makes of an argument or value: a port of `Expand` and `tryReadVariableName`.

    Source: kubernetes v1.37.2, third_party/forked/golang/expansion/expand.go. That reads bytes; its signs are
    ASCII, and a name that is not known is written back as it was, so characters do here.
    """
    written, cursor = "", 0
    while cursor < len(text):
        if text[cursor] != "$" or cursor + 1 == len(text):
            written, cursor = written + text[cursor], cursor + 1
            continue
        rest = text[cursor + 1 :]
        closed = rest.find(")")
        if rest[0] == "(" and closed > 0:
            name = rest[1:closed]
            written += VARIABLES.get(name, f"$({name})")
            cursor += closed + 2
        else:
            written += "$" if rest[0] == "$" else "$" + rest[0]
            cursor += 2
    return written


@pytest.mark.parametrize(
    ("text", "seen"),
    # From the cases of expand_test.go.
    [
        ("$(VLLM_API_KEY)", samples.MATERIAL.engine_key),
        ("$$(VLLM_API_KEY)", "$(VLLM_API_KEY)"),
        ("$$$(VLLM_API_KEY)", "$" + samples.MATERIAL.engine_key),
        ("$(NOBODY)", "$(NOBODY)"),
        ("$(VLLM_API_KEY", "$(VLLM_API_KEY"),
        ("$$", "$"),
        ("foo$", "foo$"),
        ("$x-$5", "$x-$5"),
        ("$$x", "$x"),
        ("$()", "nameless"),
    ],
)
def test_the_port_expands_as_the_kubelet_does(text: str, seen: str) -> None:
    assert expanded(text) == seen


@hypothesis.given(
    st.text(st.sampled_from("$()Ax\n"))
    | st.lists(st.sampled_from(["$", "$(VLLM_API_KEY)", "(A)"])).map("".join)
)
@hypothesis.example("$$(VLLM_API_KEY)")
@hypothesis.settings(max_examples=1000)
def test_any_text_arrives_as_it_was_written(text: str) -> None:
    assert expanded(common.literal(text)) == text


@pytest.mark.parametrize("text", ["", "plain", "$", "$5", "a$b$c$", "^[a-z]+$"])
def test_what_the_kubelet_leaves_alone_is_not_touched(text: str) -> None:
    """A template that renders differently is told as an update of the engine, and restarts the chat."""
    assert common.literal(text) == text


def test_i6_no_argument_of_the_engine_and_no_variable_of_the_chat_holds_a_key() -> None:
    spec: dict[str, Any] = {
        "engine": {"extraArgs": ["--chat-template=$$(VLLM_API_KEY)"]},
        "chat": {
            "oidc": {
                "providerURL": "https://id.example.com/.well-known/openid-configuration",
                "clientID": "$$(WEBUI_SECRET_KEY)",
                "clientSecretRef": {"name": "oidc", "key": "secret"},
            }
        },
    }
    children = samples.rendered(spec)
    engine = samples.container(samples.child(children, "Deployment", "demo-engine"))
    assert expanded(engine["args"][-1]) == "--chat-template=$$(VLLM_API_KEY)"
    chat = samples.container(samples.child(children, "Deployment", "demo-chat"))
    found = [entry["value"] for entry in chat["env"] if "WEBUI_SECRET_KEY" in entry.get("value", "")]
    assert [expanded(value) for value in found] == ["$$(WEBUI_SECRET_KEY)"]
