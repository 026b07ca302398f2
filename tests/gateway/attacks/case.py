"""One attack: the bytes, the answer that they must get, and what of it may reach an upstream."""

from __future__ import annotations

import dataclasses

from gateway.attacks import site
from gateway.attacks.recorder import message_length

#: The gateway ends the connection without an answer; or it waits for more and nothing has happened yet.
CLOSED, OPEN = "closed", "open"
#: Behind a target: the upstream saw the beginning of that request, and never its end.
CUT_OFF = b" (cut off)"


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of a table.

    `expect` is the status, the statuses of several answers on the connection, or `CLOSED` or `OPEN`.
    `reaches` holds the targets that the upstream sees: none, unless the row is a control or the
    gateway makes the request harmless before it passes it on.
    """

    name: str
    raw: bytes
    expect: int | tuple[int, ...] | str
    reaches: tuple[bytes, ...] = ()
    listener: str = "external_api"
    prefix: bytes | None = None
    peer: str | None = None

    @property
    def expected(self) -> tuple[int, ...] | str:
        return (self.expect,) if isinstance(self.expect, int) else self.expect

    def run(self, target: site.Site) -> site.Outcome:
        answers = len(self.expected) if isinstance(self.expected, tuple) else 1
        return target.send(
            self.raw, listener=self.listener, peer=self.peer, prefix=self.prefix, answers=answers
        )


def targets(requests: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The targets of requests on record; bytes that are no request stand for themselves."""
    return tuple(_target(one) for one in requests)


def _target(one: bytes) -> bytes:
    if b" HTTP/1.1\r\n" not in one:
        return one
    return one.split(b" ", 2)[1] + (b"" if message_length(one) == len(one) else CUT_OFF)
