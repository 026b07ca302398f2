"""A password that the chat could not use is told before a pod starts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.reconcile import references
from unit.desired import samples


class Client:
    """One Secret."""

    def __init__(self, data: dict[str, str]) -> None:
        self.data = data

    async def get(self, _kind: Any, _namespace: str, _name: str) -> dict[str, Any]:
        return {"data": self.data}


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        (encoded("p" * 72), None),
        (encoded("p" * 73), Reason.PasswordUnusable),
        (encoded("\u00e4" * 37), Reason.PasswordUnusable),
        ("", Reason.SecretKeyMissing),
    ],
)
async def test_a_password_of_the_administrator_fits_the_chats_hash(
    password: str, reason: Reason | None
) -> None:
    one = references.References(Client({"password": password}))  # type: ignore[arg-type]
    found = await one.missing(samples.sandbox({"chat": {"admin": {"secretName": "mine"}}}))
    assert [problem.reason for _, problem in found] == ([reason] if reason else [])
    assert all("spec.chat.admin.secretName: Secret mine" in problem.message for _, problem in found)
