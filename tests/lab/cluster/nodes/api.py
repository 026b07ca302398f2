"""A small client of the API server: requests, and LIST with WATCH that reconnects."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import aiohttp
import yaml

log = logging.getLogger("lab.nodes")

MERGE = "application/merge-patch+json"
#: Objects without spec, status and data.
METADATA = "application/json;as={0};g=meta.k8s.io;v=v1"
#: (event type, object); after a new LIST, what is gone comes as DELETED.
Handler = Callable[[str, dict[str, Any]], None]
#: What to remember of an object.
Keep = Callable[[dict[str, Any]], dict[str, Any]]


class ApiError(Exception):
    """The API server refused; `text` is the body of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {_message(text)}")
        self.status = status


class Api:
    """Speaks to one API server with the client certificate of a kubeconfig."""

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        self._server, self._tls = _read_kubeconfig(kubeconfig)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=50)
        # No limit for the whole: under load a request may wait long for a free connection.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
        self._session = aiohttp.ClientSession(self._server, connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> dict[str, Any]:
        """Raises: ApiError."""
        return await self._request("GET", path)

    async def get_or_none(self, path: str) -> dict[str, Any] | None:
        """The object, None without one. Raises: ApiError."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises: ApiError."""
        return await self._request("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch. Raises: ApiError."""
        return await self._request("PATCH", path, body, MERGE)

    async def delete(self, path: str, *, uid: str | None = None, grace: int | None = None) -> None:
        """Delete; nothing to do when it is gone or, with `uid`, another one. Raises: ApiError."""
        body: dict[str, Any] = {}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._request("DELETE", path, body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def watch(self, path: str, handler: Handler, *, selector: str = "", metadata: bool = False) -> None:
        """Tell `handler` about every object and every change, for ever.

        With `metadata`, objects have nothing else, and what is gone has only its name.
        """
        known: dict[str, dict[str, Any]] = {}
        keep = _name_only if metadata else _whole
        while True:
            try:
                version = await self._list(path, handler, known, selector, keep)
                while True:
                    version = await self._follow(path, handler, known, selector, keep, version)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.debug("watch %s begins again: %r", path, error)
                await asyncio.sleep(0.2)

    async def _list(
        self, path: str, handler: Handler, known: dict[str, dict[str, Any]], selector: str, keep: Keep
    ) -> str:
        accept = METADATA.format("PartialObjectMetadataList") if keep is _name_only else "application/json"
        url = f"{path}?fieldSelector={selector}" if selector else path
        answer = await self._request("GET", url, accept=accept)
        current = {item["metadata"]["uid"]: item for item in answer.get("items") or ()}
        for uid in known.keys() - current.keys():
            handler("DELETED", known.pop(uid))
        for uid, item in current.items():
            handler("MODIFIED" if uid in known else "ADDED", item)
        known.update({uid: keep(item) for uid, item in current.items()})
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(
        self,
        path: str,
        handler: Handler,
        known: dict[str, dict[str, Any]],
        selector: str,
        keep: Keep,
        version: str,
    ) -> str:
        """One WATCH until the server ends it; the version to go on from."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        if selector:
            query["fieldSelector"] = selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        accept = METADATA.format("PartialObjectMetadata") if keep is _name_only else "application/json"
        headers = {"Accept": accept}
        async with self._session.get(path, params=query, timeout=timeout, headers=headers) as response:
            if response.status != 200:
                raise ApiError(response.status, await response.text())
            async for line in _lines(response):
                event = json.loads(line)
                item = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(int(item.get("code", 500)), str(item.get("message", "")))
                version = item["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    known.pop(item["metadata"]["uid"], None)
                else:
                    known[item["metadata"]["uid"]] = keep(item)
                handler(event["type"], item)
        return version

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        headers = {"Accept": accept, **({"Content-Type": kind} if data is not None else {})}
        async with self._session.request(method, path, data=data, headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, text)
            answer: dict[str, Any] = json.loads(text)
            return answer


def _message(text: str) -> str:
    """The message of a Status; plain text where the server sends that."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]


def _whole(item: dict[str, Any]) -> dict[str, Any]:
    return item


def _name_only(item: dict[str, Any]) -> dict[str, Any]:
    meta = item["metadata"]
    return {"metadata": {key: meta[key] for key in ("namespace", "name", "uid") if key in meta}}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length; aiohttp's own reader refuses those beyond its buffer."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _read_kubeconfig(path: pathlib.Path) -> tuple[str, ssl.SSLContext]:
    """Server and TLS of the current context; files only, no embedded data."""
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    tls.load_cert_chain(user["client-certificate"], user["client-key"])
    return str(cluster["server"]), tls


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
