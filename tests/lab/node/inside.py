"""Process 1 of a run's namespace: makes network and mounts, runs the command, reaps orphans."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from lab.node.space import ADDRESS, BRIDGE, VARIABLE

#: Folders that programs share by a fixed name.
_PRIVATE = ("/run/netns", "/run/containerd", "/var/lib/cni", "/var/log/pods", "/var/log/containers")


def main(command: Sequence[str]) -> int:
    """Exit code of the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _set_up()
    process = subprocess.Popen(command, preexec_fn=_heed_interrupts)
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _set_up() -> None:
    for folder in _PRIVATE:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        _call("mount", "-t", "tmpfs", "tmpfs", folder)
    # Images are unpacked at each start: in memory, about a gigabyte, that takes a tenth of the time.
    containers = pathlib.Path(os.environ[VARIABLE]) / "containerd"
    containers.mkdir()
    _call("mount", "-t", "tmpfs", "-o", "size=4g,mode=700", "tmpfs", str(containers))
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "link", "add", BRIDGE, "type", "bridge")
    _call("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    _call("ip", "link", "set", BRIDGE, "up")
    # Some programs take the interface of the default route for the node's. Nothing beyond the bridge exists.
    _call("ip", "route", "add", "default", "via", ADDRESS, "dev", BRIDGE)
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        path = pathlib.Path("/proc/sys") / name
        if path.exists():
            path.write_text("1")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
