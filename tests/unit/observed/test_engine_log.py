"""The cause of an engine's end, on a log for each signature and on logs that hold several."""

from __future__ import annotations

import dataclasses

import pytest

from ai_sandbox_operator.api import names
from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.observed import diagnosis, engine_log, log_lines, text
from ai_sandbox_operator.observed.container_end import Failure
from ai_sandbox_operator.observed.engine_signatures import SIGNATURES, Signature
from ai_sandbox_operator.reconcile import verdicts

from .corpus import ENGINE, Expected, engine_logs
from .corpus import engine_log as read

LOGS = engine_logs()
#: Rows that an exit code or the kubelet tells, and no text.
WITHOUT_TEXT = {"HostOOM", "Killed", "Usage", ""}


def classified(name: str, signatures: tuple[Signature, ...] = SIGNATURES) -> Failure:
    expected = LOGS[name]
    return engine_log.classify(
        text.redact(read(name), expected.known),
        exit_code=expected.exit_code,
        container_reason=expected.container_reason,
        signatures=signatures,
    )


def wrong(name: str, expected: Expected, found: Failure) -> list[str]:
    """In what a classification differs from what is expected."""
    problems = []
    if (found.reason, found.row) != (Reason[expected.reason], expected.row):
        problems.append(f"{name}: {found.reason.name}/{found.row}")
    if found.permanent is not expected.permanent:
        problems.append(f"{name}: permanent")
    problems += [f"{name}: does not say {words!r}" for words in expected.says if words not in found.said]
    problems += [f"{name}: says {words!r}" for words in expected.quiet if words in found.said]
    if expected.advice is not None and found.advice != expected.advice:
        problems.append(f"{name}: advises {found.advice!r}")
    return problems


@pytest.mark.parametrize("name", LOGS)
def test_a_log_comes_to_its_cause(name: str) -> None:
    found = classified(name)
    assert wrong(name, LOGS[name], found) == [], found


def test_every_log_is_expected_and_every_expectation_has_its_log() -> None:
    assert {path.stem for path in ENGINE.glob("*.log")} == set(LOGS)


def test_every_row_has_a_log_and_ten_logs_mix_causes() -> None:
    assert {expected.row for expected in LOGS.values()} == {row.name for row in SIGNATURES} | WITHOUT_TEXT
    assert len([name for name in LOGS if name.startswith("mixed-")]) >= 10


@pytest.mark.parametrize(("row", "words"), [(row, words) for row in SIGNATURES for words in row.texts])
def test_without_one_text_of_a_row_some_log_is_no_longer_understood(row: Signature, words: str) -> None:
    less = dataclasses.replace(row, texts=tuple(each for each in row.texts if each != words))
    table = tuple(less if each is row else each for each in SIGNATURES)
    assert any(wrong(name, LOGS[name], classified(name, table)) for name in LOGS)


@pytest.mark.parametrize("row", [row for row in SIGNATURES if row.near or row.weak])
def test_without_its_condition_a_row_takes_the_logs_of_others(row: Signature) -> None:
    broader = dataclasses.replace(row, near=(), weak=False)
    table = tuple(broader if each is row else each for each in SIGNATURES)
    assert any(wrong(name, LOGS[name], classified(name, table)) for name in LOGS)


@pytest.mark.parametrize("name", [name for name in LOGS if LOGS[name].secrets])
def test_no_secret_passes(name: str) -> None:
    found = classified(name)
    assert all(secret in read(name) for secret in LOGS[name].secrets)
    assert not any(secret in found.said for secret in LOGS[name].secrets)


@pytest.mark.parametrize("name", LOGS)
def test_what_is_passed_on_is_one_short_line(name: str) -> None:
    found = classified(name)
    assert len(found.said) <= text.MESSAGE_LIMIT + 4
    assert "\n" not in found.said


@pytest.mark.parametrize("name", LOGS)
def test_the_message_of_a_condition_ends_with_what_to_do_and_is_short(name: str) -> None:
    terminated = {"exitCode": LOGS[name].exit_code, "reason": LOGS[name].container_reason or "Error"}
    # The longest names that a sandbox of 40 characters leads to.
    metadata = {
        "name": f"{'n' * 40}-engine-7c9d8f6b54-x2",
        "uid": "u",
        "labels": {names.LABEL_COMPONENT: "engine"},
    }
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {
        "name": "engine",
        "restartCount": 100,
        "state": waiting,
        "lastState": {"terminated": terminated},
    }
    pod = {"metadata": metadata, "status": {"phase": "Running", "containerStatuses": [container]}}
    found = diagnosis.diagnose([pod], evidence=diagnosis.Evidence(failure=classified(name)))
    assert found is not None
    assert found.reason in diagnosis.FAILURES
    verdict = verdicts.pods(ConditionType.ENGINE_READY, found)
    remedy = found.advice or found.reason.doc.remedy
    assert remedy not in ("Wait.", "Nothing to do.")
    assert verdict.message.endswith(f". {remedy}")
    assert len(verdict.message) < 600


def test_a_log_of_one_endless_line_is_read_as_far_as_it_matters() -> None:
    log = "x" * 3_000_000 + "\nRuntimeError: No CUDA GPUs are available"
    assert engine_log.classify(log, exit_code=1).reason is Reason.GPUNotFound
    assert engine_log.classify("x" * 3_000_000, exit_code=1).reason is Reason.CrashLoop


def test_what_was_logged_and_printed_is_said_once() -> None:
    said = classified("unknown-exception").said
    assert said.count("frobnicator") == 1


def test_of_a_line_that_was_overwritten_the_last_state_counts() -> None:
    (line,) = log_lines.split("\r 0% Completed\r50% Completed\rRuntimeError: stop\r\n")
    assert line.text == "RuntimeError: stop"


def test_colours_and_prefixes_are_no_part_of_the_words() -> None:
    (line,) = log_lines.split("(EngineCore pid=7) \x1b[31mERROR 11-24 10:00:00 [core.py:1]\x1b[0m boom")
    assert line == log_lines.Line("ERROR", "boom")
