"""What is published, what is reused, and what counts as the model."""

from __future__ import annotations

import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from ai_sandbox_operator.fetch import store
from fetch.rig import MODEL, TOKEN, WEIGHTS, Rig, lines, published, wanted
from lab.hub import COMMIT, Fault, small_model

OTHER = "e" * 40
SIZE = sum(map(len, wanted().values()))
SUMMARY = {"model": MODEL, "revision": "main", "commit": COMMIT, "format": "hf", "bytes": SIZE}

Said = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What was said since the last look."""
    return lambda: lines(capsys.readouterr().out)


def test_a_model_is_published_complete_and_nothing_else_is_left(rig: Rig, said: Said) -> None:
    assert rig.run() == 0
    assert published(rig.target) == wanted()
    assert rig.names() == [store.LOCK, "tiny"]
    first, *_, last = said()
    assert first["event"] == "start"
    assert (first["commit"], first["files"], first["totalBytes"]) == (COMMIT, len(wanted()), SIZE)
    assert last == {"event": "complete", **SUMMARY}
    assert json.loads(rig.log.read_text()) == SUMMARY
    assert rig.hub.tokens_seen() == {""}, "without a token none is looked for elsewhere"
    assert sorted(rig.hub.downloads()) == sorted(wanted())


@pytest.mark.parametrize("options", [{}, {"commit": COMMIT}], ids=["by revision", "by commit"])
def test_a_complete_directory_needs_no_hub(rig: Rig, said: Said, options: dict[str, str]) -> None:
    rig.run()
    rig.hub.requests.clear()
    said()
    assert rig.run(**options) == 0
    assert said() == [{"event": "complete", **SUMMARY}]
    assert rig.hub.requests == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda target: (target / WEIGHTS[0]).write_bytes(b"short"),
        lambda target: (target / WEIGHTS[1]).unlink(),
        lambda target: (target / store.MARKER).unlink(),
        lambda target: (target / store.MARKER).write_text("{"),
        lambda target: (target / store.MARKER).write_text("[]"),
    ],
    ids=["a file is shorter", "a file is missing", "no marker", "half a marker", "a strange marker"],
)
def test_an_incomplete_directory_is_replaced(rig: Rig, damage: Callable[[pathlib.Path], object]) -> None:
    rig.run()
    damage(rig.target)
    assert rig.run() == 0
    assert published(rig.target) == wanted()
    assert rig.names() == [store.LOCK, "tiny"]


def test_the_marker_counts_by_its_commit_if_one_is_given(rig: Rig, said: Said) -> None:
    new = small_model(60_000, shards=2, seed="new")
    rig.repository.older[OTHER] = new
    rig.run()
    said()
    assert rig.run(commit=OTHER) == 0
    assert said()[-1] == {
        **SUMMARY,
        "event": "complete",
        "commit": OTHER,
        "bytes": sum(map(len, wanted(new).values())),
    }
    assert published(rig.target) == wanted(new)


def test_a_branch_that_has_moved_on_does_not_move_a_given_commit(rig: Rig) -> None:
    rig.repository.older[COMMIT] = rig.repository.files
    rig.repository.commit, rig.repository.files = OTHER, small_model(60_000, shards=2, seed="new")
    assert rig.run(commit=COMMIT, revision="main") == 0
    assert published(rig.target) == wanted()
    assert [one.url for one in rig.hub.requests if one.at == "api"] == [
        f"/api/models/{MODEL}/revision/{COMMIT}?blobs=true"
    ]


def test_another_name_of_the_same_commit_downloads_nothing(rig: Rig, said: Said) -> None:
    rig.run()
    rig.hub.requests.clear()
    assert rig.run(revision=COMMIT) == 0
    assert said()[-1]["revision"] == COMMIT
    assert rig.hub.downloads() == []


def test_a_restart_reuses_complete_files_and_sweeps_unfinished_ones(rig: Rig, said: Said) -> None:
    rig.run()
    rig.target.rename(rig.work)
    (rig.work / WEIGHTS[0]).unlink()
    unfinished = rig.work / store.HUB_CACHE / "huggingface" / "download" / "x.1234.incomplete"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"half")
    (rig.models / "tiny.tmp-ffffffffffff").mkdir()
    rig.hub.faults.append(Fault(at=("cdn",), status=503))
    assert rig.run() == 69
    assert not unfinished.exists()
    assert rig.names() == [store.LOCK, rig.work.name]
    rig.hub.faults.clear()
    rig.hub.requests.clear()
    said()
    assert rig.run() == 0
    assert said()[0]["missingBytes"] == len(wanted()[WEIGHTS[0]])
    assert rig.hub.downloads() == [WEIGHTS[0]]
    assert published(rig.target) == wanted()
    assert rig.names() == [store.LOCK, "tiny"]


def test_a_damaged_file_of_an_earlier_attempt_is_noticed(rig: Rig) -> None:
    """Same size, other content: as after losing power."""
    rig.work.mkdir(parents=True)
    (rig.work / WEIGHTS[0]).write_bytes(bytes(len(wanted()[WEIGHTS[0]])))
    assert rig.run() == 0
    assert published(rig.target) == wanted()


def test_connections_that_never_last_bring_it_piece_by_piece(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the library's own pauses
    rig.repository.files = small_model(24 * 2**20, shards=1, seed="large")
    rig.hub.faults.append(Fault(at=("cdn",), cut_after=3 * 2**20))
    assert rig.run() == 0
    assert published(rig.target) == wanted(rig.repository.files)
    # Of each connection less than a piece is lost.
    assert rig.hub.sent[f"{MODEL}/model.safetensors"] < 1.5 * 24 * 2**20


def test_what_is_there_is_not_counted_as_missing_space(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.run()
    rig.target.rename(rig.work)
    (rig.work / WEIGHTS[0]).unlink()
    needed = len(wanted()[WEIGHTS[0]]) + store.RESERVE
    usage = shutil.disk_usage(rig.models)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - 1))
    assert rig.run() == 78
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed))
    assert rig.run() == 0


def test_an_abandoned_attempt_at_another_model_goes_only_for_want_of_space(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rig.models / "other.tmp-ffffffffffff"
    other.mkdir(parents=True)
    usage = shutil.disk_usage(rig.models)
    assert rig.run() == 0
    assert other.exists()
    shutil.rmtree(rig.target)
    free = {True: store.RESERVE, False: SIZE + store.RESERVE}
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free[other.exists()]))
    assert rig.run() == 0
    assert rig.names() == [store.LOCK, "tiny"]


def test_no_more_files_at_a_time_than_allowed(rig: Rig) -> None:
    rig.hub.faults.append(Fault(at=("cdn",), hang_after=10))
    assert rig.run(max_workers=2, stall_seconds=0.5) == 75
    assert len(rig.hub.downloads()) - len({"model.safetensors.index.json"}) == 2


def test_i6_a_token_in_the_wrong_field_is_not_repeated(rig: Rig, said: Said) -> None:
    rig.hub.tokens.add(TOKEN)
    assert rig.run(TOKEN, revision=TOKEN) == 78
    assert TOKEN not in json.dumps(said())
    assert TOKEN not in rig.log.read_text()
