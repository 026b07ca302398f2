"""curl as a user would call it, from the place where that user is."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Mapping

_TIMEOUT = 20


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        pieces: seconds after the start at which each line of the body came.
    """

    status: int
    body: str
    pieces: tuple[float, ...]

    @property
    def code(self) -> str:
        """The code of an error in the form of the OpenAI API."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def streamed(self) -> bool:
        """Whether the body came in pieces over time, with an end."""
        return self.body.rstrip().endswith("data: [DONE]") and self.pieces[-1] - self.pieces[0] > 0.1


class Curl:
    """One user.

    Args:
        folder: where the user's files are.
        host: where the NodeBalancer really listens.
        source: the loopback address that stands for the user's.
        variables: what the user's shell knows, such as keys.
    """

    def __init__(self, folder: pathlib.Path, *, host: str, source: str, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._variables = variables
        self._config = folder / f"curlrc-{source}"
        # The URL, its port and the check of the certificate stay as the user wrote them.
        self._config.write_text(
            f'connect-to = "::{host}:"\ninterface = "{source}"\nnoproxy = "*"\n'
            f'max-time = {_TIMEOUT}\nwrite-out = "\\n%{{http_code}}"\nsilent\nshow-error\nno-buffer\n'
        )

    @staticmethod
    def available() -> bool:
        """Whether there is a curl."""
        return shutil.which("curl") is not None

    async def run(self, *arguments: str) -> Answer:
        """Run it; `$NAME` in an argument is a variable of the user's shell.

        Raises:
            AssertionError: curl got no answer, or trusts it not.
        """
        process = await asyncio.create_subprocess_exec(
            "curl",
            *("--config", str(self._config)),
            *(self._known(argument) for argument in arguments),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        began = time.monotonic()
        lines = [(time.monotonic() - began, line.decode()) async for line in process.stdout]
        complaint = (await process.stderr.read()).decode()
        if await process.wait() != 0:
            raise AssertionError(f"curl {' '.join(arguments)}: {complaint}")
        body = "".join(text for _, text in lines[:-1])
        pieces = tuple(at for at, text in lines[:-1] if text.strip())
        return Answer(int(lines[-1][1]), body, pieces)

    def _known(self, argument: str) -> str:
        for name, value in self._variables.items():
            argument = argument.replace(f"${name}", value)
        return argument


def shown(arguments: tuple[str, ...]) -> str:
    """The command line as a user would type it."""
    quoted = (f'"{part}"' if "$" in part else f"'{part}'" if " " in part else part for part in arguments)
    return " ".join(["curl", *quoted])
