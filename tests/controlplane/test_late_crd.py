"""An operator that starts before its CRD: kopf looks for kinds once, so only a new process hears of this one."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.runtime.main import EXIT_DEAF
from lab.cluster.controlplane import ControlPlane
from lab.cluster.lab import CRDS
from lab.operator_process import OperatorProcess

CRD = kinds.Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
SANDBOX: dict[str, Any] = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND,
    "metadata": {"name": "demo", "namespace": "default"},
    "spec": {},
}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """A control plane without the CRD."""
    with ControlPlane(controllers=False, scheduler=False) as running:
        yield running


async def made(api: kube_client.KubeClient) -> None:
    """Make the sandbox as soon as the API server takes it."""
    while True:
        try:
            await api.create(kinds.SANDBOX, SANDBOX)
        except errors.NotFound:
            await asyncio.sleep(0.1)
        else:
            return


async def test_an_operator_that_starts_before_the_crd_ends_once_and_its_successor_works(
    plane: ControlPlane, tmp_path: pathlib.Path
) -> None:
    operator = OperatorProcess(
        kubeconfig=str(plane.kubeconfig),
        linode_url="http://127.0.0.1:9",
        log_path=tmp_path / "operator.log",
        flags=["--no-leader-elect"],
    )
    api = kube_client.KubeClient(await kube_client.load_configuration(str(plane.kubeconfig)))
    try:
        await operator.start(wait=False)
        async with asyncio.timeout(30):
            while "the CRD is not installed" not in operator.log():
                await asyncio.sleep(0.1)
        for path in CRDS.glob("*.yaml"):
            await api.create(CRD, yaml.safe_load(path.read_text()))
        await asyncio.wait_for(made(api), 30)
        assert await operator.wait(30) == EXIT_DEAF
        await operator.start()
        async with asyncio.timeout(15):
            while not await api.list_all(kinds.NETWORK_POLICY, "default"):
                await asyncio.sleep(0.1)
    finally:
        operator.kill()
        await operator.wait()
        await api.close()
