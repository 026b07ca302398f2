"""Words of programs are short, on one line, and without secrets."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.observed import text


def test_long_text_keeps_its_end_on_one_line() -> None:
    said = text.shorten("noise\n" * 200 + "CUDA out of memory")
    assert said.endswith("CUDA out of memory")
    assert len(said) <= text.MESSAGE_LIMIT + 2
    assert "\n" not in said


def test_of_a_long_line_the_part_with_the_cause_is_kept() -> None:
    line = "a" * 500 + " the cause is here " + "b" * 500
    start = line.index("the cause")
    said = text.around(line, start, start + len("the cause is here"))
    assert "the cause is here" in said
    assert len(said) <= text.MESSAGE_LIMIT + 4


@pytest.mark.parametrize("start", [0, 10, 250, 480])
def test_a_cause_longer_than_the_limit_is_cut_at_its_end(start: int) -> None:
    line = "x" * start + "BEGIN" + "y" * 400
    said = text.around(line, start, len(line))
    assert "BEGIN" in said
    assert len(said) <= text.MESSAGE_LIMIT + 4


SUSPECTS = {
    "a token of the hub": ("with hf_abcdefghijklmnopqrst done", "hf_abcdefghijklmnopqrst"),
    "a header": ("Authorization: Bearer abc.def-ghi~123 sent", "abc.def-ghi~123"),
    "a login in a URL": ("proxy http://user:hunter22@proxy:3128 refused", "user:hunter22"),
    "an argument": ("args {'api_key': ['0123456789abcdefXYZ']}", "0123456789abcdefXYZ"),
    "an assignment": ("VLLM_API_KEY=0123456789abcdefXYZ", "0123456789abcdefXYZ"),
    "a password": ('"password": "correct-horse-battery"', "correct-horse-battery"),
}


@pytest.mark.parametrize("case", SUSPECTS)
def test_what_looks_like_a_secret_is_blotted_out(case: str) -> None:
    said, secret = SUSPECTS[case]
    found = text.redact(said)
    assert secret not in found
    assert text.BLOT in found


def test_ordinary_words_stay_as_they_are() -> None:
    for said in (
        "ValueError: total number of tokens: 32768 is greater than 16384",
        "tokenizer='/models/mistral', revision=None, key: value",
        "https://hub.example/api/models/acme/m: 404",
    ):
        assert text.redact(said) == said


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert text.redact("abcdefgh-tail", ["abcdefgh", "abcdefgh-tail"]) == text.BLOT


def test_secrets_are_found_at_every_depth_and_short_ones_are_none() -> None:
    body = {"a": [{"b": "see 12345678!"}], "c": 5}
    assert text.redact(body, ["12345678", "see"]) == {"a": [{"b": f"see {text.BLOT}!"}], "c": 5}
