"""Both Helms, and a control plane to install on."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from chart import helm
from lab.cluster.lab import Lab


@pytest.fixture(scope="session", params=helm.VERSIONS, ids=lambda version: f"helm-{version.number}")
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> helm.Helm:
    """Each Helm in turn."""
    version: helm.Version = request.param
    return helm.Helm(version, helm.ensure(version), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def newest(tmp_path_factory: pytest.TempPathFactory) -> helm.Helm:
    """The newest Helm, where the version makes no difference."""
    return helm.Helm(helm.HELM_4, helm.ensure(helm.HELM_4), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane with fake nodes, for all tests of this worker."""
    with Lab() as running:
        yield running


@pytest.fixture
def bare(lab: Lab) -> Iterator[Lab]:
    """The same without the CRD, which the chart then brings; it is back for the next test."""
    crds = [str(path) for path in helm.ROOT.glob("crds/*.yaml")]
    lab.plane.kubectl("delete", "--filename", crds[0], "--wait", "--ignore-not-found")
    yield lab
    lab.plane.kubectl("delete", "--filename", crds[0], "--wait", "--ignore-not-found")
    lab.plane.kubectl("apply", "--server-side", "--filename", crds[0])


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """A home for a Helm."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder
