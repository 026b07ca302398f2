"""The sandbox under attack: one gateway, its upstreams on record, and a client that takes bytes."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import itertools
import json
import pathlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.reconcile import material
from gateway import cases
from gateway.attacks import wire
from gateway.attacks.recorder import Recorder
from lab.envoy import process as envoy_process

#: Every character that means something in a regular expression or in Envoy's format and is allowed in a key.
KEY, FORMER = "sk-Alpha.Beta+Gamma/0123456789=~_x", "sk-former-key-that-was-taken-away"
#: Peers: the balancer, a client inside that is on the allowlist, and somebody else.
BALANCER, INSIDER, OUTSIDER = "127.0.0.4", "127.0.0.1", "127.0.0.3"
OFFICE, STRANGER = "203.0.113.9", "198.51.100.9"
SPEC: cases.Spec = {
    "access": {
        "exposure": "NodeBalancer",
        "tls": {"mode": "Disabled"},
        "allowlist": [
            {"cidr": "203.0.113.0/24"},
            {"cidr": "2001:db8:1::/48", "to": ["API"]},
            {"cidr": f"{INSIDER}/32"},
        ],
        "apiKeys": [{"name": "alice"}],
    }
}
KNOWN = facts.Facts(
    release=facts.Release(),
    material=facts.Material(
        engine_key="e" * 40, chat_session_key="s" * 40, api_keys={"alice": KEY, "former": FORMER}
    ),
    nodebalancer_ranges=(f"{BALANCER}/32",),
    pod_ranges=("127.0.0.2/32",),
    firewall_id=1,
)
GOOD = b"Authorization: Bearer " + KEY.encode()
HOST = b"Host: demo"
FROM_OFFICE = wire.proxy(ipaddress.ip_address(OFFICE).packed)
FROM_STRANGER = wire.proxy(ipaddress.ip_address(STRANGER).packed)


def get(path: bytes, *headers: bytes) -> bytes:
    """A GET of the path exactly as given, with the good key."""
    return wire.message(b"GET " + path + b" HTTP/1.1", HOST, GOOD, *headers)


def ask(*headers: bytes) -> bytes:
    """A GET of an allowed path with these headers, and no others than Host."""
    return wire.message(b"GET /v1/models HTTP/1.1", HOST, *headers)


class Wired(envoy_process.Gateway):
    """An Envoy whose engine and chat are two recorders."""

    def __init__(self, directory: pathlib.Path, engine: Recorder, chat: Recorder) -> None:
        super().__init__(directory, engine)
        self._chat_port = chat.port

    def _rewrite(self, text: str) -> str:
        document = json.loads(super()._rewrite(text))
        for resource in document.get("resources", []):
            if resource.get("name") == "chat" and "load_assignment" in resource:
                endpoint = resource["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
                endpoint["address"]["socket_address"]["port_value"] = self._chat_port
        return json.dumps(document)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a client saw: statuses, then whether the gateway ended the connection; and what got through."""

    statuses: tuple[int | str, ...]
    ended: bool
    engine: tuple[bytes, ...]
    chat: tuple[bytes, ...]
    raw: bytes = b""

    @property
    def seen(self) -> tuple[int | str, ...] | str:
        """In the words of a table: statuses, or 'closed', or 'open' for a gateway that waits for more."""
        return self.statuses or ("closed" if self.ended else "open")


def certificate(directory: pathlib.Path) -> ssl.SSLContext:
    """A certificate of the operator's own making, and a client's context that trusts it alone."""
    now = datetime.datetime.now(datetime.UTC)
    values = material.issue(material.new_authority(sandbox="demo", now=now), names=["demo"], now=now)
    envoy_process.publish(directory, values, 0)
    return ssl.create_default_context(cadata=values[material.AUTHORITY])


class Site:
    """One running gateway with its upstreams."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        spec: cases.Spec = SPEC,
        known: facts.Facts = KNOWN,
        encrypted: bool = False,
    ) -> None:
        self.engine, self.chat = Recorder(), Recorder()
        self.gateway = Wired(directory, self.engine, self.chat)
        self.tls = certificate(self.gateway.tls) if encrypted else None
        if encrypted:
            spec = {"access": {**spec["access"], "tls": {"mode": "SelfSigned"}}}
        self.gateway.write(cases.sandbox(spec), known)
        self._fence: socket.socket | None = None
        self._numbers = itertools.count()

    def close(self) -> None:
        if self._fence:
            self._fence.close()
        self.gateway.stop()
        self.engine.close()
        self.chat.close()

    def dial(self, listener: str = "external_api", peer: str | None = None, **more: Any) -> socket.socket:
        """A connection to a listener; from outside through the balancer unless told otherwise."""
        usual = BALANCER if listener.startswith("external") else INSIDER
        return wire.dial(self.gateway.ports[listener], peer or usual, **more)

    def fence(self) -> None:
        """Two good requests, one after the other, on a connection of their own.

        Envoy runs one worker: what reached it before has been dealt with when the second is answered.
        """
        for _ in range(2):
            if self._fence is None:
                self._fence = self.dial("internal_api", tls=self.tls)
            self._fence.settimeout(10)
            self._fence.sendall(get(b"/v1/models?fence=%d" % next(self._numbers)))
            raw = b""
            while not wire.statuses(raw):
                chunk = self._fence.recv(1 << 16)
                assert chunk, f"the gateway ended a good connection: {raw!r}"
                raw += chunk
            assert wire.statuses(raw) == [200], raw

    def send(
        self,
        raw: bytes,
        *,
        listener: str = "external_api",
        peer: str | None = None,
        prefix: bytes | None = None,
        answers: int = 1,
        read: Callable[[bytes], Sequence[int | str]] = wire.statuses,
        alpn: str = "http/1.1",
        patience: float = 0.02,
    ) -> Outcome:
        """Send the bytes, wait for as many answers or for silence, and say what reached the upstreams."""
        start = FROM_OFFICE if listener.startswith("external") else b""
        engine, chat = self.engine.mark(), self.chat.mark()
        if raw.startswith(b"HEAD "):
            read = wire.statuses_without_bodies
        got, ended = b"", False
        connection = self.dial(
            listener, peer, prefix=start if prefix is None else prefix, tls=self.tls, alpn=alpn
        )
        try:
            try:
                connection.sendall(raw)
            except OSError:
                ended = True
            fenced = False
            while True:
                chunk = wire.more(connection, 0.001 if fenced else patience)
                if chunk:
                    got += chunk
                    if not fenced and len(read(got)) < answers:
                        continue
                if chunk == b"":
                    ended = True
                    if fenced:
                        break
                elif fenced and chunk is None:
                    break
                if not fenced:
                    self.fence()
                    fenced = True
            seen = tuple(self.engine.since(engine)), tuple(self.chat.since(chat))
        finally:
            wire.close(connection)
        if any(seen):
            self.fence()  # what is cut off now belongs to this case, not to the next
        return Outcome(tuple(read(got)), ended, *seen, got)
