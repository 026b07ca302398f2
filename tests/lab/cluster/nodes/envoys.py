"""A real Envoy as the process of a gateway pod.

Every pod has a loopback address of its own, so all ports are those of the manifest. Arguments, files
and the preStop hook are the pod's; only addresses, directories and `--concurrency` are changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import pathlib
import signal
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from lab.cluster.nodes import mounts
from lab.envoy import layout

log = logging.getLogger("lab.nodes")

_STATUS_PORT = 9902
#: Seconds between two looks at /ready: while starting, and later.
_STARTING, _RUNNING = 0.05, 0.3
_PR_SET_PDEATHSIG = 1


class EnvoyPod:
    """One pod's Envoy.

    Args:
        pod: its manifest.
        address: a loopback address that nobody else uses.
        folder: for its files; made here.
        upstreams: port on 127.0.0.1 by cluster.
        tell: called when `ready` or `exit_code` has changed.

    Attributes:
        ready: the last answer to the readiness probe.
        exit_code: how it ended by itself; None while it runs.
    """

    def __init__(
        self,
        pod: Mapping[str, Any],
        address: str,
        folder: pathlib.Path,
        upstreams: Mapping[str, int],
        tell: Callable[[], None],
    ) -> None:
        self._container = pod["spec"]["containers"][0]
        self._address = address
        self._folders = {
            volume.path: folder / volume.path.strip("/").replace("/", "-") for volume in mounts.volumes(pod)
        }
        self._log = folder / "log"
        self._upstreams = upstreams
        self._tell = tell
        self._versions = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.ready = False
        self.exit_code: int | None = None
        folder.mkdir(parents=True)
        for directory in self._folders.values():
            directory.mkdir()

    @property
    def address(self) -> str:
        return self._address

    @property
    def log(self) -> str:
        """What it wrote: warnings and the access log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def mount(self, path: str, files: Mapping[str, str]) -> None:
        """Replace the files of a mounted directory."""
        directory = self._folders[path]
        moved = {
            name: layout.relocate(
                text, address=self._address, folders=self._folders, upstreams=self._upstreams
            )
            if name.endswith(".json")
            else text
            for name, text in files.items()
        }
        self._versions += 1
        # In a thread: the names of new files come 0.2 s after the files.
        first = not (directory / "..data").exists()
        await asyncio.to_thread(layout.publish, directory, moved, 0 if first else self._versions)
        await asyncio.to_thread(layout.remove_stale, directory)

    async def start(self) -> None:
        """Start the container; again after it ended."""
        self.kill()
        self.ready, self.exit_code = False, None
        program = layout.binary()
        assert program is not None
        arguments = [layout.below(argument, self._folders) for argument in self._container["args"]]
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *arguments[: arguments.index("--concurrency")],
                *("--concurrency", "1"),
                *arguments[arguments.index("--concurrency") + 2 :],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,
            )
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def end(self, grace: float) -> None:
        """preStop hook, SIGTERM, and SIGKILL when `grace` seconds are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._hook()
                if self._process is not None and self._process.returncode is None:
                    self._process.terminate()
                    await self._process.wait()
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and no look at it any more."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self.ready = False

    async def _hook(self) -> None:
        command = self._container["lifecycle"]["preStop"]["exec"]["command"]
        moved = [part.replace("/dev/tcp/127.0.0.1/", f"/dev/tcp/{self._address}/") for part in command]
        hook = await asyncio.create_subprocess_exec(
            *moved,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
        try:
            await hook.wait()
        finally:
            if hook.returncode is None:
                hook.kill()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Follow readiness until the process ends."""
        ended = asyncio.create_task(process.wait())
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
                while not ended.done():
                    ready = await self._probe(session)
                    if ready != self.ready:
                        self.ready = ready
                        self._tell()
                    await asyncio.wait([ended], timeout=_RUNNING if ready else _STARTING)
            self.ready, self.exit_code = False, ended.result()
            self._tell()
        finally:
            ended.cancel()

    async def _probe(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://{self._address}:{_STATUS_PORT}/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def end_with_parent() -> None:
    """No process outlives the nodes, however they end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
