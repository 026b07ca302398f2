"""Envoy processes for the gateway tests."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from ai_sandbox_operator.desired import facts
from gateway.cases import KNOWN, SPEC, Spec, Start, sandbox
from lab.envoy import process as envoy_process


@pytest.fixture(scope="module")
def upstream() -> Iterator[envoy_process.Upstream]:
    server = envoy_process.Upstream()
    yield server
    server.close()


@pytest.fixture
def start(tmp_path: pathlib.Path, upstream: envoy_process.Upstream) -> Iterator[Start]:
    """Start an Envoy of one's own, for tests that change it."""
    running: list[envoy_process.Gateway] = []

    def launch(spec: Spec = SPEC, known: facts.Facts = KNOWN) -> envoy_process.Gateway:
        directory = tmp_path / str(len(running))
        directory.mkdir()
        running.append(envoy_process.Gateway(directory, upstream))
        running[-1].write(sandbox(spec), known)
        running[-1].start()
        return running[-1]

    yield launch
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, upstream: envoy_process.Upstream
) -> Iterator[envoy_process.Gateway]:
    """One Envoy for all tests that only ask."""
    one = envoy_process.Gateway(tmp_path_factory.mktemp("envoy"), upstream)
    one.write(sandbox(SPEC), KNOWN)
    one.start()
    yield one
    one.stop()
