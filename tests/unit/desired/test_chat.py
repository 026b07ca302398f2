"""The chat's settings, as tables."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ai_sandbox_operator.desired import chat, endpoints
from unit.desired import samples

Spec = dict[str, Any]
OIDC: Spec = {
    "providerURL": "https://sso.example.com/.well-known/openid-configuration",
    "clientID": "chat",
    "clientSecretRef": {"name": "sso", "key": "secret"},
    "allowedDomains": ["example.com", "example.org"],
    "roles": {"claim": "groups", "allowed": ["staff", "ops"], "admin": ["ops"]},
}


@pytest.mark.parametrize(
    ("changes", "address", "url", "cors", "secure"),
    [
        ({}, None, "https://demo-internal.team-a.svc:3000", None, "true"),
        (
            {},
            "192.0.2.80",
            "https://192.0.2.80:3000",
            "https://192.0.2.80:3000;https://demo-internal.team-a.svc:3000",
            "true",
        ),
        (
            {"hostnames": ["llm.example.com"], "tls": {"mode": "Disabled"}},
            "2001:db8::80",
            "http://llm.example.com:3000",
            "http://llm.example.com:3000;http://[2001:db8::80]:3000;http://demo-internal.team-a.svc:3000",
            "false",
        ),
    ],
)
def test_origin_of_the_chat(
    changes: Spec, address: str | None, url: str, cors: str | None, secure: str
) -> None:
    sandbox = samples.sandbox({"access": changes})
    known = dataclasses.replace(samples.FACTS, public_names=(address,) if address else ())
    settings = chat.environment(sandbox, known)
    assert settings["WEBUI_URL"] == url
    assert settings["CORS_ALLOW_ORIGIN"] == (cors or url)
    # Secure cookies on plain http make each login end at the login page.
    assert settings["WEBUI_SESSION_COOKIE_SECURE"] == settings["WEBUI_AUTH_COOKIE_SECURE"] == secure
    assert endpoints.api_url(sandbox, known) == url.replace(":3000", ":8000/v1")


def test_the_chat_is_closed_to_strangers_and_offline() -> None:
    settings = chat.environment(samples.sandbox(), samples.FACTS)
    assert {
        "WEBUI_AUTH": "true",
        "ENABLE_SIGNUP": "false",
        "DEFAULT_USER_ROLE": "pending",
        "ENABLE_PERSISTENT_CONFIG": "false",
        "BYPASS_MODEL_ACCESS_CONTROL": "true",
        "ENABLE_OLLAMA_API": "false",
        "ENABLE_DIRECT_CONNECTIONS": "false",
        "ENABLE_OPENAI_API_PASSTHROUGH": "false",
        "ENABLE_PLUGINS": "false",
        "ENABLE_CODE_EXECUTION": "false",
        "ENABLE_CODE_INTERPRETER": "false",
        "ENABLE_AUDIT_LOGS_FILE": "false",
        "USER_PERMISSIONS_CHAT_WEB_UPLOAD": "false",
        "OFFLINE_MODE": "true",
        "OPENAI_API_BASE_URLS": "http://demo-engine:8000/v1",
        "FORWARDED_ALLOW_IPS": "10.2.0.0/16",
    }.items() <= settings.items()
    assert not any("TRUSTED" in name or "OAUTH_CLIENT" in name for name in settings)


def test_the_model_is_told_to_the_chat_so_that_it_is_listed_while_the_engine_sleeps() -> None:
    settings = chat.environment(samples.sandbox({"model": {"servedName": "house"}}), samples.FACTS)
    assert json.loads(settings["OPENAI_API_CONFIGS"]) == {"0": {"model_ids": ["house"]}}
    assert settings["DEFAULT_MODELS"] == "house"


def test_single_sign_on() -> None:
    sandbox = samples.sandbox({"chat": {"oidc": OIDC}, "access": {"hostnames": ["llm.example.com"]}})
    settings = chat.environment(sandbox, samples.FACTS)
    assert {
        "ENABLE_OAUTH_SIGNUP": "true",
        "ENABLE_LOGIN_FORM": "false",
        "OAUTH_MERGE_ACCOUNTS_BY_EMAIL": "false",
        "OAUTH_CLIENT_ID": "chat",
        "OPENID_PROVIDER_URL": OIDC["providerURL"],
        "OPENID_REDIRECT_URI": "https://llm.example.com:3000/oauth/oidc/callback",
        "OAUTH_ALLOWED_DOMAINS": "example.com,example.org",
        "ENABLE_OAUTH_ROLE_MANAGEMENT": "true",
        "OAUTH_ROLES_CLAIM": "groups",
        "OAUTH_ALLOWED_ROLES": "staff,ops",
        "OAUTH_ADMIN_ROLES": "ops",
    }.items() <= settings.items()
    secret = {"name": "OAUTH_CLIENT_SECRET", "valueFrom": {"secretKeyRef": {"name": "sso", "key": "secret"}}}
    assert (
        secret
        in samples.container(
            samples.child(samples.rendered({"chat": {"oidc": OIDC}}), "Deployment", "demo-chat")
        )["env"]
    )


def test_incomplete_single_sign_on_keeps_the_login_form() -> None:
    for oidc in ({"providerURL": OIDC["providerURL"]}, {"clientID": "chat"}):
        settings = chat.environment(samples.sandbox({"chat": {"oidc": oidc}}), samples.FACTS)
        assert "ENABLE_LOGIN_FORM" not in settings
        assert "OPENID_PROVIDER_URL" not in settings


@pytest.mark.parametrize(
    ("field", "restarts"),
    [("engine_key", True), ("chat_session_key", True), ("chat_admin_password", False), ("api_keys", False)],
)
def test_which_secret_values_restart_the_chat(field: str, restarts: bool) -> None:
    value: Any = {"default": "n" * 40} if field == "api_keys" else "n" * 40
    changed = dataclasses.replace(
        samples.FACTS, material=dataclasses.replace(samples.MATERIAL, **{field: value})
    )
    templates = [
        samples.child(samples.rendered({}, known), "Deployment", "demo-chat")["spec"]["template"]
        for known in (samples.FACTS, changed)
    ]
    assert (templates[0] != templates[1]) is restarts


def test_a_suspended_sandbox_keeps_chat_gateway_address_and_data() -> None:
    spec: Spec = {"access": {"exposure": "NodeBalancer"}}
    running = samples.objects(spec, samples.EXPOSED)
    suspended = samples.objects({**spec, "lifecycle": {"state": "Suspended"}}, samples.EXPOSED)
    assert running == suspended
