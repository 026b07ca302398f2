"""What people do through the chat's API: log in, make users, keep chats."""

from __future__ import annotations

from typing import Any

import aiohttp

from chat.site import ADMIN, PASSWORD

ANN = {"name": "Ann", "email": "ann@example.com", "password": "Ann-uses-the-chat-1"}
VISITOR = {"name": "Visitor", "email": "visitor@example.com", "password": "Visit0r-of-the-chat"}


async def token(
    client: aiohttp.ClientSession, email: str = ADMIN, password: str = PASSWORD
) -> dict[str, str]:
    """Log in; the header that proves it."""
    async with client.post("/api/v1/auths/signin", json={"email": email, "password": password}) as answer:
        assert answer.status == 200, await answer.text()
        return {"Authorization": f"Bearer {(await answer.json())['token']}"}


async def make_user(client: aiohttp.ClientSession, person: dict[str, str] = ANN) -> None:
    """The administrator makes an account."""
    headers = await token(client)
    async with client.post("/api/v1/auths/add", json={**person, "role": "user"}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def keep_chat(client: aiohttp.ClientSession, headers: dict[str, str], title: str) -> None:
    """Store a chat."""
    body = {"chat": {"title": title, "models": [], "messages": [], "history": {"messages": {}}}}
    async with client.post("/api/v1/chats/new", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def chats(client: aiohttp.ClientSession, headers: dict[str, str]) -> list[str]:
    """Titles of one's chats, sorted."""
    async with client.get("/api/v1/chats/", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        found: list[dict[str, Any]] = await answer.json()
    return sorted(one["title"] for one in found)
