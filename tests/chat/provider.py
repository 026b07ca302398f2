"""Stands in for an identity provider: OpenID Connect with the code flow, where everybody is logged in already."""

from __future__ import annotations

import base64
import json
import secrets
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "chat", "the-clients-secret"


class Provider:
    """A provider at `issuer`; the next login is that of `person`.

    Attributes:
        person: claims of whoever logs in next.
        redirects: addresses to which logins were sent back.
    """

    def __init__(self, address: str, port: int, issuer: str) -> None:
        self.person: dict[str, Any] = {}
        self.redirects: list[str] = []
        self._issuer = issuer
        self._address = (address, port)
        self._key = rsa.generate_private_key(65537, 2048)
        self._codes: dict[str, dict[str, Any]] = {}
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._configuration)
        application.router.add_get("/keys", self._keys)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/token", self._token)
        application.router.add_get("/userinfo", self._userinfo)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _configuration(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self._issuer,
                "authorization_endpoint": f"{self._issuer}/authorize",
                "token_endpoint": f"{self._issuer}/token",
                "userinfo_endpoint": f"{self._issuer}/userinfo",
                "jwks_uri": f"{self._issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256"}
        return web.json_response({"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        code = secrets.token_urlsafe()
        self._codes[code] = {**self.person, "nonce": request.query.get("nonce")}
        target = request.query["redirect_uri"]
        self.redirects.append(target)
        raise web.HTTPFound(f"{target}?code={code}&state={request.query['state']}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if request.headers.get("Authorization") != basic and form.get("client_secret") != SECRET:
            return web.json_response({"error": "invalid_client"}, status=401)
        claims = self._codes.pop(str(form["code"]))
        now = int(time.time())
        issued = {"iss": self._issuer, "aud": CLIENT, "iat": now, "exp": now + 300}
        token = self._signed(
            {**issued, **{name: value for name, value in claims.items() if value is not None}}
        )
        return web.json_response(
            {"access_token": token, "id_token": token, "token_type": "Bearer", "expires_in": 300}
        )

    async def _userinfo(self, request: web.Request) -> web.Response:
        payload = request.headers["Authorization"].split(".")[1]
        return web.json_response(json.loads(base64.urlsafe_b64decode(payload + "==")))

    def _signed(self, claims: dict[str, Any]) -> str:
        parts = [_encode(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1"}, claims)]
        signature = self._key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join([*parts, _encode(signature)])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _encode(value.to_bytes((value.bit_length() + 7) // 8))
