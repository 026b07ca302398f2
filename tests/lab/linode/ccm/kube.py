"""The few Kubernetes calls of the cloud controller manager, over plain aiohttp.

Deliberately not the operator's client: the second actor on an account must not share code with the first.
Reads a kubeconfig with a client certificate or a token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import aiohttp
import yaml

from lab.linode.errors import Json

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


class KubeError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"[{status}] {message}")
        self.status = status


class Kube(Protocol):
    """What the controller needs of a cluster."""

    async def list_all(self, plural: str) -> tuple[list[Json], str]: ...

    def watch(self, plural: str, version: str) -> AsyncIterator[tuple[str, Json]]: ...

    async def get(self, plural: str, namespace: str, name: str) -> Json | None: ...

    async def patch_service_status(self, namespace: str, name: str, patch: Json) -> None: ...

    async def create_event(self, namespace: str, event: Json) -> None: ...

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None: ...


def _material(entry: Mapping[str, Json], name: str) -> bytes | None:
    """A certificate or key of a kubeconfig: inline or in a file."""
    if entry.get(f"{name}-data"):
        return base64.b64decode(entry[f"{name}-data"])
    return pathlib.Path(entry[name]).read_bytes() if entry.get(name) else None


def connection(kubeconfig: str | pathlib.Path) -> tuple[str, ssl.SSLContext | bool, dict[str, str]]:
    """Server, TLS context and headers of a kubeconfig's current context."""
    document = yaml.safe_load(pathlib.Path(kubeconfig).read_text())

    def entry(kind: str, name: str) -> dict[str, Json]:
        found = next(one for one in document[f"{kind}s"] if one["name"] == name)
        return dict(found[kind])

    context = entry("context", document["current-context"])
    cluster, user = entry("cluster", context["cluster"]), entry("user", context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
    if not cluster["server"].startswith("https"):
        return cluster["server"], True, headers
    authority = _material(cluster, "certificate-authority")
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    if certificate and key:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the ssl module reads files only
            file.write(certificate + b"\n" + key)
            file.flush()
            tls.load_cert_chain(file.name)
    return cluster["server"], tls, headers


def _abort(answer: aiohttp.ClientResponse) -> None:
    """End an endless answer at once, without a TLS farewell that nobody waits for."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()


class KubeClient:
    """`Kube` over HTTP."""

    def __init__(self, kubeconfig: str | pathlib.Path) -> None:
        self.server, tls, headers = connection(kubeconfig)
        self._session = aiohttp.ClientSession(
            headers={**headers, "User-Agent": "service-controller"},
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0.05)  # aiohttp does not wait for TLS connections that were dropped before

    async def _call(self, method: str, path: str, body: Json = None, kind: str | None = None) -> Json:
        headers = {"Content-Type": kind or "application/json"} if body is not None else {}
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self.server + path, data=data, headers=headers, timeout=aiohttp.ClientTimeout(total=30)
        ) as answer:
            document = await answer.json(content_type=None)
            if answer.status >= 400:
                raise KubeError(answer.status, str((document or {}).get("message", answer.reason)))
            return document

    async def list_all(self, plural: str) -> tuple[list[Json], str]:
        document = await self._call("GET", f"/api/v1/{plural}")
        return list(document["items"]), str(document["metadata"]["resourceVersion"])

    async def watch(self, plural: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        """Events until the connection ends; an ERROR event ends it too."""
        query = f"watch=true&resourceVersion={version}&allowWatchBookmarks=true"
        async with self._session.get(f"{self.server}/api/v1/{plural}?{query}") as answer:
            if answer.status >= 400:
                raise KubeError(answer.status, await answer.text())
            buffer = b""
            try:
                async for chunk in answer.content.iter_any():
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in filter(None, lines):
                        event: dict[str, Any] = json.loads(line)
                        if event["type"] == "ERROR":
                            raise KubeError(410, str(event["object"].get("message", "")))
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            finally:
                _abort(answer)

    async def get(self, plural: str, namespace: str, name: str) -> Json | None:
        try:
            return await self._call("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def patch_service_status(self, namespace: str, name: str, patch: Json) -> None:
        path = f"/api/v1/namespaces/{namespace}/services/{name}/status"
        await self._call("PATCH", path, patch, STRATEGIC)

    async def create_event(self, namespace: str, event: Json) -> None:
        await self._call("POST", f"/api/v1/namespaces/{namespace}/events", event)

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        await self._call("PATCH", f"/api/v1/namespaces/{namespace}/events/{name}", patch, MERGE)
