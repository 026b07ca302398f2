"""Envoy's files on this machine: laid out as the kubelet does it, with addresses of this machine.

A directory per version, `..data` pointing to one of them, and the files pointing through `..data`.
Source: kubernetes pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

_ADMIN = ("127.0.0.1", 9901)


def binary() -> str | None:
    """The Envoy of the development environment."""
    beside = pathlib.Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy")


def publish(directory: pathlib.Path, files: Mapping[str, str], version: int) -> None:
    """Put files where the kubelet would: the rename of `..data` is the only change that counts."""
    target = directory / f"..version_{version}"
    target.mkdir()
    for name, text in files.items():
        (target / name).write_text(text)
    pointer = directory / "..data_tmp"
    pointer.symlink_to(target.name)
    pointer.rename(directory / "..data")
    new = [name for name in files if not (directory / name).is_symlink()]
    if new and version:
        time.sleep(0.2)  # the names of new files come later
    for name in new:
        (directory / name).symlink_to(f"..data/{name}")


def remove_stale(directory: pathlib.Path) -> None:
    """What the kubelet removes last: names without a file, and versions that nothing points to."""
    current = (directory / "..data").readlink().name
    for path in directory.iterdir():
        if path.is_symlink() and path.name != "..data" and not path.exists():
            path.unlink()
        elif path.name.startswith("..version_") and path.name != current:
            shutil.rmtree(path)


def relocate(
    text: str, *, address: str, folders: Mapping[str, pathlib.Path], upstreams: Mapping[str, int]
) -> str:
    """A file of the configuration for a pod that listens on a loopback address of its own.

    Ports stay. What listens on every address or on the admin port listens on `address`; paths below
    the mount paths of `folders` lead there; clusters named in `upstreams` lead to a port of 127.0.0.1.
    What is not JSON stays as it is, for Envoy to refuse.
    """
    try:
        document = json.loads(text)
    except ValueError:
        return text
    for cluster in document.get("resources", ()) if isinstance(document, dict) else ():
        port = upstreams.get(cluster.get("name", ""))
        for endpoint in cluster.get("load_assignment", {}).get("endpoints", ()) if port else ():
            for item in endpoint["lb_endpoints"]:
                item["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return json.dumps(_moved(document, address, folders))


def _moved(value: Any, address: str, folders: Mapping[str, pathlib.Path]) -> Any:
    if isinstance(value, list):
        return [_moved(item, address, folders) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(item, address, folders) for key, item in value.items()}
    if "port_value" in moved and "address" in moved:
        everywhere = moved["address"] == "0.0.0.0"
        admin = (moved["address"], moved["port_value"]) == _ADMIN
        return {**moved, "address": address} if everywhere or admin else moved
    for key in ("path", "filename"):
        if isinstance(moved.get(key), str):
            moved[key] = below(moved[key], folders)
    return moved


def below(path: str, folders: Mapping[str, pathlib.Path]) -> str:
    """A path inside a mounted directory, on this machine."""
    for mounted, folder in folders.items():
        if path == mounted or path.startswith(f"{mounted}/"):
            return f"{folder}{path.removeprefix(mounted)}"
    return path
