"""Why the engine ended, from its log and from how its container ended. Pure.

The cause stands kilobytes above the end of the log: below it each process echoes that another failed.
So the log is read from its end upwards, and rows that also follow a real cause count only where no
other row matches.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_sandbox_operator.api.conditions import Reason

from . import container_end, log_lines, text
from .container_end import Failure
from .engine_signatures import SIGNATURES, Signature
from .log_lines import Line

#: Lines above and below in which the other words of a signature may stand.
_NEAR = 6
#: Printed once the engine answers requests.
_SERVING = "Application startup complete"
#: Exit code of argparse.
EXIT_USAGE = 2


def classify(
    log: str,
    *,
    exit_code: int | None,
    container_reason: str = "",
    signatures: Sequence[Signature] = SIGNATURES,
) -> Failure:
    """The cause of an engine's end.

    Args:
        log: the last lines of the container's log, without secrets.
        exit_code: of the container; None if unknown. The pod is not being deleted: exit code 0 then
            means that the engine died while it served.
        container_reason: the kubelet's own, such as OOMKilled.
        signatures: rows to look for, in order of precedence within a line.
    """
    lines = log_lines.split(log)
    up = next((n for n in range(len(lines), 0, -1) if _SERVING in lines[n - 1].text), None)
    if exit_code == 0 or up is not None:
        return _while_serving(lines[up or 0 :], exit_code, container_reason, signatures)
    strong = _lowest(lines, [row for row in signatures if not row.weak])
    if strong is not None:
        return strong
    if container_reason == "OOMKilled":
        return Failure(reason=Reason.OutOfMemory, row="HostOOM")
    weak = _lowest(lines, [row for row in signatures if row.weak])
    if weak is not None:
        return weak
    words = text.shorten(log_lines.last_words(lines))
    if exit_code == EXIT_USAGE:
        return Failure(reason=Reason.InvalidEngineArguments, said=words, permanent=True, row="Usage")
    return container_end.unknown(words, exit_code)


def _while_serving(
    lines: list[Line], exit_code: int | None, container_reason: str, signatures: Sequence[Signature]
) -> Failure:
    """The end of an engine that answered requests before: a start that works can work again."""
    if container_reason == "OOMKilled":
        return Failure(reason=Reason.OutOfMemory, row="HostOOM")
    found = _lowest(lines, [row for row in signatures if not row.weak])
    weak = _lowest(lines, [row for row in signatures if row.weak])
    words = found.said if found else text.shorten(log_lines.last_words(lines))
    crashed = found is not None or (weak is not None and weak.reason is Reason.EngineCrashed)
    if crashed or exit_code == 0:
        return Failure(reason=Reason.EngineCrashed, said=words, row="EngineCrashed")
    if weak is not None:
        # Not a start that took too long: the liveness probe had no answer.
        return Failure(reason=Reason.ContainerKilled, said=words, row="Killed")
    return container_end.unknown(words, exit_code)


def _lowest(lines: Sequence[Line], rows: Sequence[Signature]) -> Failure | None:
    """What the lowest line with a signature says."""
    rows = [row for row in rows if any(words in line.text for words in row.texts for line in lines)]
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].chatter:
            continue
        for row in rows:
            if (failure := _matched(lines, number, row)) is not None:
                return failure
    return None


def _matched(lines: Sequence[Line], number: int, row: Signature) -> Failure | None:
    found = next((words for words in row.texts if words in lines[number].text), None)
    if found is None:
        return None
    if row.near:
        beside = "\n".join(other.text for other in lines[max(0, number - _NEAR) : number + _NEAR + 1])
        if not all(words in beside for words in row.near):
            return None
    line, advice = text.one_line(lines[number].text), ""
    start = line.index(found)
    end = start + len(found)
    for pattern, template in row.suggestions:
        if (numbers := pattern.search(line)) is not None:
            advice = template.format(*numbers.groups())
            start, end = min(start, numbers.start()), max(end, numbers.end())
            break
    return Failure(
        reason=row.reason,
        said=text.around(line, start, end),
        advice=advice,
        permanent=row.permanent,
        row=row.name,
    )
