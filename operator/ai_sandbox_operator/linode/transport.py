"""How a call is made: token, budget, circuit, time-outs, repetitions.

Invariants:

* POST is never repeated once it may have been sent; a lost reply raises Ambiguous.
* Rules of a firewall are not repeated either: the allowlist may be narrower by then, so the caller looks first.
* Other GET, PUT and DELETE describe an end state and are repeated at most `tries` times within `window`.
  (aiohttp repeats those once more by itself when a connection breaks; never POST.)
* No call waits longer than its time-outs and `max_wait`; beyond that it raises (I9).
* The token goes into one header and nowhere else: no redirects are followed, and no error, log or
  observer holds it (I6).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import pydantic

from ai_sandbox_operator.linode import answers, budget, errors, token

PAGE_SIZE = 500  # the API's maximum

M = TypeVar("M", bound=pydantic.BaseModel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One attempt, for metrics. `status` is 0 if there was no answer."""

    method: str
    route: str
    status: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds of one call, in seconds where not counted."""

    connect: float = 3.0
    total: float = 10.0
    tries: int = 3
    window: float = 5.0
    """No repetition starts later than this after the call began."""
    backoff: float = 0.25
    max_wait: float = 2.0
    """Longest wait for the request budget."""


class Transport:
    """Carries requests; close it, or use it as a context manager.

    Args:
        base_url: with the version, such as https://api.linode.com/v4.
        token_provider: asked at each attempt, so a rotated token is used at once.
        session: an aiohttp session to use; it is not closed. Absent: an own one is made at first use.
        observer: called after each attempt.
        clock, wall, sleep, rand: injected by tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token_provider: Callable[[], str | None],
        session: aiohttp.ClientSession | None = None,
        policy: Policy | None = None,
        request_budget: budget.Budget | None = None,
        breaker: budget.Breaker | None = None,
        observer: Callable[[Call], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
        user_agent: str = "ai-sandbox-operator",
    ) -> None:
        if not base_url.startswith(("https://", "http://")):
            raise ValueError("the base URL of Linode's API must begin with https:// or http://")
        self._base = base_url.rstrip("/")
        self._token = token_provider
        self._given_session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._policy = policy or Policy()
        self._budget = request_budget or budget.Budget(clock=clock, wall=wall)
        self._breaker = breaker or budget.Breaker(clock=clock)
        self._observer = observer
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._rand = rand
        self._user_agent = user_agent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the own session, if there is one."""
        if self._own_session is not None:
            await self._own_session.close()
            self._own_session = None

    async def _call(
        self,
        method: str,
        route: str,
        ident: int | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        page: int | None = None,
        filter_: Mapping[str, Any] | None = None,
        repeat: bool = True,
    ) -> answers.Answer:
        """One call with its repetitions.

        Args:
            repeat: False where a later attempt might undo what has been decided meanwhile.
        """
        request = answers.Request(
            method=method, route=route, ident=ident, body=body, page=page, filter=filter_
        )
        began = self._clock()
        with self._breaker.permit():
            attempt = 0
            while True:
                attempt += 1
                try:
                    return await self._attempt(request)
                except errors.Unavailable as error:
                    delay = self._delay(error, attempt)
                    late = self._clock() - began + delay > self._policy.window
                    if (
                        method == "POST"
                        or not (repeat and error.repeat)
                        or attempt >= self._policy.tries
                        or late
                    ):
                        raise
                    if isinstance(error, errors.RateLimited) and delay > self._policy.max_wait:
                        raise
                    await self._sleep(delay)

    def _delay(self, error: errors.Unavailable, attempt: int) -> float:
        if isinstance(error, errors.RateLimited):
            return error.retry_after or 0.0
        return float(self._policy.backoff * 2 ** (attempt - 1) * (0.5 + self._rand()))

    async def _attempt(self, request: answers.Request) -> answers.Answer:
        """Send once; twice if a 401 meets a token that has just been replaced."""
        kind = budget.CallClass.OTHER if request.page is None else budget.CallClass.COLLECTION
        secret = token.usable(self._token())
        wait = self._budget.reserve(kind, max_wait=self._policy.max_wait)
        if wait > 0:
            await self._sleep(wait)
        answer = await self._send(request, secret)
        if answer.status == 401:
            fresh = token.usable(self._token())
            if fresh != secret:
                secret = fresh
                answer = await self._send(request, secret)
        self._budget.learn(kind, answer.headers)
        if answer.status == 429:
            retry_after = answers.retry_after(answer.headers, now=self._wall())
            raise errors.RateLimited(retry_after=self._budget.pause(kind, retry_after))
        error = answers.error_of(answer, request, secret=secret, now=self._wall())
        if error is not None:
            raise error
        return answer

    async def _send(self, request: answers.Request, secret: str) -> answers.Answer:
        headers = {"Authorization": f"Bearer {secret}", "User-Agent": self._user_agent}
        if request.filter is not None:
            headers["X-Filter"] = json.dumps(request.filter)
        params = None if request.page is None else {"page": str(request.page), "page_size": str(PAGE_SIZE)}
        began = self._clock()
        status = 0
        try:
            async with self._session().request(
                request.method,
                self._base + request.path,
                headers=headers,
                params=params,
                json=request.body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._policy.total, connect=self._policy.connect),
            ) as response:
                content = await response.read()
                status = response.status
                return answers.Answer(
                    status=status, headers=response.headers.copy(), content=content, request=request
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # `from None`: aiohttp's errors may carry the request headers, and with them the token.
            raise answers.lost(error, request) from None
        finally:
            if self._observer is not None:
                seconds = self._clock() - began
                self._observer(
                    Call(method=request.method, route=request.route, status=status, seconds=seconds)
                )

    def _session(self) -> aiohttp.ClientSession:
        if self._given_session is not None:
            return self._given_session
        if self._own_session is None or self._own_session.closed:
            self._own_session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._own_session

    def _parse(self, model: type[M], answer: answers.Answer) -> M:
        try:
            return model.model_validate_json(answer.content)
        except pydantic.ValidationError as error:
            raise answers.not_understood(error, answer.request) from None

    def _model(self, model: type[M], item: Mapping[str, Any], answer: answers.Answer) -> M:
        try:
            return model.model_validate(item)
        except pydantic.ValidationError as error:
            raise answers.not_understood(error, answer.request) from None
