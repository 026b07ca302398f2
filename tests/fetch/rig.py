"""Running the fetch against the hub simulator, in this process and as a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.fetch import main, store
from lab.hub import COMMIT, Blob, Hub, Repository, as_blob, small_model

MODEL = "acme/tiny"
TOKEN = "hf_secretsecretsecret"
OPERATOR = pathlib.Path(main.__file__).parents[2]
TESTS = pathlib.Path(__file__).parents[1]
#: A small model beside what is never fetched.
FILES: dict[str, bytes | Blob] = {
    **small_model(40_000, shards=3, seed=MODEL),
    "pytorch_model.bin": b"pickle" * 100,
    "onnx/model.safetensors": b"other" * 100,
}
UNWANTED = {"README.md", ".gitattributes", "pytorch_model.bin", "onnx/model.safetensors"}
WEIGHTS = sorted(path for path in FILES if path.startswith("model-"))


def wanted(files: Mapping[str, bytes | Blob] = FILES) -> dict[str, bytes]:
    """What is published of these files."""
    return {path: content(blob) for path, blob in sorted(files.items()) if path not in UNWANTED}


def content(value: bytes | Blob) -> bytes:
    blob = as_blob(value)
    return b"".join(blob.read(0, blob.size))


def published(target: pathlib.Path) -> dict[str, bytes]:
    """Files of a model's directory, without its marker."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != store.MARKER
    }


def hub_of(files: Mapping[str, bytes | Blob] = FILES, **more: Any) -> Hub:
    return Hub({MODEL: Repository(files=dict(files), **more)})


@dataclasses.dataclass
class Rig:
    """A hub, a volume, and the fetch between them."""

    hub: Hub
    url: str
    directory: pathlib.Path

    @property
    def models(self) -> pathlib.Path:
        return self.directory / "models"

    @property
    def target(self) -> pathlib.Path:
        return self.models / "tiny"

    @property
    def log(self) -> pathlib.Path:
        return self.directory / "termination-log"

    @property
    def repository(self) -> Repository:
        return self.hub.repositories[MODEL]

    @property
    def work(self) -> pathlib.Path:
        return store.work_directory(self.target, COMMIT)

    def arguments(self, **options: object) -> list[str]:
        given = {"model": MODEL, "target": self.target, "stall-seconds": 30, "lock-seconds": 0}
        given |= {"termination-log": self.log}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        return [f"--{name}={value}" for name, value in given.items()]

    def run(self, token: str | None = None, **options: object) -> int:
        """In this process; the exit code."""
        self.log.write_text("")
        environment = {"HF_ENDPOINT": self.url} | ({"HF_TOKEN": token} if token else {})
        return main.run(main.parse(self.arguments(**options)), environment)

    def names(self) -> list[str]:
        """What the volume holds."""
        return sorted(path.name for path in self.models.iterdir())

    @contextlib.contextmanager
    def process(self, **options: object) -> Iterator[subprocess.Popen[str]]:
        """As the Job runs it."""
        with self._started(["ai_sandbox_operator", "fetch", *self.arguments(**options)]) as running:
            yield running

    @contextlib.contextmanager
    def killing(self, step: int, count: pathlib.Path | str) -> Iterator[subprocess.Popen[str]]:
        """Killed at a step; see `fetch.killing`."""
        module = ["fetch.killing", str(step), str(self.models), str(count)]
        with self._started([*module, "fetch", *self.arguments()]) as running:
            yield running

    @contextlib.contextmanager
    def sweeping(self, *keep: str) -> Iterator[subprocess.Popen[str]]:
        """The removal of all models but those to keep."""
        with self._started(["ai_sandbox_operator", "fetch", *self.sweep_arguments(*keep)]) as running:
            yield running

    def sweep_arguments(self, *keep: str) -> list[str]:
        options = [f"--models-directory={self.models}", f"--termination-log={self.log}", "--lock-seconds=0"]
        return ["--sweep", *options, *(f"--keep={name}" for name in keep)]

    @contextlib.contextmanager
    def _started(self, module: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        self.log.write_text("")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": self.url,
            "PYTHONPATH": f"{OPERATOR}:{TESTS}",
            "HOME": str(self.directory),
        }
        command = [sys.executable, "-m", *module]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def complete_files(self) -> set[str]:
        """Files of the work directory that are there as the hub holds them."""
        held = {path: content(blob) for path, blob in self.repository.files.items()}
        return {
            path
            for path, data in held.items()
            if (self.work / path).is_file() and (self.work / path).read_bytes() == data
        }

    def finish(self, **options: object) -> tuple[int, list[dict[str, Any]]]:
        """As a process, to its end: exit code and what it said."""
        with self.process(**options) as running:
            out, _ = running.communicate(timeout=120)
        return running.returncode, lines(out)


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]
