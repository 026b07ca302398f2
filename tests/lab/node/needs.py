"""What a machine must have for a real node, and how to get it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

#: Debian package of each program.
_PROGRAMS = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
_FILES = {"/usr/lib/cni/bridge": "containernetworking-plugins"}
#: Hierarchies that the kubelet needs, as a machine with cgroup v1 mounts them; with v2 it is one.
_CGROUPS = pathlib.Path("/sys/fs/cgroup")


class Unavailable(Exception):
    """No node can run here; the message says what is missing and how to get it."""


def packages() -> list[str]:
    """Debian packages that are missing."""
    programs = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    files = [package for path, package in _FILES.items() if not pathlib.Path(path).exists()]
    return sorted({*programs, *files})


def missing() -> str:
    """What is missing, as a sentence; empty if nothing is."""
    if sys.platform != "linux":
        return "a real node needs Linux"
    if os.geteuid() != 0:
        return "a real node needs root: run as root, for example in a virtual machine"
    if lacking := packages():
        return (
            f"missing Debian packages: {' '.join(lacking)}; get them with `python -m lab.node prepare`, "
            f"or with: apt-get install --no-install-recommends {' '.join(lacking)}"
        )
    if not (_CGROUPS / "memory").is_dir() and not (_CGROUPS / "cgroup.controllers").exists():
        return f"no cgroups at {_CGROUPS}: mount them"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"no own namespaces: {tried.stderr.strip()}; run with CAP_SYS_ADMIN"
    return ""


def require() -> None:
    """Raises: Unavailable."""
    if words := missing():
        raise Unavailable(words)


def install() -> None:
    """Install the missing packages with apt.

    Raises:
        Unavailable: there is no apt, or it failed.
    """
    lacking = packages()
    if not lacking:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(missing())
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["--yes", "--no-install-recommends", "--quiet"]
    for command in (["apt-get", "update", "--quiet"], ["apt-get", "install", *options, *lacking]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
