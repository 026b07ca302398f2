"""The calls of pytest-kind, answered with the lab.

    get clusters
    create cluster --name=N --kubeconfig=F [--image=I] [--config F]
    load docker-image --name N IMAGE          accepted: fake nodes run no images
    delete cluster --name=N --kubeconfig=F

A cluster outlives the call that created it, but not the program that made the call (pytest): a
server process holds the lab and ends with whichever comes first, that program or `delete`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from lab.cluster import binaries

START_TIMEOUT = 90.0


def main(argv: Sequence[str], *, caller: int) -> int:
    """Entry point; `caller` is the process whose end ends the cluster."""
    parser = argparse.ArgumentParser(prog="kind", description="The lab, with the commands of kind.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("get").add_argument("what", choices=["clusters"])
    create = verbs.add_parser("create")
    load = verbs.add_parser("load")
    delete = verbs.add_parser("delete")
    for verb in (create, delete):
        verb.add_argument("what", choices=["cluster"])
        verb.add_argument("--kubeconfig", type=pathlib.Path, required=True)
    for verb in (create, load, delete):
        verb.add_argument("--name", default="kind")
    create.add_argument("--image")
    create.add_argument("--config")
    load.add_argument("what", choices=["docker-image"])
    load.add_argument("image")
    arguments = parser.parse_args(argv)
    match arguments.verb:
        case "get":
            print("\n".join(sorted(name for name in _names() if _alive(name))))
        case "create":
            return _create(arguments.name, arguments.kubeconfig, caller)
        case "load":
            print(f"fake nodes run no images; {arguments.image} is taken as loaded", file=sys.stderr)
        case "delete":
            _delete(arguments.name)
    return 0


def pod_proxy(name: str) -> str:
    """URL of the HTTP proxy that reaches the pods of a cluster."""
    return str(_read(name)["podProxy"])


def serve(name: str, kubeconfig: pathlib.Path, caller: int) -> None:
    """Hold the lab until the caller is gone or SIGTERM comes."""
    # Imported here: the other commands must answer without loading the lab.
    from lab.cluster.lab import Lab

    with Lab() as lab:
        config: dict[str, Any] = json.loads(lab.plane.kubeconfig.read_text())
        config["contexts"][0]["name"] = config["current-context"] = f"kind-{name}"
        kubeconfig.write_text(json.dumps(config))
        _write(name, {"pid": os.getpid(), "podProxy": lab.pod_proxy, "ready": True})
        stopped = signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 0)
        while stopped is None and _exists(caller):
            stopped = signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 0.5)
    _path(name).unlink(missing_ok=True)


def _create(name: str, kubeconfig: pathlib.Path, caller: int) -> int:
    if _alive(name):
        print(f'ERROR: node(s) already exist for a cluster with the name "{name}"', file=sys.stderr)
        return 1
    binaries.ensure()
    log_path = _path(name).with_suffix(".log")
    with open(log_path, "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "lab.cluster.kind", name, str(kubeconfig.resolve()), str(caller)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _write(name, {"pid": server.pid, "ready": False})
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        if _read(name).get("ready"):
            return 0
        time.sleep(0.1)
    print(f"ERROR: failed to create cluster:\n{log_path.read_text()[-2000:]}", file=sys.stderr)
    _delete(name)
    return 1


def _delete(name: str) -> None:
    pid = _read(name).get("pid")
    if pid is not None and _exists(pid):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while _exists(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
    _path(name).unlink(missing_ok=True)
    _path(name).with_suffix(".log").unlink(missing_ok=True)


def _folder() -> pathlib.Path:
    folder = binaries.cache_root() / "kind"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _path(name: str) -> pathlib.Path:
    return _folder() / f"{name}.json"


def _names() -> list[str]:
    return [path.stem for path in _folder().glob("*.json")]


def _read(name: str) -> dict[str, Any]:
    path = _path(name)
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return state


def _write(name: str, state: dict[str, Any]) -> None:
    """Replace the state in one step: `create` reads it while the server writes."""
    temporary = _path(name).with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(state))
    temporary.rename(_path(name))


def _alive(name: str) -> bool:
    return _exists(_read(name).get("pid"))


def _exists(pid: int | None) -> bool:
    """Whether a process runs; a zombie does not."""
    if pid is None:
        return False
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve(sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]))
