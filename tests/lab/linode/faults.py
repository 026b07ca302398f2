"""Faults that a test switches on: what the network and Linode do to a request.

A fault matches a method and a path (a template such as `/networking/firewalls/{firewallId}`, or a glob on
the path without its version prefix), optionally one token, skips `skip` requests, then strikes `times`
times (None: for ever). It strikes before the effect, or after it (`after_effect`): a lost reply. Sources:
recorded errors (`Linode busy.`, 503 with X-Maintenance-Mode, 429 with Retry-After).
"""

from __future__ import annotations

import fnmatch
import itertools
from dataclasses import asdict, dataclass, field
from typing import Literal

from lab.linode.errors import Json

Kind = Literal["status", "delay", "hang", "reset", "expire-token"]
_numbers = itertools.count(1)


@dataclass
class Fault:
    kind: Kind = "status"
    method: str = "*"
    path: str = "*"
    token: str | None = None  # a token's name
    times: int | None = 1
    skip: int = 0
    after_effect: bool = False
    delay: float = 0.0  # seconds to wait when the fault strikes
    status: int = 503
    reason: str = "Service Unavailable"
    retry_after: str | None = None  # header text, as seconds or as a date
    maintenance: str | None = None  # X-Maintenance-Mode: such a 503 must not be retried
    body: str | None = None  # raw text instead of the error body, e.g. a proxy's HTML page
    id: int = field(default_factory=lambda: next(_numbers))
    struck: int = 0

    def matches(self, method: str, path: str, template: str | None, token: str | None) -> bool:
        return (
            self.method in ("*", method)
            and (self.path == template or fnmatch.fnmatchcase(path, self.path))
            and self.token in (None, token)
        )

    def headers(self) -> dict[str, str]:
        found = {"Retry-After": self.retry_after, "X-Maintenance-Mode": self.maintenance}
        return {name: value for name, value in found.items() if value is not None}

    def render(self) -> dict[str, Json]:
        return asdict(self)


class Faults:
    """The switched-on faults; the first match takes the request."""

    def __init__(self) -> None:
        self.active: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        self.active.append(fault)
        return fault

    def remove(self, ident: int) -> None:
        self.active = [fault for fault in self.active if fault.id != ident]

    def clear(self) -> None:
        self.active = []

    def take(self, method: str, path: str, template: str | None, token: str | None) -> Fault | None:
        for fault in self.active:
            if not fault.matches(method, path, template, token):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None and fault.struck >= fault.times:
                continue
            fault.struck += 1
            return fault
        return None


# -- the usual ones ----------------------------------------------------------------------------------------


def busy(method: str = "*", path: str = "*", times: int | None = 1) -> Fault:
    """400 `Linode busy.`: may be retried."""
    return Fault("status", method, path, times=times, status=400, reason="Linode busy.")


def unavailable(path: str = "*", times: int | None = None, retry_after: str | None = None) -> Fault:
    return Fault("status", "*", path, times=times, status=503, retry_after=retry_after)


def maintenance(path: str = "*", times: int | None = None) -> Fault:
    return Fault("status", "*", path, times=times, status=503, maintenance="Whole system maintenance")


def throttled(retry_after: int, method: str = "*", path: str = "*", times: int | None = 1) -> Fault:
    return Fault(
        "status",
        method,
        path,
        times=times,
        status=429,
        reason="Too many requests",
        retry_after=str(retry_after),
    )


def lost_reply(method: str, path: str, times: int | None = 1) -> Fault:
    """The effect happens, the connection dies before the reply."""
    return Fault("reset", method, path, times=times, after_effect=True)


def reset(method: str, path: str, times: int | None = 1) -> Fault:
    """The connection dies before anything happens."""
    return Fault("reset", method, path, times=times)


def gateway_timeout(method: str, path: str, times: int | None = 1) -> Fault:
    """504 although the effect happened."""
    return Fault("status", method, path, times=times, after_effect=True, status=504, reason="Gateway Timeout")


def slow(seconds: float, method: str = "*", path: str = "*", times: int | None = None) -> Fault:
    return Fault("delay", method, path, times=times, delay=seconds)


def slow_nodebalancer(seconds: float, times: int | None = None) -> Fault:
    """The NodeBalancer exists at once; its creator hears of it late."""
    return Fault("delay", "POST", "/nodebalancers", times=times, delay=seconds, after_effect=True)


def hang(method: str = "*", path: str = "*", times: int | None = 1, after_effect: bool = False) -> Fault:
    return Fault("hang", method, path, times=times, after_effect=after_effect)


def token_expires(token: str, skip: int = 0) -> Fault:
    """The token ends in mid-run: after `skip` requests it is refused for good."""
    return Fault("expire-token", token=token, skip=skip)
