"""A running sandbox for each test, and what the tests need to be installed."""

from __future__ import annotations

import os
import pathlib
from collections.abc import AsyncIterator

import pytest

from chat import environments
from chat.site import Site


@pytest.fixture
def installed() -> None:
    """Skip where the chat cannot run."""
    if environments.open_webui() is None:
        pytest.skip("Open WebUI is not installed: make test-chat")
    if os.geteuid() != 0:
        pytest.skip("the chat's pod needs mounts, hence root")


@pytest.fixture
async def site(tmp_path: pathlib.Path, installed: None) -> AsyncIterator[Site]:
    """A sandbox whose chat has just had its first start."""
    async with Site(tmp_path) as running:
        yield running
