"""Single sign-on with OpenID Connect, in a real browser against a provider's stand-in."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from chat import browser, environments, people
from chat.provider import CLIENT, SECRET, Provider
from chat.site import ADMIN, ORIGIN, PASSWORD, PROVIDER, SPEC, Site
from lab.envoy import process as envoy_process


def _spec(issuer: str) -> dict[str, Any]:
    oidc = {
        "providerURL": f"{issuer}/.well-known/openid-configuration",
        "clientID": CLIENT,
        "clientSecretRef": {"name": "sso", "key": "client-secret"},
        "allowedDomains": ["example.com", ADMIN.partition("@")[2]],
        "roles": {"claim": "groups", "allowed": ["staff", "ops"], "admin": ["ops"]},
    }
    return {**SPEC, "chat": {"oidc": oidc}}


async def test_the_provider_decides_who_comes_in_and_as_what(tmp_path: pathlib.Path, installed: None) -> None:
    if environments.driver() is None or environments.browser() is None:
        pytest.skip("no browser: make test-chat")
    port = envoy_process.free_port()
    issuer = f"http://{PROVIDER}:{port}"
    site = Site(tmp_path, _spec(issuer))
    site.secrets = {"sso": {"client-secret": SECRET}}
    async with Provider(site.address, port, issuer) as provider, site:
        for name, email, groups, role in (
            ("Ann", "ann@example.com", ["staff"], "user"),
            ("Bob", "bob@example.com", ["staff", "ops"], "admin"),
            ("Eve", "eve@example.com", ["guests"], None),
            ("Eve", "eve@elsewhere.com", ["ops"], None),
            # The address of an account that somebody else has.
            ("Eve", ADMIN, ["ops"], None),
        ):
            provider.person = {"sub": email, "email": email, "name": name, "groups": groups}
            async with browser.opened(site) as person:
                await person.open("/auth")
                await (await person.sees("Continue with Single sign-on")).click()
                if role is None:
                    await person.page.wait_for_url("**/auth?error=*")
                else:
                    await person.page.locator("#chat-input").wait_for(state="visible")
        assert set(provider.redirects) == {f"{ORIGIN}/oauth/oidc/callback"}
        async with browser.opened(site) as person:
            await person.open("/auth")
            await person.sees("Single sign-on")
            assert await person.page.locator("#password").count() == 0
            await person.logs_in(ADMIN, PASSWORD, "/auth?form=true")
        async with site.client() as client:
            headers = await people.token(client)
            async with client.get("/api/v1/users/", headers=headers) as answer:
                users = {user["email"]: user["role"] for user in (await answer.json())["users"]}
    assert users == {ADMIN: "admin", "ann@example.com": "user", "bob@example.com": "admin"}
    assert SECRET not in site.pod.log
