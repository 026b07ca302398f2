"""Reads the HTTP ports of pods."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import aiohttp

#: Bytes of an answer that are read; more is not what was asked for.
_LONGEST = 1 << 20


class PodUnreachable(Exception):
    """The pod did not answer with status 200; the message says what happened."""


class PodReader:
    """Reads pods by their address.

    Args:
        proxy: URL of an HTTP proxy that reaches pods; None where the operator reaches them itself.
        timeout: seconds for one answer.
        concurrency: answers that are awaited at the same time.
    """

    def __init__(self, proxy: str | None = None, *, timeout: float = 3.0, concurrency: int = 16) -> None:
        self._proxy = proxy
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._slots = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Environment variables for proxies are for the internet, not for pods.
        self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, address: str, port: int, path: str) -> str:
        """Body of an answer.

        Raises:
            PodUnreachable: there was none, or its status was not 200.
        """
        status, body = await self.request("GET", address, port, path)
        if status != 200:
            raise PodUnreachable(f"port {port} answered with status {status}")
        return body

    async def request(
        self,
        method: str,
        address: str,
        port: int,
        path: str,
        *,
        token: str = "",
        json: object = None,
        patience: float | None = None,
    ) -> tuple[int, str]:
        """Status and body of an answer.

        Args:
            token: sent as bearer token.
            patience: seconds, where the usual ones are too few.

        Raises:
            PodUnreachable: there was none.
        """
        assert self._session is not None
        host = f"[{address}]" if ":" in address else address
        limit = aiohttp.ClientTimeout(total=patience) if patience else self._timeout
        try:
            async with (
                self._slots,
                self._session.request(
                    method,
                    f"http://{host}:{port}{path}",
                    proxy=self._proxy,
                    timeout=limit,
                    allow_redirects=False,
                    headers={"Authorization": f"Bearer {token}"} if token else None,
                    json=json,
                ) as answer,
            ):
                body = b""
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _LONGEST:
                        raise PodUnreachable(f"port {port} answered with more than {_LONGEST} bytes")
                return answer.status, body.decode(errors="replace")
        except TimeoutError as error:
            raise PodUnreachable(f"port {port} did not answer in {limit.total:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise PodUnreachable(f"port {port} is not reached: {error}") from error
