"""The kubelets' HTTPS port, for container logs.

`kubectl logs` and `GET /pods/NAME/log` end here, through the API server, which does not verify the
certificate unless it is told to.
"""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.cluster.nodes import voices
from lab.cluster.nodes.behaviour import Behaviour
from lab.cluster.nodes.lifecycle import WAITING, State

Found = tuple[dict[str, Any], State, Behaviour]
Find = Callable[[str, str], Found | None]


class Refused(Exception):
    """There is no such log; the message is the kubelet's."""


class LogServer:
    """Serves the logs of all pods on one port of 127.0.0.1.

    Args:
        find: a pod by namespace and name.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._runner: web.AppRunner
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=_tls())
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        info = request.match_info
        found = self._find(info["namespace"], info["pod"])
        if found is None:
            return web.Response(status=404, text=f'pod "{info["pod"]}" does not exist')
        try:
            lines = read(found, info["container"], previous=_true(request, "previous"), now=time.time())
        except Refused as error:
            return web.Response(status=400, text=str(error))
        return web.Response(text=_cut(lines, request.query, time.time()))


def read(found: Found, container: str, *, previous: bool, now: float) -> list[str]:
    """The lines of one container's log.

    Raises:
        Refused: it has not started, or was not restarted.
    """
    pod, state, behaviour = found
    name = pod["metadata"]["name"]
    if state.phase in WAITING:
        raise Refused(f'container "{container}" in pod "{name}" is waiting to start: {_wait(pod, container)}')
    if not previous:
        return voices.log(pod, container, state, behaviour, now)
    if state.restarts == 0 or state.last is None:
        raise Refused(f'previous terminated container "{container}" in pod "{name}" not found')
    return voices.previous_log(state.last, behaviour)


def _wait(pod: Mapping[str, Any], container: str) -> str:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status["name"] == container and "waiting" in status["state"]:
            return str(status["state"]["waiting"]["reason"])
    return "ContainerCreating"


def _cut(lines: list[str], query: Mapping[str, str], now: float) -> str:
    if "tailLines" in query:
        count = int(query["tailLines"])
        lines = lines[-count:] if count else []
    if query.get("timestamps") == "true":
        stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
        lines = [f"{stamp} {line}" for line in lines]
    text = "".join(f"{line}\n" for line in lines)
    return text[: int(query["limitBytes"])] if "limitBytes" in query else text


def _true(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1")


def _tls() -> ssl.SSLContext:
    """TLS with a certificate of this moment."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubelet")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # OpenSSL reads certificates from files only.
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kubelet.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(path)
    return context
