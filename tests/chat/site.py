"""A whole sandbox without its cluster: client, balancer, real gateway, real chat, engine's stand-in.

Everything that the operator renders is used as rendered, for the sandbox and facts given here.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import hashlib
import pathlib
import signal
import socket
import ssl
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
import aiohttp.abc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ai_sandbox_operator.api import names, v1alpha1
from ai_sandbox_operator.desired import chat, engine, facts, render
from ai_sandbox_operator.reconcile import material
from chat.engine import Engine
from chat.pod import Manifest, Pod
from gateway.traffic.relay import Relay
from lab.envoy import process as envoy_process
from unit.desired import samples

HOST = "llm.example.com"
ORIGIN = f"https://{HOST}:{names.PORT_CHAT}"
#: Host of an identity provider, for tests that have one.
PROVIDER = "sso.example.com"
OFFICE, STRANGER = "203.0.113.9", "198.51.100.9"
ADMIN, PASSWORD = "admin@sandbox.local", material.admin_password()
SPEC: dict[str, Any] = {
    "access": {
        "exposure": "NodeBalancer",
        "allowlist": [{"cidr": "203.0.113.0/24"}],
        "hostnames": [HOST],
        "tls": {"mode": "SelfSigned"},
    }
}
KNOWN = facts.Facts(
    release=facts.Release(),
    material=facts.Material(
        engine_key=material.engine_key(),
        chat_session_key=material.session_key(),
        api_keys={"default": material.api_key()},
        chat_admin_password=PASSWORD,
    ),
    # On this machine every part has a loopback address.
    nodebalancer_ranges=("127.0.0.0/8",),
    pod_ranges=("127.0.0.0/8",),
    model_cached=True,
    firewall_id=1,
)
#: Seconds for a start of the chat; the pod's startup probe gives it 15 minutes.
START_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class _Port:
    port: int


class Site:
    """One running sandbox, at `ORIGIN` for whoever resolves its name to `port` of 127.0.0.1.

    Attributes:
        secrets: Secrets of the user's own, by name.
        starts: seconds from a start of the chat until its readiness probe was answered.
        address: an address of the loopback network that is this sandbox's own.
    """

    def __init__(self, directory: pathlib.Path, spec: dict[str, Any] | None = None) -> None:
        self.spec = spec or SPEC
        self.known = KNOWN
        self.secrets: dict[str, dict[str, str]] = {}
        self.starts: list[float] = []
        # An address of one's own, so that the engine has its real port next to other runs of these tests.
        number = int.from_bytes(hashlib.sha256(str(directory).encode()).digest()[:2])
        self.address = f"127.77.{number >> 8}.{(number & 0xFF) or 1}"
        self.engine = Engine(self.address, names.PORT_ENGINE, self.known.material.engine_key)
        self.pod = Pod(
            directory / "pod", {engine.service_name(self.sandbox): self.address, PROVIDER: self.address}
        )
        self._chat_port = envoy_process.free_port()
        (directory / "gateway").mkdir()
        self.gateway = envoy_process.Gateway(directory / "gateway", _Port(self._chat_port))  # type: ignore[arg-type]
        self._relays = {
            source: Relay([self.gateway.ports["external_chat"]], source=source)
            for source in (OFFICE, STRANGER)
        }
        now = datetime.datetime.now(datetime.UTC)
        authority = material.new_authority(sandbox="demo", now=now)
        self._certificate = material.issue(authority, names=[HOST], now=now)
        self._authority = authority[material.AUTHORITY]

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        envoy_process.publish(self.gateway.tls, self._certificate, 0)
        self.gateway.write(self.sandbox, self.known)
        await asyncio.to_thread(self.gateway.start)
        for relay in self._relays.values():
            await relay.__aenter__()
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.pod.stop, signal.SIGKILL)
        for relay in self._relays.values():
            await relay.__aexit__(kind, error, trace)
        await asyncio.to_thread(self.gateway.stop)
        await self.engine.__aexit__(kind, error, trace)

    @property
    def sandbox(self) -> v1alpha1.AISandbox:
        return samples.sandbox(self.spec)

    @property
    def port(self) -> int:
        """Where the balancer listens for clients from the office."""
        return self._relays[OFFICE].port

    @property
    def spki(self) -> str:
        """The fingerprint of the certificate's key, as a browser takes it."""
        public = x509.load_pem_x509_certificate(self._certificate[material.CERTIFICATE].encode()).public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(der).digest()).decode()

    def rendered(self) -> tuple[Manifest, dict[str, dict[str, str]]]:
        """The chat's pod and every Secret, decoded."""
        children = render.render(self.sandbox, self.known)
        pod = samples.child(children, "Deployment", chat.service_name(self.sandbox))["spec"]["template"][
            "spec"
        ]
        secrets = {one.name: samples.content(one.manifest) for one in children if one.kind == "Secret"}
        return pod, {**secrets, **self.secrets}

    async def start(self) -> None:
        """Run the pod's containers as the kubelet does, until the readiness probe succeeds.

        Raises:
            pod.NotPrepared: an init container failed.
        """
        pod, secrets = self.rendered()
        probe = pod["containers"][0]["readinessProbe"]["httpGet"]["path"]
        await asyncio.to_thread(self.pod.prepare, pod, secrets)
        began = time.monotonic()
        self.pod.start(pod, secrets, self._chat_port)
        async with aiohttp.ClientSession() as client:
            while time.monotonic() < began + START_SECONDS:
                assert self.pod.running(), self.pod.log[-4000:]
                try:
                    async with client.get(f"http://127.0.0.1:{self._chat_port}{probe}") as answer:
                        if answer.status == 200:
                            self.starts.append(time.monotonic() - began)
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        raise AssertionError(f"the chat was not ready in time: {self.pod.log[-4000:]}")

    async def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the chat and start it again, with what is rendered now."""
        await asyncio.to_thread(self.pod.stop, number)
        await self.start()

    def rotate_engine_key(self) -> None:
        """The engine has another key, and the chat's Secret too; the chat runs on."""
        self.engine.key = material.engine_key()
        self.known = dataclasses.replace(
            self.known, material=dataclasses.replace(self.known.material, engine_key=self.engine.key)
        )

    def client(self, source: str = OFFICE) -> aiohttp.ClientSession:
        """A client behind `source` that trusts the sandbox's authority and nobody else."""
        context = ssl.create_default_context(cadata=self._authority)
        connector = aiohttp.TCPConnector(ssl=context, resolver=_Resolver(self._relays[source].port))
        return aiohttp.ClientSession(ORIGIN, connector=connector)


class _Resolver(aiohttp.abc.AbstractResolver):
    """Leads every name and port to one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": self._port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": flags,
            }
        ]

    async def close(self) -> None:
        """Nothing is held."""
