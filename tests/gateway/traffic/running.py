"""The gateway as it runs in a pod, with two workers, and what traffic tests do to it."""

from __future__ import annotations

import asyncio
import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import envoy, facts
from lab.envoy import process as envoy_process

#: Seconds after the reported revision in which a worker may still judge by the old one.
SWAP_SECONDS = 0.25
_DEADLINE_SECONDS = 15.0


class HasPort(Protocol):
    """Where an upstream listens."""

    @property
    def port(self) -> int: ...


class Running(envoy_process.Gateway):
    """An Envoy with two workers, as in the pod: a worker learns of a change on its own."""

    def __init__(
        self, directory: pathlib.Path, upstream: HasPort, replacements: Mapping[str, str] | None = None
    ) -> None:
        """`replacements` are made in the written JSON, to shrink durations; each must occur."""
        directory.mkdir(exist_ok=True)
        super().__init__(directory, cast("envoy_process.Upstream", upstream))
        self._replacements = replacements or {}
        self._replaced: set[str] = set()
        self._output = directory / "output"
        self.process: subprocess.Popen[bytes] | None = None

    def _rewrite(self, text: str) -> str:
        text = super()._rewrite(text)
        for old, new in self._replacements.items():
            if old in text:
                self._replaced.add(old)
            text = text.replace(old, new)
        return text

    def write(self, sandbox: v1alpha1.AISandbox, known: facts.Facts) -> None:
        super().write(sandbox, known)
        missing = set(self._replacements) - self._replaced
        assert not missing, f"not in the rendered configuration: {missing}"

    def start(self) -> None:
        self.launch()
        envoy_process.wait_for(lambda: self.status("/ready").status == 200)

    def launch(self) -> None:
        """Start without waiting."""
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    str(envoy_process.binary()),
                    *("-c", str(self.config / "envoy.json"), "--disable-hot-restart"),
                    "--reject-unknown-dynamic-fields",
                    *("--concurrency", "2", "--drain-time-s", "240", "--file-flush-interval-msec", "100"),
                    *("--log-level", "warning"),
                ],
                stdout=output,
                stderr=output,
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self._output.read_text()

    def port(self, listener: str) -> Callable[[], int]:
        return lambda: self.ports[listener]

    async def apply(self, sandbox: v1alpha1.AISandbox, known: facts.Facts) -> float:
        """Write and wait until the status listener reports it; returns the seconds between."""
        began = time.monotonic()
        await asyncio.to_thread(self.write, sandbox, known)
        written = self.written()
        await until(lambda: all(self.serving(revision, name) for name, revision in written.items()))
        return time.monotonic() - began

    def written(self) -> dict[str, str]:
        """The revision of each listener's route configuration as it was last written."""
        listeners = json.loads((self.config / "..data" / "lds.json").read_text())["resources"]
        documents = [json.loads(file.read_text()) for file in (self.config / "..data").glob("rds-*.json")]
        revisions = {document["resources"][0]["name"]: document["version_info"] for document in documents}
        return {one["name"]: revisions[one["name"]] for one in listeners if one["name"] in revisions}

    def counter(self, pattern: str) -> int:
        """The sum of all counters whose name matches a regular expression."""
        text = self.admin(f"/stats?filter={pattern}")
        return sum(int(line.rpartition(": ")[2]) for line in text.splitlines() if line)

    def damage(self, sandbox: v1alpha1.AISandbox, known: facts.Facts, edits: Mapping[str, Edit]) -> None:
        """Write a configuration some of whose files are edited after rendering."""
        files = {name: self._rewrite(text) for name, text in envoy.configuration(sandbox, known)[1].items()}
        files.update({name: edit(files[name]) for name, edit in edits.items()})
        envoy_process.publish(self.config, files, self._versions)
        self._versions += 1


Edit = Callable[[str], str]


def edited(change: Callable[[dict[str, Any]], None]) -> Edit:
    """An edit of a file's resources, under a version of its own."""

    def edit(text: str) -> str:
        document = json.loads(text)
        document["version_info"] = "edited"
        for resource in document["resources"]:
            change(resource)
        return json.dumps(document)

    return edit


async def until(condition: Callable[[], bool]) -> None:
    """Poll a blocking condition off the event loop until it holds."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            if await asyncio.to_thread(condition):
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise AssertionError("condition not met in time")
