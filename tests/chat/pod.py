"""The chat's pod on this machine: its containers with the rendered command and environment, on its paths.

A mount namespace holds a read-only root with this machine's programs, the chat's package where the image
has it, and the pod's volumes at their mount paths, writable by group 1000 as the kubelet leaves them.
Processes run as user 1000 without capabilities. Nothing of the environment is rewritten: the engine's name
stands in /etc/hosts. What is not here: the image's own layers and variables, memory limits, and the
network policies.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from chat import environments

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/dev", "/proc", "/sys")
_PACKAGE = "/app/backend/open_webui"
_DOCUMENTATION = pathlib.Path(__file__).resolve().parents[2] / "docs" / "chat.md"
_RESTORE = re.compile(r"rm -f webui\.db-wal .* && cp backups/NAME\.db webui\.db")
Manifest = dict[str, Any]


def variables(container: Manifest, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The environment of a container, as the kubelet makes it."""
    found = {}
    for entry in container["env"]:
        if "value" in entry:
            found[entry["name"]] = entry["value"].replace("$$(", "$(")
        else:
            ref = entry["valueFrom"]["secretKeyRef"]
            found[entry["name"]] = secrets[ref["name"]][ref["key"]]
    return found


class NotPrepared(Exception):
    """An init container failed; the message is what it printed."""


class Pod:
    """The chat's pod: one volume that stays, and processes that come and go."""

    def __init__(self, directory: pathlib.Path, hosts: Mapping[str, str]) -> None:
        """`hosts` are names and their addresses, for /etc/hosts."""
        self._directory = directory
        self._root = directory / "root"
        self._root.mkdir(parents=True)
        self._hosts = directory / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts.items())]
        self._hosts.write_text("\n".join([*lines, ""]))
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> pathlib.Path:
        """The chat's volume."""
        return self._directory / "data"

    @property
    def log(self) -> str:
        """What the chat has printed, over all its starts."""
        return self._log.read_text()

    def _command(self, pod: Manifest, container: Manifest, command: Sequence[str]) -> list[str]:
        """`command` in the container's file system, as its user."""
        venv = environments.open_webui()
        assert venv is not None
        root = shlex.quote(str(self._root))
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["readOnlyRootFilesystem"]
        script = ["set -e", f"mount -t tmpfs none {root}"]
        outside = {path: path for path in (*_SYSTEM, sys.base_prefix, str(venv)) if os.path.isdir(path)}
        outside[_PACKAGE] = str(environments.open_webui_packages() / "open_webui")
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for path, source in outside.items():
            script += [f"mkdir -p {root}{path}", f"mount --rbind {shlex.quote(source)} {root}{path}"]
        for volume in pod["volumes"]:
            if (place := mounted.get(volume["name"])) is not None:
                source = shlex.quote(str(self._volume(volume["name"], security["fsGroup"])))
                script += [f"mkdir -p {root}{place}", f"mount --bind {source} {root}{place}"]
        script += [f"mkdir -p {root}/etc", f"cp /etc/passwd /etc/group /etc/nsswitch.conf {root}/etc"]
        script += [f"cp {shlex.quote(str(self._hosts))} {root}/etc/hosts", f"mount -o remount,ro {root}"]
        user = ["--reuid", str(security["runAsUser"]), "--regid", str(security["runAsGroup"])]
        dropped = [
            "--groups",
            str(security["fsGroup"]),
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]
        script.append(f"exec chroot {root} {shlex.join(['setpriv', *user, *dropped, *command])}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)]

    def _volume(self, name: str, group: int) -> pathlib.Path:
        folder = self._directory / name
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, 0, group)
            folder.chmod(0o2775)
        return folder

    def _environment(self, container: Manifest, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        # The image's own: its interpreter is first on PATH.
        return {
            "PATH": f"{environments.open_webui()}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **variables(container, secrets),
        }

    def prepare(self, pod: Manifest, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Run the init containers to their end.

        Raises:
            NotPrepared: one failed.
        """
        for container in pod["initContainers"]:
            ended = subprocess.run(
                self._command(pod, container, [one.replace("$$(", "$(") for one in container["command"]]),
                env=self._environment(container, secrets),
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
            if ended.returncode:
                raise NotPrepared(ended.stderr)

    def start(self, pod: Manifest, secrets: Mapping[str, Mapping[str, str]], port: int) -> None:
        """Start the chat on a port of 127.0.0.1, with empty scratch volumes, without waiting."""
        (container,) = pod["containers"]
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                shutil.rmtree(self._directory / volume["name"], ignore_errors=True)
        command = ["open-webui", "serve", "--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(pod, container, command),
                env=self._environment(container, secrets),
                stdout=log,
                stderr=log,
            )

    def restore(self, name: str) -> None:
        """What docs/chat.md says to restore a copy, in its words."""
        command = _RESTORE.search(_DOCUMENTATION.read_text())
        assert command is not None
        script = command[0].replace("NAME.db", name)
        subprocess.run(["sh", "-ec", script], cwd=self.data, check=True, timeout=60)

    def running(self) -> bool:
        """Whether the chat's process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the chat, and wait for its end."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise
        finally:
            self._process = None
