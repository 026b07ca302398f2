"""The cloud controller manager as a whole: clients, life, restart."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from types import TracebackType
from typing import Any

from lab.linode.ccm.balancer import Options
from lab.linode.ccm.controller import Controller
from lab.linode.ccm.kube import Kube, KubeClient
from lab.linode.ccm.linode import Linode


class CloudControllerManager:
    """`async with CloudControllerManager(kubeconfig=..., linode_url=...)`: runs until the block ends."""

    def __init__(
        self,
        *,
        kubeconfig: str | pathlib.Path | None = None,
        linode_url: str,
        token: str = "ccm-token",
        kube: Kube | None = None,
        retry_min: float = 0.5,
        retry_max: float = 10.0,
        **options: Any,
    ) -> None:
        self._kubeconfig, self._kube = kubeconfig, kube
        self._linode_url, self._token = linode_url, token
        self._retries = (retry_min, retry_max)
        self.options = Options(**options)
        self.controller: Controller
        self._stack = contextlib.AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> CloudControllerManager:
        linode = await self._stack.enter_async_context(Linode(self._linode_url, self._token))
        kube = self._kube
        if kube is None:
            assert self._kubeconfig is not None, "a kubeconfig is needed"
            client = KubeClient(self._kubeconfig)
            self._stack.push_async_callback(client.close)
            kube = client
        self._parts = (kube, linode)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        await self._stack.aclose()

    async def start(self) -> None:
        kube, linode = self._parts
        self.controller = Controller(kube, linode, self.options, *self._retries)
        self._task = asyncio.create_task(self.controller.run(), name="ccm")
        await asyncio.wait_for(self.controller.synced.wait(), 30)

    async def stop(self) -> None:
        """Stop in the middle of whatever it does, as a killed process would."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def restart(self) -> None:
        """Every Service is synced again."""
        await self.stop()
        await self.start()
