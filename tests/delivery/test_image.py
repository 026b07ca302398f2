"""The image: its steps are replayed here, since no container engine is needed for what they do."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from delivery import dockerfile

NOBODY = 65532
STAGES = dockerfile.stages((dockerfile.ROOT / "Dockerfile").read_text())


def values(name: str) -> list[str]:
    """Values of an instruction in the final stage."""
    return [step.value for step in STAGES[-1] if step.name == name]


@pytest.fixture(scope="module")
def installed() -> Iterator[pathlib.Path]:
    """The replayed /opt/ai-sandbox, which nobody may write to; other users may read it."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="image-"))
    root.chmod(0o755)
    try:
        dockerfile.replay(STAGES[0], root)
        environment = root / "opt" / "ai-sandbox"
        subprocess.run(["chmod", "-R", "a-w", str(environment)], check=True)
        yield environment
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)
        shutil.rmtree(root)


def started(installed: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program, as another user if we may choose one."""
    user = NOBODY if os.geteuid() == 0 else None
    return subprocess.run(
        [str(installed / "bin" / "ai-sandbox-operator"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
        user=user,
        group=user,
        extra_groups=[] if user else None,
        timeout=60,
    )


def test_the_final_stage_runs_the_program_as_nobody_and_the_operator_by_default() -> None:
    assert values("USER") == [f"{NOBODY}:{NOBODY}"]
    assert values("ENTRYPOINT") == ['["ai-sandbox-operator"]']
    assert values("CMD") == ['["run"]']


def test_both_stages_have_the_same_base_so_that_the_link_to_the_interpreter_holds() -> None:
    first, last = (stage[0].value.split()[0] for stage in (STAGES[0], STAGES[-1]))
    assert first == last


def test_every_package_from_the_internet_is_installed_by_its_hash() -> None:
    text = " && ".join(step.value for step in STAGES[0] if step.name == "RUN")
    installs = [command for command in text.split("&&") if " install " in command]
    assert len(installs) == 3
    assert all("--require-hashes" in command or "--no-index" in command for command in installs)


def test_the_final_image_copies_the_environment_only_and_removes_pip() -> None:
    assert values("COPY") == ["--from=build /opt/ai-sandbox /opt/ai-sandbox"]
    assert values("RUN") == ["python -m pip uninstall --yes pip"]


def test_nothing_of_the_checkout_reaches_the_build_but_what_is_copied() -> None:
    secrets = (".git", ".venv", "tests", "charts", "docs", ".github/workflows", "token.txt")
    assert all(dockerfile.ignored(path) for path in secrets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--help"], "run"), (["run", "--help"], "--kubeconfig"), (["fetch", "--help"], "fetch")],
)
def test_the_replayed_image_starts_each_command_for_another_user(
    installed: pathlib.Path, arguments: list[str], word: str
) -> None:
    done = started(installed, *arguments)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout


@pytest.mark.slow
def test_the_replayed_image_holds_every_module_and_no_pip(installed: pathlib.Path) -> None:
    (packages,) = installed.glob("lib/python3*/site-packages")
    source = dockerfile.ROOT / "operator" / "ai_sandbox_operator"
    wanted = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    target = packages / "ai_sandbox_operator"
    got = {
        path.relative_to(target)
        for path in target.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted == got
    assert not (packages / "pip").exists()
