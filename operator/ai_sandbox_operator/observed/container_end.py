"""Why a container ended, as far as it holds for any program. Pure."""

from __future__ import annotations

import dataclasses

from ai_sandbox_operator.api.conditions import Reason

from . import log_lines, text

#: 128 + SIGKILL.
EXIT_KILLED = 137


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a program ended.

    Attributes:
        said: the program's own words, shortened and on one line; empty if it had none.
        advice: what to do, where the words tell more than the reason's remedy; a whole sentence.
        permanent: the same program in the same place fails again, until somebody changes something.
        row: name of the signature, empty where none matched.
    """

    reason: Reason
    said: str = ""
    advice: str = ""
    permanent: bool = False
    row: str = ""


def classify(log: str, *, exit_code: int | None, container_reason: str) -> Failure:
    """The cause of an end, from the last lines of the log, without secrets."""
    lines = log_lines.split(log)
    words = text.shorten(log_lines.last_words(lines))
    if container_reason == "OOMKilled":
        return Failure(reason=Reason.OutOfMemory, row="HostOOM")
    for line in reversed(lines):
        said = text.shorten(line.text)
        if "No space left on device" in said:
            return Failure(reason=Reason.DiskFull, said=said, permanent=True)
        if "exec format error" in said:
            return Failure(reason=Reason.ImageUnusable, said=said, permanent=True)
    return unknown(words, exit_code)


def unknown(words: str, exit_code: int | None) -> Failure:
    """An end that no signature explains: its last words are passed on."""
    if exit_code == EXIT_KILLED:
        return Failure(reason=Reason.ContainerKilled, said=words, row="Killed")
    return Failure(reason=Reason.CrashLoop, said=words)
