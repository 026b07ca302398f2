"""Who gets an account and from where, asked of the real Open WebUI through the real gateway."""

from __future__ import annotations

import dataclasses
import pathlib

import aiohttp
import pytest

from chat import people, pod
from chat.engine import MODEL
from chat.site import ADMIN, KNOWN, OFFICE, ORIGIN, STRANGER, Site


async def test_the_first_visitor_becomes_neither_user_nor_administrator(site: Site) -> None:
    """I1. Also after a restart: only the start that makes the administrator closes sign-up by itself."""
    for _ in range(2):
        async with site.client() as client:
            async with client.get("/api/config") as answer:
                config = await answer.json()
            assert not config.get("onboarding")
            assert not config["features"]["enable_signup"]
            # The gateway does not pass it on at all.
            async with client.post("/api/v1/auths/signup", json=people.VISITOR) as answer:
                assert answer.status == 404
            for path, body in (
                ("/api/v1/auths/add", {**people.VISITOR, "role": "admin"}),
                ("/api/v1/auths/ldap", {"user": "visitor", "password": "x"}),
                ("/api/v1/auths/signin", {"email": "admin@localhost", "password": "admin"}),
            ):
                async with client.post(path, json=body) as answer:
                    assert 400 <= answer.status < 500, path
            async with client.get("/api/v1/users/", headers=await people.token(client)) as answer:
                users = [(user["email"], user["role"]) for user in (await answer.json())["users"]]
        assert users == [(ADMIN, "admin")]
        await site.restart()


async def test_a_stranger_does_not_reach_the_chat_at_all(site: Site) -> None:
    async with site.client(STRANGER) as client:
        for path in ("/", "/api/config", "/ws/socket.io/?EIO=4&transport=polling"):
            async with client.get(path) as answer:
                assert answer.status == 403, path
        async with client.post("/api/v1/auths/signup", json=people.VISITOR) as answer:
            assert answer.status == 403


async def test_a_session_is_bound_to_the_sandboxs_own_pages(site: Site) -> None:
    async with site.client() as client:
        admin = {"email": ADMIN, "password": KNOWN.material.chat_admin_password}
        async with client.post("/api/v1/auths/signin", json=admin) as answer:
            cookie = answer.cookies["token"]
        assert cookie["secure"]
        assert cookie["httponly"]
        assert cookie["samesite"].lower() == "lax"
        assert int(cookie["max-age"]) == 24 * 3600
        evil = {"Origin": "https://evil.example.com"}
        for origin, allowed in ((ORIGIN, ORIGIN), (evil["Origin"], None)):
            async with client.get("/api/config", headers={"Origin": origin}) as answer:
                assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        socket = "/ws/socket.io/?EIO=4&transport=websocket"
        async with client.ws_connect(socket, headers={"Origin": ORIGIN}) as connection:
            assert (await connection.receive_str()).startswith("0{")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect(socket, headers=evil)
    # The gateway's word for the client's address reaches the audit log.
    assert f'"source_ip": "{OFFICE}"' in site.pod.log


async def test_a_user_made_by_the_administrator_has_the_model_and_no_power(site: Site) -> None:
    async with site.client() as client:
        await people.make_user(client)
        headers = await people.token(client, people.ANN["email"], people.ANN["password"])
        async with client.get("/api/models", headers=headers) as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == [MODEL]
        for path in (
            "/api/v1/users/",
            "/api/v1/auths/admin/config",
            "/openai/config",
            "/api/v1/configs/export",
        ):
            async with client.get(path, headers=headers) as answer:
                assert answer.status in (401, 403), path
    for secret in site.known.material.values:
        assert secret not in site.pod.log


async def test_not_even_the_administrator_puts_code_into_the_chats_pod(site: Site) -> None:
    code = {"id": "f", "name": "f", "content": "class Filter:\n    pass\n", "meta": {"description": "f"}}
    async with site.client() as client:
        headers = await people.token(client)
        for path, body, status in (
            ("/api/v1/tools/create", {**code, "content": "class Tools:\n    pass\n"}, 400),
            ("/api/v1/functions/create", code, 400),
            ("/api/v1/utils/code/execute", {"code": "print(1)"}, 403),
        ):
            async with client.post(path, json=body, headers=headers) as answer:
                assert answer.status == status, f"{path}: {await answer.text()}"


@pytest.mark.parametrize("password", ["", "Aa1-" * 19])
async def test_without_a_password_that_can_be_stored_the_chat_does_not_start(
    tmp_path: pathlib.Path, installed: None, password: str
) -> None:
    """Open WebUI 0.12.4 would start without its administrator, and make the first visitor one."""
    one = Site(tmp_path)
    given = dataclasses.replace(KNOWN.material, chat_admin_password=password)
    one.known = dataclasses.replace(KNOWN, material=given)
    one.spec = {**one.spec, "chat": {"admin": {"secretName": "mine"}}}
    one.secrets = {"mine": {"password": password}}
    try:
        with pytest.raises(pod.NotPrepared, match="first visitor"):
            await one.start()
    finally:
        one.pod.stop()
