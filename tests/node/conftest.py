"""One real node for all tests here, with the operator from its chart and one sandbox."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.node import NodeLab, needs, space
from lab.node.sandbox import SMALL, Sandbox


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Iterator[NodeLab]:
    """The node, with the operator installed."""
    if space.folder() is None:
        pytest.skip(needs.missing() or "a real node needs a namespace of its own: make test-node")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"  node: {text}", flush=True)

    with NodeLab(say) as running:
        began = time.monotonic()
        running.install_operator()
        running.timings["operator"] = time.monotonic() - began
        say(f"operator: {running.timings['operator']:.1f} s")
        yield running


@pytest.fixture(scope="session")
def sandbox(node: NodeLab) -> Sandbox:
    """A sandbox that is Ready, behind a NodeBalancer."""
    made = Sandbox(node)
    access = {"exposure": "NodeBalancer", "allowlist": [{"cidr": "203.0.113.0/24"}]}
    made.create({"engine": {"resources": SMALL}, "access": access})
    return made
