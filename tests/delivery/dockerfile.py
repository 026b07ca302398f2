"""A Dockerfile as its instructions, and its build stage replayed without a container engine."""

from __future__ import annotations

import dataclasses
import glob
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: What the build stage writes to. Each is moved below the replay's own root.
_PLACES = re.compile(r"(?<![\w/.])/(src|opt)(?=/|\s|$)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction, with its continuation lines joined."""

    name: str
    value: str


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of each stage; each list begins with FROM."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    result: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            result.append([])
        result[-1].append(Instruction(name, value.strip()))
    return result


def interpreter() -> str:
    """A Python that another user may execute, as the image's can be."""
    for candidate in ("/usr/bin/python3", str(pathlib.Path(sys.executable).resolve())):
        if pathlib.Path(candidate).exists():
            command = [candidate, "-c", "import sys; raise SystemExit(sys.version_info < (3, 11))"]
            if subprocess.run(command, check=False).returncode == 0:
                return candidate
    return sys.executable


def replay(stage: list[Instruction], root: pathlib.Path) -> None:
    """Run the COPY and RUN steps of a stage below `root`; raises CalledProcessError if a step fails."""
    tools = root / "tools"
    tools.mkdir()
    base = pathlib.Path(sys.executable).resolve()
    (tools / "python").write_text(f'#!/bin/sh\nexec {interpreter()} "$@"\n')
    (tools / "pip").write_text(f'#!/bin/sh\nexec {base} -m pip "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    directory = root
    for step in stage:
        match step.name:
            case "WORKDIR":
                directory = pathlib.Path(_moved(step.value, root))
                directory.mkdir(parents=True)
            case "ENV":
                environment |= dict(item.split("=", 1) for item in shlex.split(step.value))
            case "COPY":
                *sources, target = shlex.split(step.value)
                for source in sources:
                    _copy(source, directory / target)
            case "RUN":
                command = ["sh", "-ec", _moved(step.value, root)]
                subprocess.run(command, cwd=directory, env=environment, check=True)
            case "FROM":
                pass
            case other:
                raise AssertionError(f"the replay does not know {other}")


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build, as far as its rules are used here: `*` and exceptions."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    return not any(path == rule or path.startswith(rule + "/") for rule in kept)


def _moved(text: str, root: pathlib.Path) -> str:
    return _PLACES.sub(lambda match: f"{root}/{match[1]}", text)


def _copy(source: str, target: pathlib.Path) -> None:
    assert not ignored(source), f".dockerignore keeps {source} out"
    found = glob.glob(source, root_dir=ROOT, include_hidden=True)
    assert found, f"nothing to copy: {source}"
    for name in found:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target / path.name if target.is_dir() else target)
