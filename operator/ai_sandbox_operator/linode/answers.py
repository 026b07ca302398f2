"""From an HTTP answer of Linode's API, or from its absence, to an error. Pure.

What decides is whether the request may have taken effect: a creation without an answer is Ambiguous,
everything else may be repeated. Sources: Linode API description (`components/responses`); linodego
`retries.go` for "Linode busy." and for 503 with X-Maintenance-Mode, which must not be repeated.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import pydantic

from ai_sandbox_operator.linode import budget, errors

MAX_REASON = 300
DEFAULT_MAINTENANCE_PAUSE = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked. `page` marks a collection."""

    method: str
    route: str
    ident: int | None = None
    body: Mapping[str, Any] | None = None
    page: int | None = None
    filter: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        return self.route if self.ident is None else self.route.replace("{id}", str(int(self.ident)))

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    request: Request


class Page(pydantic.BaseModel):
    """Envelope of a collection."""

    data: list[dict[str, Any]]
    page: int = 1
    pages: int = 1


class _Error(pydantic.BaseModel):
    reason: str = ""
    field: str | None = None


class _Errors(pydantic.BaseModel):
    errors: list[_Error] = []


def error_of(answer: Answer, request: Request, *, secret: str, now: float) -> errors.LinodeError | None:
    """The error of an answer; None if it is a success. 429 is judged by the caller, who keeps the budget."""
    status = answer.status
    if 200 <= status < 300:
        return None
    said = reasons(answer.content, secret=secret)
    match status:
        case 400 if any("busy" in reason.text.lower() for reason in said):
            return errors.Busy(str(request))
        case 401:
            return errors.Unauthorized(str(request))
        case 403:
            headers = answer.headers
            needed, held = (
                scopes(headers.get("X-Accepted-OAuth-Scopes")),
                scopes(headers.get("X-OAuth-Scopes")),
            )
            return errors.Forbidden(str(request), needed=needed, held=held)
        case 404:
            return errors.NotFound(str(request))
        case 503 if "X-Maintenance-Mode" in answer.headers:
            pause = retry_after(answer.headers, now=now) or DEFAULT_MAINTENANCE_PAUSE
            return errors.Unavailable("it is in maintenance", retry_after=pause, repeat=False)
        case _ if 400 <= status < 500 and status != 408:
            return errors.Invalid(str(request), status=status, reasons=said)
    what = f"{request} was answered with status {status}"
    if request.method == "POST" and status != 408:
        return errors.Ambiguous(str(request), f"status {status}")
    return errors.Unavailable(what, retry_after=retry_after(answer.headers, now=now) or 5.0)


def lost(error: Exception, request: Request) -> errors.LinodeError:
    """The error of a request without an answer."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return errors.Unavailable("no connection in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return errors.Unavailable("its name does not resolve")
    if isinstance(error, aiohttp.ClientSSLError):
        return errors.Unavailable("its certificate is not trusted")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return errors.Unavailable("cannot connect")
    what = "no answer in time" if isinstance(error, TimeoutError) else "the connection broke"
    if request.method == "POST":
        return errors.Ambiguous(str(request), what)
    return errors.Unavailable(f"{request} failed: {what}")


def not_understood(error: pydantic.ValidationError, request: Request) -> errors.LinodeError:
    """The error of an answer that is not what the description says. Only field names are passed on."""
    fields = ", ".join(sorted({".".join(map(str, one["loc"])) or "the whole" for one in error.errors()})[:5])
    what = f"the answer is not understood: {fields}"
    if request.method == "POST":
        return errors.Ambiguous(str(request), what)
    return errors.Unavailable(f"{request}: {what}", retry_after=60.0, repeat=False)


def reasons(content: bytes, *, secret: str) -> tuple[errors.Reason, ...]:
    """The reasons of an error body, shortened, and without the token should the API echo it."""
    try:
        parsed = _Errors.model_validate_json(content)
    except pydantic.ValidationError:
        return ()
    return tuple(
        errors.Reason(
            one.reason.replace(secret, "***")[:MAX_REASON], (one.field or "").replace(secret, "***")
        )
        for one in parsed.errors
        if one.reason
    )


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None if there is none."""
    text = headers.get("Retry-After")
    value = budget.number(text)
    if value is None and text:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        value = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp() - now
    return None if value is None else min(max(value, 0.0), budget.MAX_PAUSE)


def scopes(text: str | None) -> tuple[str, ...]:
    """Scopes of a header, separated by commas or blanks."""
    return tuple(part for part in re.split(r"[\s,]+", text or "") if part)
