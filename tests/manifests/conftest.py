"""A control plane for each worker, with and without the CRD."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ai_sandbox_operator.api import generate
from lab.cluster.lab import Lab
from manifests import documents


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane with fake nodes, for all tests of this worker."""
    with Lab() as running:
        yield running


@pytest.fixture
def bare(lab: Lab) -> Iterator[Lab]:
    """The same without the CRD, which an install then brings; it is back for the next test."""
    crd = str(documents.ROOT / generate.CRD_PATH)
    lab.nodes.forget()
    lab.plane.kubectl("delete", "--filename", crd, "--wait", "--ignore-not-found")
    yield lab
    lab.plane.kubectl("delete", "--filename", crd, "--wait", "--ignore-not-found")
    lab.plane.kubectl("apply", "--server-side", "--filename", crd)
