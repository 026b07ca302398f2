"""Clients elsewhere: what they ask, and what they got."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

_PROGRAM = pathlib.Path(__file__).with_name("client.py")


class Place(Protocol):
    """Where a client's program can run: a network namespace, or a pod."""

    def command(self, command: Sequence[str]) -> list[str]:
        """A command line that runs `command` there."""

    def run(self, command: Sequence[str], text: str = "") -> str:
        """Run there with `text` as standard input and give what it wrote."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One HTTP request on a connection of its own.

    Attributes:
        tls: speak TLS, and verify against `authority` (PEM) for `name` or the host; without an authority
            nothing is verified.
        prefix: bytes ahead of everything, such as a PROXY header.
        raw: bytes to send in place of an HTTP request; the first bytes that come back are the body.
        timeout: seconds for connecting, and for each piece of the answer.
        keep: with `Client.repeat`: go on with the connection.
    """

    host: str
    port: int
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: str = ""
    tls: bool = False
    authority: str = ""
    name: str = ""
    prefix: bytes = b""
    raw: bytes = b""
    timeout: float = 2.0
    keep: bool = False

    def document(self) -> dict[str, Any]:
        """As the client's program wants it."""
        return {**dataclasses.asdict(self), "prefix": self.prefix.hex(), "raw": self.raw.hex()}


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a request.

    Attributes:
        at: when it began, in seconds since the epoch.
        outcome: "answer", "timed out", "refused", "reset", "closed", "untrusted certificate",
            "not that protocol", or the error's own words.
        stage: how far it came: connect, tls, request.
        status: of the HTTP answer, and None without one.
        seconds: until the end of the answer or the failure.
        first_seconds: until the first piece of text of a streamed completion.
        connected_seconds: until the connection stood, TLS included.
        reused: it went over a connection that had carried a request before.
    """

    at: float
    outcome: str
    stage: str
    status: int | None
    headers: Mapping[str, str]
    body: str
    seconds: float
    reused: bool
    first_seconds: float | None = None
    connected_seconds: float | None = None

    @property
    def short(self) -> str:
        """Status of a whole answer, or what happened in place of one."""
        return str(self.status) if self.status and self.outcome == "answer" else self.outcome


class Client:
    """Whoever lives in a network namespace, or in a pod.

    Attributes:
        place: where it runs.
    """

    def __init__(self, place: Place, python: str = sys.executable) -> None:
        self.place = place
        self._command = [python, "-I", "-S", "-c", _PROGRAM.read_text()]

    def ask(self, request: Request) -> Result:
        """Make one request."""
        return self.ask_all([request])[0]

    def ask_all(self, requests: Sequence[Request]) -> list[Result]:
        """Make requests at the same time."""
        document = json.dumps({"requests": [one.document() for one in requests]})
        return [_result(line) for line in self.place.run(self._command, document + "\n").splitlines()]

    def repeat(self, request: Request, rate: float) -> Traffic:
        """Make a request again and again, `rate` times a second, until the traffic ends."""
        document = json.dumps({"repeat": request.document(), "rate": rate})
        return Traffic(self.place.command(self._command), document)


class Traffic:
    """Requests that go on while something else happens. Use as a context."""

    def __init__(self, command: Sequence[str], document: str) -> None:
        self._command = command
        self._document = document

    def __enter__(self) -> Self:
        # A file and not a pipe: what is not read yet must never hold the client back.
        self._written = tempfile.NamedTemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=self._written, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._document + "\n")
        self._process.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._final = self.results
        self._written.close()

    def stop(self) -> None:
        """Let the request in progress be the last, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    @property
    def results(self) -> list[Result]:
        """What has been answered so far, oldest first."""
        if self._written.closed:
            return self._final
        lines = pathlib.Path(self._written.name).read_text().splitlines(keepends=True)
        return [_result(line) for line in lines if line.endswith("\n")]


def _result(line: str) -> Result:
    return Result(**json.loads(line))
