"""The programs of these tests: Open WebUI from its package, and a browser with what drives it.

Open WebUI and the browser's driver want other versions of common packages than the project does, so each
lives in an environment of its own, made once in the lab's cache from a lock beside this file. The browser
comes from the distribution: the driver's own download is not needed.

`python -m chat.environments` installs what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from lab.cluster import binaries

HERE = pathlib.Path(__file__).resolve().parent
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


class Missing(Exception):
    """Something cannot be installed from here; the message says what to do."""


def _folder(name: str) -> pathlib.Path:
    digest = hashlib.sha256((HERE / f"{name}.lock").read_bytes()).hexdigest()[:16]
    return binaries.cache_root() / f"{name}-{_PYTHON}-{digest}"


def _packages(name: str) -> pathlib.Path:
    return _folder(name) / "lib" / _PYTHON / "site-packages"


def open_webui() -> pathlib.Path | None:
    """The environment that holds Open WebUI; None before it is installed."""
    folder = _folder("open-webui")
    return folder if (folder / "ready").exists() else None


def open_webui_packages() -> pathlib.Path:
    """The directory in which the package `open_webui` lies."""
    return _packages("open-webui")


def driver() -> pathlib.Path | None:
    """The directory in which the package `playwright` lies; None before it is installed."""
    return _packages("playwright") if (_folder("playwright") / "ready").exists() else None


def browser() -> str | None:
    """A Chromium of this machine."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def install() -> None:
    """Install what is missing.

    Raises:
        Missing: the tests cannot run here, or there is no Chromium and it cannot be installed.
        subprocess.CalledProcessError: a package could not be installed.
    """
    if os.geteuid() != 0:
        raise Missing("the chat's pod needs mounts: run this as root")
    for name in ("open-webui", "playwright"):
        _install(name)
    if browser() is not None:
        return
    if shutil.which("apt-get") is None:
        raise Missing("no Chromium on PATH: install it (Debian: apt-get install chromium)")
    print("installing chromium")
    _run(["apt-get", "update"])
    _run(["apt-get", "install", "--yes", "--no-install-recommends", "chromium"])


def _install(name: str) -> None:
    folder = _folder(name)
    python, ready = folder / "bin" / "python", folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if ready.exists():
            return
        print(f"installing {name} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        # Not the project's own environment: the chat's pod sees the interpreter that both come from.
        _run([f"{sys.base_prefix}/bin/{_PYTHON}", "-m", "venv", str(folder)])
        # The locks are complete; without this, what is left out on purpose would be wanted again.
        options = ["--quiet", "--no-deps", "--require-hashes", "-r", str(HERE / f"{name}.lock")]
        _run([str(python), "-m", "pip", "install", *options])
        ready.touch()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    try:
        install()
    except Missing as missing:
        sys.exit(str(missing))
