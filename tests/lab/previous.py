"""The version before this one: chart and operator of an earlier commit."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import subprocess
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: A git revision to upgrade from, instead of the newest that differs.
VARIABLE = "AI_SANDBOX_PREVIOUS"
_PARTS = ("operator", "charts", "crds")


class Absent(Exception):
    """There is no earlier version here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Previous:
    """An earlier version in a folder of its own."""

    revision: str
    folder: pathlib.Path

    @property
    def code(self) -> pathlib.Path:
        """For PYTHONPATH."""
        return self.folder / "operator"

    @property
    def chart(self) -> pathlib.Path:
        return self.folder / "charts" / "ai-sandbox"


def extract(folder: pathlib.Path) -> Previous:
    """The newest ancestor of HEAD whose operator or chart is another, or the one that `VARIABLE` names.

    Raises:
        Absent: no git, no history that goes back so far, or no chart in it.
    """
    revision = os.environ.get(VARIABLE) or _newest()
    if not _git("ls-tree", revision, "charts/ai-sandbox/Chart.yaml"):
        raise Absent(f"revision {revision[:12]} has no chart")
    archive = subprocess.run(["git", "archive", revision, *_PARTS], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return Previous(revision, folder)


def _newest() -> str:
    changed = _git("log", "-1", "--format=%H", "--", "operator", "charts")
    parent = _git("log", "-1", "--format=%P", changed).split(" ")[0] if changed else ""
    if not parent or not _git("cat-file", "-t", parent):
        raise Absent("the history in this clone ends before the last change of operator or chart")
    return parent


def _git(*arguments: str) -> str:
    """What git said; empty where it failed.

    Raises:
        Absent: there is no git here, or no repository.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Absent("git is not installed") from error
    if "not a git repository" in done.stderr:
        raise Absent("the checkout is no git repository")
    return done.stdout.strip() if done.returncode == 0 else ""
