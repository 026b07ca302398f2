"""Clients that ask without a pause for breath, and what their answers must have been when.

An answer may be what was expected at any moment between sending the request and having the answer.
So a change that is under way allows old and new, and once the change is proven only the new.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import random
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.traffic.connection import Connection
from gateway.traffic.upstream import ID

#: A status, or why there was none.
Outcome = int | str
REFUSED, UNTRUSTED, BROKEN = "connection refused", "certificate not trusted", "broken"
_PATIENCE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who asks: where, as whom, and whether each request has a connection of its own."""

    port: Callable[[], int]
    source: str | None = None
    key: str | None = None
    tls: ssl.SSLContext | None = None
    fresh: bool = False
    path: str = "/v1/chat/completions"
    #: Seconds between two requests, and by which share of itself it varies.
    pause: float = 0.02
    spread: float = 0.5

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request that was made."""

    id: str
    began: float
    ended: float
    outcome: Outcome
    detail: str = ""


class Client:
    """One caller on one connection at a time."""

    def __init__(self, name: str, number: int, caller: Caller) -> None:
        self.name = name
        self._caller = caller
        self._prefix = f"{name}-{number}"
        self._connection: Connection | None = None
        self.made: list[Request] = []
        self.expectations: list[tuple[float, frozenset[Outcome]]] = []

    async def run(self, over: asyncio.Event) -> None:
        """Ask until it is over; the request in progress is brought to its end."""
        try:
            # Clients that begin together would ask together for ever.
            await asyncio.sleep(self._caller.pause * random.random())
            for number in itertools.count():
                identity = f"{self._prefix}-{number}"
                began = time.monotonic()
                outcome, detail = await self._ask(identity)
                self.made.append(Request(identity, began, time.monotonic(), outcome, detail))
                if over.is_set():
                    return
                spread = self._caller.spread
                await asyncio.sleep(self._caller.pause * random.uniform(1 - spread, 1 + spread))
        finally:
            self._close()

    async def _ask(self, identity: str) -> tuple[Outcome, str]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._answer(identity), ""
        except ConnectionRefusedError:
            outcome, detail = REFUSED, ""
        except ssl.SSLCertVerificationError as error:
            outcome, detail = UNTRUSTED, str(error)
        except (OSError, TimeoutError, ValueError) as error:
            outcome, detail = BROKEN, repr(error)
        self._close()
        return outcome, detail

    async def _answer(self, identity: str) -> int:
        # A pool looks whether a connection was closed before it uses it again.
        if self._connection is not None and not self._connection.usable:
            self._close()
        if self._connection is None:
            self._connection = await Connection.open(
                self._caller.port(), source=self._caller.source, tls=self._caller.tls
            )
        connection = self._connection
        head = await connection.send(
            "POST", self._caller.path, {**self._caller.headers, ID: identity}, b'{"messages":[]}'
        )
        await connection.body(head)
        if self._caller.fresh or head.headers.get("connection", "").lower() == "close":
            self._close()
        return head.status

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def violations(self) -> list[str]:
        """Requests whose outcome was expected at no moment of their life."""
        wrong = []
        for request in self.made:
            allowed: set[Outcome] = set()
            for index, (since, outcomes) in enumerate(self.expectations):
                last = index + 1 == len(self.expectations)
                until = request.ended if last else self.expectations[index + 1][0]
                if since <= request.ended and request.began <= until:
                    allowed |= outcomes
            if request.outcome not in allowed:
                wrong.append(
                    f"{request.id}: {request.outcome} {request.detail}, expected {sorted(map(str, allowed))}"
                )
        return wrong


class Fleet:
    """Groups of clients under one name each."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    def add(self, name: str, caller: Caller, *expected: Outcome, count: int = 2) -> None:
        """Add clients, whose requests have one of the outcomes `expected`."""
        self._clients += [Client(name, number, caller) for number in range(count)]
        self.expect(name, *expected)

    def expect(self, name: str, *outcomes: Outcome) -> None:
        """From now on, the group has one of these outcomes."""
        for client in self._clients:
            if client.name == name:
                client.expectations.append((time.monotonic(), frozenset(outcomes)))

    def allow(self, name: str, *outcomes: Outcome) -> None:
        """From now on, these outcomes too."""
        for client in self._clients:
            if client.name == name:
                client.expectations.append((time.monotonic(), client.expectations[-1][1] | set(outcomes)))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(client.run(self._over)) for client in self._clients]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    @property
    def requests(self) -> list[Request]:
        return [request for client in self._clients for request in client.made]

    def outcomes(self) -> dict[str, collections.Counter[Outcome]]:
        """How often each group had which outcome."""
        counted: dict[str, collections.Counter[Outcome]] = {}
        for client in self._clients:
            counted.setdefault(client.name, collections.Counter()).update(r.outcome for r in client.made)
        return counted

    def check(self, seen: collections.Counter[str], *, at_least: int = 0) -> None:
        """Fail on a wrong outcome, on a request that reached the upstream wrongly, or on too little traffic."""
        made = self.requests
        print(f"{len(made)} requests: " + "; ".join(f"{n} {dict(o)}" for n, o in self.outcomes().items()))
        wrong = [text for client in self._clients for text in client.violations()]
        assert wrong == [], f"{len(wrong)} of {len(made)} requests:\n" + "\n".join(wrong[:20])
        passed = {request.id for request in made if request.outcome == 200}
        refused = {request.id for request in made if isinstance(request.outcome, int)} - passed
        assert [name for name in passed if seen[name] != 1] == []
        assert [name for name in refused if seen[name]] == []
        assert len(made) >= at_least
        assert all(client.made for client in self._clients)
