"""Each row of the table of outcomes, with the real huggingface_hub against the hub simulator."""

from __future__ import annotations

import copy
import json
import shutil
import time

import pytest

from ai_sandbox_operator.fetch import hub, store
from ai_sandbox_operator.fetch.failures import FetchFailure
from fetch.outcomes import GOOD, PERMANENT, TRANSIENT, Outcome
from fetch.rig import MODEL, TOKEN, Rig, lines, published, wanted

BAD = [*PERMANENT, *TRANSIENT]
#: Shown by tests of their own: a second process, no kept model, an error that nobody foresaw.
ELSEWHERE = {FetchFailure.Locked, FetchFailure.NothingToKeep, FetchFailure.Unexpected}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library's own pauses, and with a short time-out for the listing."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(hub, "LISTING_TIMEOUT", 0.5)


def play(outcome: Outcome, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> int:
    rig.hub.faults[:] = copy.deepcopy(outcome.faults)
    for name, value in outcome.repository.items():
        setattr(rig.repository, name, copy.copy(value))
    for name, value in outcome.hub.items():
        setattr(rig.hub, name, copy.copy(value))
    if outcome.free is not None:
        usage = shutil.disk_usage("/")._replace(free=outcome.free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    return rig.run(outcome.token, **outcome.options)


@pytest.mark.parametrize("outcome", GOOD, ids=[row.sentence for row in GOOD])
def test_the_model_is_published(
    outcome: Outcome, rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = play(outcome, rig, monkeypatch)
    said = lines(capsys.readouterr().out)
    assert code == outcome.code == 0, said
    assert published(rig.target) == wanted()
    assert rig.names() == [store.LOCK, "tiny"]
    assert said[-1]["event"] == "complete"
    assert json.loads(rig.log.read_text()) | {"event": "complete"} == said[-1]
    assert all(fault.struck == fault.times for fault in rig.hub.faults), "the fault was not met"
    assert rig.hub.tokens_seen("cdn") <= {""}, "the token went to the storage"
    assert TOKEN not in json.dumps(said)


@pytest.mark.parametrize("outcome", BAD, ids=[row.sentence for row in BAD])
def test_the_reason_is_told_and_nothing_is_published(
    outcome: Outcome, rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = play(outcome, rig, monkeypatch)
    said = lines(capsys.readouterr().out)
    assert outcome.reason is not None
    assert (said[-1]["event"], said[-1]["reason"]) == ("failed", outcome.reason.name), said
    assert code == outcome.code == outcome.reason.code
    assert said[-1]["permanent"] == outcome.permanent
    message = said[-1]["message"]
    assert message.startswith(f"{outcome.reason.name}: ")
    assert outcome.words in message
    assert message.endswith(outcome.reason.value.remedy)
    assert rig.log.read_text() == message + "\n"
    assert TOKEN not in json.dumps(said)
    assert not rig.target.exists()


#: A transfer that is left behind holds its file as long as its process lives: see test_process.
PASSING = [row for row in TRANSIENT if row.reason is not FetchFailure.Stalled]


@pytest.mark.parametrize("outcome", PASSING, ids=[row.sentence for row in PASSING])
def test_after_what_passes_the_next_run_completes_and_keeps_what_is_there(
    outcome: Outcome, rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(outcome, rig, monkeypatch)
    there = {path.name for path in rig.work.glob("*") if path.is_file()} if rig.work.exists() else set()
    rig.hub.faults.clear()
    rig.repository.declared.clear()
    rig.hub.requests.clear()
    assert rig.run() == 0, capsys.readouterr().out
    assert published(rig.target) == wanted()
    assert not there & set(rig.hub.downloads())


def test_every_reason_has_a_row() -> None:
    assert {row.reason for row in BAD} | ELSEWHERE == set(FetchFailure)


def test_a_hub_that_is_not_there_is_unreachable(
    rig: Rig, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.url = f"http://127.0.0.1:{unused_tcp_port}"
    assert rig.run() == 69
    assert lines(capsys.readouterr().out)[-1]["reason"] == "HubUnreachable"


def test_an_error_that_nobody_foresaw_is_passed_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def publish(*_: object, **__: object) -> None:
        raise RuntimeError(f"the sky fell on {TOKEN}")

    monkeypatch.setattr(store, "publish", publish)
    rig.hub.tokens.add(TOKEN)
    assert rig.run(TOKEN) == 70
    message = lines(capsys.readouterr().out)[-1]["message"]
    assert message.startswith("Unexpected: RuntimeError: the sky fell on ***.")
    assert MODEL not in message
    assert TOKEN not in rig.log.read_text()
