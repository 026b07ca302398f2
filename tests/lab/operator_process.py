"""The operator as a process of its own, so that it can be killed like one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence

OPERATOR_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "operator"


class OperatorProcess:
    """`ai-sandbox-operator run` against the lab.

    Attributes:
        log_path: all that it said, over all its lives.
    """

    def __init__(
        self,
        *,
        kubeconfig: str,
        linode_url: str,
        log_path: pathlib.Path,
        token: str | None = "operator-token",
        token_file: pathlib.Path | None = None,
        namespaces: Sequence[str] = (),
        lease_namespace: str = "default",
        pod_proxy: str = "",
        hub_endpoint: str = "",
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        code: pathlib.Path = OPERATOR_FOLDER,
    ) -> None:
        self.log_path = log_path
        self._env = {
            **os.environ,
            "PYTHONPATH": str(code),
            "PYTHONWARNINGS": "default",
            **(env or {}),
        }
        self._env.pop("LINODE_TOKEN", None)
        if token is not None:
            self._env["LINODE_TOKEN"] = token
        scope = [part for namespace in namespaces for part in ("--namespace", namespace)]
        secret = ["--linode-token-file", str(token_file)] if token_file else []
        self._argv = [
            sys.executable,
            "-m",
            "ai_sandbox_operator",
            "run",
            *("--kubeconfig", kubeconfig),
            *("--linode-url", linode_url),
            *("--lease-namespace", lease_namespace),
            *("--health-host", "127.0.0.1", "--health-port", "0"),
            *("--log-format", "json"),
            *(("--pod-proxy", pod_proxy) if pod_proxy else ()),
            *(("--hub-endpoint", hub_endpoint) if hub_endpoint else ()),
            *scope,
            *secret,
            *flags,
        ]
        self._process: asyncio.subprocess.Process | None = None

    def upgrade(self, *flags: str) -> None:
        """Further flags from the next start on, such as other images; the last one counts."""
        self._argv += flags

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process else None

    async def start(self, *, wait: bool = True, timeout: float = 30.0) -> None:
        """Start; with `wait`, return when it reconciles.

        Raises:
            RuntimeError: it ended, or does not reconcile in time; with its last lines.
        """
        before = self._size()
        with open(self.log_path, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdout=log, stderr=log, env=self._env
            )
        deadline = time.monotonic() + timeout
        while wait and '"message": "reconciling"' not in self.log(before):
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"the operator does not reconcile:\n{self.log(before)[-3000:]}")
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL; safe to call when it does not run."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM and wait; its exit code."""
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        return await self.wait()

    async def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        if self._process is None:
            return 0
        try:
            return await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def log(self, since: int = 0) -> str:
        """What it said since byte `since`."""
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def _size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0
