"""The cloud controller manager's Linode client: few calls, and the retries of Linode's Go library.

Retried without end: 429, 408, 503 without X-Maintenance-Mode, 400 `Linode busy.`; everything else is an
error for the caller. Lists walk all pages. Source: linode/linodego (retries.go; 1000 attempts), requests
as recorded.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import aiohttp

from lab.linode.ccm.annotations import SyncError
from lab.linode.errors import Json

RETRIES = 1000


class LinodeError(SyncError):
    """An answer that is no success, as the Go library words it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"[{status:03d}] {reason}")
        self.status = status


def retryable(status: int, reason: str, maintenance: str | None) -> bool:
    if status == 503:
        return maintenance is None
    return status in (408, 429) or (status == 400 and reason == "Linode busy.")


class Linode:
    """`async with Linode(url, token) as linode: await linode.get("/nodebalancers/1")`."""

    def __init__(self, url: str, token: str, timeout: float = 120.0, poll: float = 0.1) -> None:
        self.url = url.rstrip("/")
        self.poll = poll
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}", "User-Agent": "linode-cloud-controller-manager"},
            timeout=aiohttp.ClientTimeout(total=timeout),
        )

    async def __aenter__(self) -> Linode:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Json = None, filtered: str | None = None) -> Json:
        headers = {} if filtered is None else {"X-Filter": filtered}
        for _ in range(RETRIES):
            try:
                async with self._session.request(
                    method, self.url + path, json=body, headers=headers
                ) as answer:
                    document = await answer.json(content_type=None)
                    if answer.status < 400:
                        return document
                    reason = _reason(document)
                    if not retryable(answer.status, reason, answer.headers.get("X-Maintenance-Mode")):
                        raise LinodeError(answer.status, reason)
                    wait = answer.headers.get("Retry-After", "")
            except (aiohttp.ClientError, TimeoutError) as error:
                raise LinodeError(2, str(error) or type(error).__name__) from error
            except ValueError as error:
                raise LinodeError(2, f"unreadable answer: {error}") from error
            await asyncio.sleep(float(wait) if wait.isdigit() else self.poll)
        raise LinodeError(2, "gave up")

    async def get(self, path: str) -> Json:
        return await self.call("GET", path)

    async def list_all(self, path: str, filtered: str | None = None) -> list[Json]:
        found: list[Json] = []
        number = 1
        while True:
            page = await self.call("GET", f"{path}?page={number}", filtered=filtered)
            found += page["data"]
            if number >= page["pages"]:
                return found
            number += 1

    async def post(self, path: str, body: Json) -> Json:
        return await self.call("POST", path, body)

    async def put(self, path: str, body: Json) -> Json:
        return await self.call("PUT", path, body)

    async def delete(self, path: str) -> None:
        await self.call("DELETE", path)


def _reason(document: Json) -> str:
    try:
        errors = document["errors"]
        return "; ".join(
            f"[{error['field']}] {error['reason']}" if error.get("field") else str(error["reason"])
            for error in errors
        )
    except (KeyError, TypeError):
        return "unknown error"
