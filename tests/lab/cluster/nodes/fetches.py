"""Fetch pods that really fetch: the operator's own program, with the pod's arguments and environment.

Volumes are directories, one for each PersistentVolumeClaim, so a model outlives its pod. For pods that a
rule says this of (`fetch="real"`); the others succeed as told.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.envoys import end_with_parent
from lab.cluster.nodes.mounts import Read
from lab.envoy import layout

#: Of a termination message; the kubelet reads no more.
_MESSAGE_LIMIT = 4096
_OPERATOR = pathlib.Path(__file__).parents[4] / "operator"


class FetchPod:
    """One run of a fetch pod's container.

    Args:
        pod: its manifest.
        read: the API server.
        volumes: directory that holds the claims' directories.
        folder: for the container's own files.
        tell: called when it has ended.

    Attributes:
        exit_code: as a container runtime tells it, 128 and the signal's number after a signal; None: it runs.
    """

    def __init__(
        self,
        pod: Mapping[str, Any],
        read: Read,
        volumes: pathlib.Path,
        folder: pathlib.Path,
        tell: Callable[[], None],
    ) -> None:
        self._pod, self._read, self._volumes, self._tell = pod, read, volumes, tell
        self._log, self._message = folder / "log", folder / "termination-log"
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True)
        self._process: asyncio.subprocess.Process | None = None
        self._ended = False
        self.exit_code: int | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def message(self) -> str:
        """The termination message."""
        return self._message.read_text(errors="replace")[:_MESSAGE_LIMIT] if self._message.exists() else ""

    async def run(self) -> None:
        """From the container's start to its end."""
        container = self._pod["spec"]["containers"][0]
        folders = await self._folders(container)
        self._message.write_text("")
        arguments = [_moved(argument, folders) for argument in container["args"]]
        # Its default is the kubelet's file, which is not there outside a container.
        arguments += ["--termination-log", str(self._message)]
        environment = await self._environment(container, folders)
        if self._ended:
            return
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ai_sandbox_operator",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=end_with_parent,
            )
        code = await self._process.wait()
        self.exit_code = code if code >= 0 else 128 - code
        self._tell()

    async def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL when `grace` seconds are over."""
        self._ended = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(TimeoutError, ProcessLookupError):
                self._process.terminate()
                await asyncio.wait_for(self._process.wait(), grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self._ended = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _folders(self, container: Mapping[str, Any]) -> dict[str, pathlib.Path]:
        """Where the mounted directories are on this machine, by path in the container."""
        namespace = self._pod["metadata"]["namespace"]
        sources: dict[str, pathlib.Path] = {}
        for volume in self._pod["spec"].get("volumes") or ():
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name is None:
                sources[volume["name"]] = self._temporary
                continue
            claim = await self._read(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
            if claim is None:
                raise LookupError(f"no claim {namespace}/{name}")
            # By UID: a claim that is made anew has an empty volume.
            folder = self._volumes / f"{namespace}-{name}-{claim['metadata']['uid']}"
            folder.mkdir(parents=True, exist_ok=True)
            sources[volume["name"]] = folder
        return {one["mountPath"]: sources[one["name"]] for one in container.get("volumeMounts") or ()}

    async def _environment(
        self, container: Mapping[str, Any], folders: Mapping[str, pathlib.Path]
    ) -> dict[str, str]:
        """The pod's variables, and no others but those that find the program."""
        found = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_OPERATOR)}
        namespace = self._pod["metadata"]["namespace"]
        for variable in container.get("env") or ():
            if reference := (variable.get("valueFrom") or {}).get("secretKeyRef"):
                secret = await self._read(f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}")
                value = ((secret or {}).get("data") or {}).get(reference["key"])
                if value is not None:
                    found[variable["name"]] = base64.b64decode(value).decode()
            else:
                found[variable["name"]] = layout.below(variable.get("value", ""), folders)
        return found


class Fetches:
    """All fetch pods that really fetch, by UID.

    Args:
        read: the API server.
        behaviour_of: the rule for a pod.
        volumes: directory that holds the claims' directories; None: one that goes with the nodes.
    """

    def __init__(
        self,
        read: Read,
        behaviour_of: Callable[[Mapping[str, Any]], Behaviour],
        volumes: pathlib.Path | None = None,
    ) -> None:
        self._read, self._behaviour_of, self._given = read, behaviour_of, volumes
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._pods: dict[str, FetchPod] = {}
        self._runs = 0

    def wants(self, pod: Mapping[str, Any]) -> bool:
        """Whether the pod's container is to run really."""
        arguments = pod["spec"]["containers"][0].get("args") or [""]
        return bool(arguments[0] == "fetch" and self._behaviour_of(pod).fetch == "real")

    def start(self, pod: Mapping[str, Any], tell: Callable[[], None]) -> Coroutine[Any, Any, None]:
        """The container starts; the coroutine is its life."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lab-fetch-")
        folder = pathlib.Path(self._temporary.name)
        self._runs += 1
        volumes = self._given or folder / "volumes"
        run = FetchPod(pod, self._read, volumes, folder / f"run-{self._runs}", tell)
        self._pods[pod["metadata"]["uid"]] = run
        return run.run()

    def find(self, uid: str) -> FetchPod | None:
        return self._pods.get(uid)

    def gone(self, uid: str) -> None:
        """The pod is gone."""
        if (run := self._pods.pop(uid, None)) is not None:
            run.kill()

    def view(self, uid: str, rule: Behaviour) -> Behaviour:
        """The rule, and what has become of the process where the rule says nothing."""
        run = self._pods.get(uid)
        if run is None or rule.kind != "normal":
            return rule
        if run.exit_code is None:
            return replace(rule, kind="never-ready")
        return replace(
            rule, kind="crash", seconds=0.0, exit_code=run.exit_code, message=run.message or None, log=run.log
        )

    def stop(self) -> None:
        """End everything at once."""
        for uid in list(self._pods):
            self.gone(uid)
        if self._temporary is not None:
            self._temporary.cleanup()


def _moved(argument: str, folders: Mapping[str, pathlib.Path]) -> str:
    """`/models/x` or `--target=/models/x`, on this machine."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals:
        return f"{option}={layout.below(value, folders)}"
    return layout.below(argument, folders)
