"""pytest-kind's `kind_cluster`, on real kind where a container engine runs and on the lab elsewhere.

Options of pytest-kind that the caller gave are kept. Its defaults would download old binaries, so
they are always set.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.pod_relay import PodRelay
from lab.cluster import binaries, kind
from lab.hub import Generous, Hub, HubServer
from lab.linode import LinodeSimulatorThread

STAND_IN = pathlib.Path(__file__).resolve().parents[1] / "lab" / "kind"


@pytest.fixture(scope="session", autouse=True)
def kind_options(request: pytest.FixtureRequest) -> None:
    """Choose the kind binary and kubectl before `kind_cluster` is made."""
    option = request.config.option
    if option.kind_bin is None:
        real = shutil.which("kind")
        option.kind_bin = real if real and _engine_runs() else str(STAND_IN)
    if option.kind_kubectl_bin is None:
        option.kind_kubectl_bin = str(binaries.ensure() / "kubectl")
    if option.cluster_name == "pytest-kind":
        option.cluster_name = f"ai-sandbox-{os.getpid()}"


@pytest.fixture(scope="session")
def on_fake_nodes(request: pytest.FixtureRequest, kind_options: None) -> bool:
    """Whether pods only pretend to run."""
    return str(request.config.option.kind_bin) == str(STAND_IN)


@pytest.fixture(scope="session")
def cluster(kind_cluster: Any) -> Any:
    """The cluster with the CRD installed, as the README says."""
    crds = pathlib.Path(__file__).resolve().parents[2] / "crds"
    kind_cluster.kubectl("apply", "--server-side", "-f", str(crds))
    kind_cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(crds))
    return kind_cluster


@pytest.fixture(scope="session")
def pod_proxy(cluster: Any, on_fake_nodes: bool) -> Iterator[str]:
    """The way to the pods, for an operator outside the cluster."""
    if on_fake_nodes:
        yield kind.pod_proxy(cluster.name)
        return
    with PodRelay(cluster.kubectl) as relay:
        yield relay.url


@pytest.fixture(scope="session")
def hub() -> Iterator[str]:
    """A model hub on which every model exists."""
    with HubServer(Hub(generous=Generous())) as url:
        yield url


@pytest.fixture(scope="session")
def linode() -> Iterator[LinodeSimulatorThread]:
    """Linode's API."""
    with LinodeSimulatorThread() as simulator:
        yield simulator


def _engine_runs() -> bool:
    for engine in ("docker", "podman"):
        if shutil.which(engine) is None:
            continue
        answer = subprocess.run([engine, "info"], capture_output=True, check=False, timeout=20)
        if answer.returncode == 0:
            return True
    return False
