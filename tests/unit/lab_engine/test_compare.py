"""The comparison itself: the stand-in is asked as a program, like vLLM, once on either side."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest

from lab.engine import compare, probes


async def test_the_stand_in_as_a_program_shows_what_vllm_showed(capsys: pytest.CaptureFixture[str]) -> None:
    assert await compare.main([]) == 0
    assert "0 differences" in capsys.readouterr().out


@pytest.mark.slow
async def test_both_sides_are_asked_and_the_first_one_is_recorded(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "folder" / "seen.json"
    engine = f"{sys.executable} -m lab.engine"
    assert await compare.main(["--engine", engine, "--record", str(record)]) == 0
    assert "0 differences" in capsys.readouterr().out
    seen = json.loads(record.read_text())
    assert list(compare.differences(json.loads(compare.RECORDING.read_text()), seen)) == []


async def test_a_difference_is_told_and_is_the_exit_code(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(compare.RECORDING.read_text())
    other["end"]["code"] = 143
    recording = tmp_path / "other.json"
    recording.write_text(json.dumps(other))
    seen = json.loads(compare.RECORDING.read_text())

    async def observe(*_: object) -> Any:
        return seen

    monkeypatch.setattr(compare, "observe", observe)
    assert await compare.main(["--recording", str(recording)]) == 1
    assert "/end/code: 143 and 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"a": {"b": 1, "c": [1]}}, []),
        ({"a": {"b": 2, "c": [1]}}, ["/a/b: 1 and 2"]),
        ({"a": {"c": [1]}}, ["/a/b: only in the first"]),
        ({"a": {"b": 1, "c": [1]}, "d": 0}, ["/d: only in the second"]),
        ({"a": {"b": 1, "c": [1, 2]}}, ["/a/c: [1] and [1, 2]"]),
        ({"a": 1}, ['/a: {"b": 1, "c": [1]} and 1']),
    ],
)
def test_every_difference_is_told(other: Any, found: list[str]) -> None:
    assert list(compare.differences({"a": {"b": 1, "c": [1]}}, other)) == found


def test_of_a_success_the_form_counts_and_of_a_refusal_every_word() -> None:
    said = json.dumps({"id": "x", "n": [1, 2], "none": None, "yes": True})
    form = {"id": "str", "n": ["int"], "none": None, "yes": True}
    assert probes.form(200, "application/json", said) == form
    assert probes.form(400, "application/json", said) == json.loads(said)


def test_events_of_a_stream_are_told_in_order_and_repeated_ones_once() -> None:
    chunk = 'data: {"text": "a"}\n\n'
    text = f'event: start\ndata: {{"a": 1}}\n\n{chunk}{chunk}data: [DONE]\n\n'
    assert probes.events(text) == [["event: start", {"a": "int"}], {"text": "str"}, "[DONE]"]


def test_the_cause_of_a_refusal_is_its_last_error_without_what_a_release_adds() -> None:
    log = "INFO x\nValueError: first\nKeyError: 'invalid tool call parser: x (chose from { a })'\nmore"
    assert compare.cause(log) == "KeyError: 'invalid tool call parser: x"
    assert compare.cause("nothing") == ""
