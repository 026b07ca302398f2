"""Lines of a program's log without what only machines need: prefixes, frames, progress bars. Pure.

vLLM's processes share one log. A line is prefixed by its process and, when it was logged and not
printed, by level, time and place: `(EngineCore pid=47) ERROR 11-24 10:00:00 [core.py:1136] ...`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Characters of a log that are looked at, from its end, and of one line.
LONGEST_LOG = 1 << 18
LONGEST_LINE = 4000

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROCESS = re.compile(r"^\((?:APIServer|EngineCore|Worker|ApiServer|VllmWorker)[^)\n]{0,60}\) ?")
_LOGGED = re.compile(
    r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)"
    r"(?::\s+| \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? (?:\[[^\]\n]{1,80}\] ?)?)"
)
_FRAME = re.compile(r'^\s*File "[^"]+", line \d+')
_PROGRESS = re.compile(r"\d+%\||\bit/s\b|\bs/it\b|\d+% Completed")
#: The first line of an exception, or what argparse says.
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure|NotFound)\b|^[\w ./-]{1,80}: error: "
)
#: Lines that tell that something failed elsewhere, or that somebody tidies up after it.
_WRAPPERS = (
    "Traceback (most recent call last)",
    "During handling of the above exception",
    "The above exception was the direct cause",
    "Engine core initialization failed",
    "EngineCore failed to start",
    "EngineCore encountered a fatal error",
    "EngineCore encountered an issue",
    "EngineDeadError",
    "AsyncLLM output_handler failed",
    "Worker proc",
    "WorkerProc initialization failed",
    "leaked shared_memory objects",
    "leaked semaphore objects",
    "resource_tracker:",
    "destroy_process_group() was not called",
    "For further information visit",
    "For debugging consider passing CUDA_LAUNCH_BLOCKING",
    "Compile with `TORCH_USE_CUDA_DSA`",
    "See stack trace",
    "sys.exit(",
)
_PROCESS_ENDED = re.compile(r"^Process \w+(?:-\d+)?:$")
_CARETS = re.compile(r"^[\s^~]+$")


class Line(NamedTuple):
    """One line: level of the logger (empty if it was printed) and text with its indentation."""

    level: str
    text: str

    @property
    def chatter(self) -> bool:
        """Whether it only tells how things go."""
        return self.level in ("DEBUG", "INFO") or _PROGRESS.search(self.text) is not None


def split(log: str) -> list[Line]:
    """The lines of a log, oldest first; of a line that was overwritten by carriage returns the last state."""
    lines = []
    for raw in log[-LONGEST_LOG:].split("\n"):
        text = _PROCESS.sub("", _ANSI.sub("", raw.rstrip("\r").rpartition("\r")[2])[:LONGEST_LINE])
        logged = _LOGGED.match(text)
        level, text = (logged["level"], text[logged.end() :]) if logged else ("", text)
        if text.strip():
            lines.append(Line(level, text.rstrip()))
    return lines


def last_words(lines: list[Line], *, most: int = 3) -> str:
    """What a program said last that has a meaning for a person, in at most `most` lines.

    The last exception that is no mere echo of another, with what follows it; without one the last
    lines that are neither frames of a traceback nor progress nor chatter.
    """
    kept = [line for line in lines if not _noise(line)]
    grave = [line for line in kept if line.level != "WARNING"] or kept
    for number in range(len(grave) - 1, -1, -1):
        if _EXCEPTION.match(grave[number].text):
            return _joined(grave[number : number + most])
    return _joined(grave[-most:])


def _joined(lines: list[Line]) -> str:
    """One text; what was logged and printed is said once."""
    return " ".join(dict.fromkeys(line.text.strip() for line in lines))


def _noise(line: Line) -> bool:
    return bool(
        line.chatter
        or line.text.startswith("    ")
        or _FRAME.match(line.text)
        or _CARETS.match(line.text)
        or _PROCESS_ENDED.match(line.text)
        or any(wrapper in line.text for wrapper in _WRAPPERS)
    )
