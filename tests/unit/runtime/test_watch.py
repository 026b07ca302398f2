"""kopf is told what it would otherwise ask the machine for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import kopf
import pytest

from ai_sandbox_operator.runtime import watch


async def test_the_image_needs_no_account_for_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an identity kopf looks the user's name up, and a user without an account ends it."""
    given: dict[str, Any] = {}

    async def operator(**arguments: Any) -> None:
        given.update(arguments)
        arguments["stop_flag"].set()

    monkeypatch.setattr(kopf, "operator", operator)
    await watch.watch(
        store=cast(Any, None),
        add=lambda _key: None,
        configuration=cast(Any, None),
        namespaces=(),
        ready=asyncio.Event(),
        stop=asyncio.Event(),
    )
    assert given["identity"]
