"""Removal of models that are no longer wanted (I2: none that is kept, nothing that is not this program's)."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from ai_sandbox_operator.fetch import main, store
from fetch.rig import Rig, lines, published, wanted


@pytest.fixture
def volume(rig: Rig, capsys: pytest.CaptureFixture[str]) -> Rig:
    """Three complete models, leftovers, and what belongs to nobody."""
    for name in ("old", "older", "new"):
        assert rig.run(target=rig.models / name) == 0
    for name in ("new.tmp-0123456789ab", "gone.tmp-replaced"):
        (rig.models / name).mkdir()
        (rig.models / name / "x.incomplete").write_bytes(b"half")
    (rig.models / "lost+found").mkdir()
    (rig.models / "lost+found" / "#12").write_bytes(b"x")
    (rig.models / "notes.txt").write_text("mine")
    capsys.readouterr()
    return rig


def sweep(rig: Rig, *keep: str) -> int:
    rig.log.write_text("")
    return main.run(main.parse(rig.sweep_arguments(*keep)), {})


OTHERS = [store.LOCK, "lost+found", "notes.txt"]


def test_every_other_model_and_everything_unfinished_goes(
    volume: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(volume, "new") == 0
    assert volume.names() == sorted(["new", *OTHERS])
    assert published(volume.models / "new") == wanted()
    size = sum(path.stat().st_size for path in (volume.models / "new").iterdir())
    said = lines(capsys.readouterr().out)
    assert said == [
        {
            "event": "swept",
            "removed": ["gone.tmp-replaced", "new.tmp-0123456789ab", "old", "older"],
            "bytes": 2 * size + 8,
        }
    ]


def test_all_that_are_named_stay(volume: Rig) -> None:
    assert sweep(volume, "new", "old", "not-there-yet") == 0
    assert volume.names() == sorted(["new", "old", *OTHERS])


def test_a_second_sweep_finds_nothing(volume: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(volume, "new")
    assert sweep(volume, "new") == 0
    assert lines(capsys.readouterr().out)[-1] == {"event": "swept", "removed": [], "bytes": 0}


@pytest.mark.parametrize("keep", ["typo", "lost+found", "new.tmp-0123456789ab"])
def test_i2_nothing_goes_if_none_of_those_to_keep_is_a_complete_model(
    volume: Rig, keep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = volume.names()
    assert sweep(volume, keep) == 66
    assert volume.names() == before
    assert lines(capsys.readouterr().out)[-1]["reason"] == "NothingToKeep"


def test_i2_a_kept_model_that_lacks_a_file_saves_no_other(volume: Rig) -> None:
    (volume.models / "new" / "config.json").unlink()
    assert sweep(volume, "new") == 66
    assert {"new", "old", "older"} <= set(volume.names())


def test_i2_links_are_neither_followed_nor_removed(volume: Rig, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(volume.models / "old", outside)
    (volume.models / "link").symlink_to(outside)
    (volume.models / "link.tmp-1").symlink_to(outside)
    (volume.models / "old" / "inside").symlink_to(outside)
    assert sweep(volume, "new") == 0
    assert published(outside) == wanted()
    assert volume.names() == sorted(["new", "link", "link.tmp-1", *OTHERS])


def test_a_link_in_place_of_leftovers_is_no_way_out_of_the_directory(
    rig: Rig, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    rig.models.mkdir()
    rig.work.symlink_to(outside)
    (rig.models / "tiny.tmp-ffffffffffff").symlink_to(outside)
    (rig.models / "tiny.tmp-eeeeeeeeeeee").write_text("a file")
    assert rig.run() == 0
    assert published(rig.target) == wanted()
    assert os.listdir(outside) == ["precious"]
    assert rig.names() == [store.LOCK, "tiny"]


def test_what_is_being_removed_carries_no_marker_under_its_name(
    volume: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: pathlib.Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", crash)
    for leftover in ("gone.tmp-replaced", "new.tmp-0123456789ab"):
        (volume.models / leftover / "x.incomplete").unlink()
        (volume.models / leftover).rmdir()
    with pytest.raises(KeyboardInterrupt):
        sweep(volume, "new")
    assert store.read_marker(volume.models / "old") is None
    assert "old.tmp-replaced" in volume.names()
    monkeypatch.undo()
    assert sweep(volume, "new") == 0
    assert volume.names() == sorted(["new", *OTHERS])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sweep"],
        ["--sweep", "--models-directory=/m"],
        ["--sweep", "--keep=a"],
        ["--sweep", "--models-directory=/m", "--keep=../a"],
        ["--sweep", "--models-directory=/m", "--keep=/m/a"],
        ["--sweep", "--models-directory=/m", "--keep=.."],
        ["--sweep", "--models-directory=/m", "--keep="],
        ["--sweep", "--models-directory=/m", "--keep=a", "--model=a/b"],
        ["--model=a/b"],
        ["--target=/m/a"],
        ["--model=a/b", "--target=/m/a", "--keep=a"],
        ["--model=a/b", "--target=/m/a", "--commit=main"],
        *([f"--model={model}", "--target=/m/a"] for model in ("tiny", "a/b/c", "../x", "a/..", "-x/y")),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_together_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
