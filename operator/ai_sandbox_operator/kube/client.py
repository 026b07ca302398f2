"""The few calls that the operator makes to the API server, untyped.

Objects are plain dicts: the generated models of the official package would cost most of the
operator's memory and give nothing, since desired objects are rendered as dicts anyway. Connection
handling, TLS and token refresh are the official package's.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client as aio
from kubernetes.aio import config as aio_config

from ai_sandbox_operator.api import kinds, names

from . import errors

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=1,application/json"

#: Called after each request with verb, kind and status (0 = no answer).
Observer = Callable[[str, str, int], None]
#: Called before each write; raises when this process may no longer write.
Guard = Callable[[], None]


async def load_configuration(kubeconfig: str | None, *, context: str | None = None) -> aio.Configuration:
    """Configuration from a kubeconfig file, or of the pod's service account.

    Raises:
        kubernetes.aio.config.ConfigException: neither is usable.
    """
    configuration = aio.Configuration()
    configuration.retries = None  # not False: that is an int to the package, and means without end
    if kubeconfig is not None:
        await aio_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig,
            context=context,
            client_configuration=configuration,
        )
    else:
        aio_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


#: Seconds for a log.
LOG_TIMEOUT = 5.0


class KubeClient:
    """Asyncio client for untyped objects.

    Every method raises `errors.KubeError` subclasses; no method retries: the work queue does.
    """

    def __init__(
        self,
        configuration: aio.Configuration,
        *,
        concurrency: int = 32,
        timeout: float = 30.0,
        observer: Observer = lambda _verb, _kind, _status: None,
        guard: Guard = lambda: None,
    ) -> None:
        configuration.connection_pool_maxsize = concurrency
        self._api = aio.ApiClient(configuration)
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._observer = observer
        self.guard = guard

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: kinds.Kind, namespace: str | None, name: str) -> Object:
        """One object, read from the quorum."""
        return await self._request("get", kind, "GET", kind.path(namespace, name))

    async def list_all(
        self,
        kind: kinds.Kind,
        namespace: str | None,
        *,
        label_selector: str = "",
        metadata_only: bool = False,
        page_size: int = 500,
    ) -> list[Object]:
        """All objects of a kind, in pages; with `metadata_only` their metadata alone."""
        items: list[Object] = []
        token = ""
        while True:
            query = {"limit": str(page_size)}
            if label_selector:
                query["labelSelector"] = label_selector
            if token:
                query["continue"] = token
            answer = await self._request(
                "list",
                kind,
                "GET",
                kind.path(namespace),
                query=query,
                accept=METADATA_LIST if metadata_only else "application/json",
            )
            items += answer.get("items") or []
            token = answer.get("metadata", {}).get("continue") or ""
            if not token:
                return items

    async def create(self, kind: kinds.Kind, manifest: Object) -> Object:
        """POST; raises AlreadyExists when the name is taken."""
        path = kind.path(manifest["metadata"].get("namespace"))
        return await self._write("create", kind, "POST", path, manifest, query=_MANAGER)

    async def apply(self, kind: kinds.Kind, manifest: Object, *, subresource: str | None = None) -> Object:
        """Server-side apply of the fields in `manifest`; creates the object if it is absent.

        Conflicts are forced: the operator is the owner of every field that it renders.
        """
        metadata = manifest["metadata"]
        return await self._write(
            "apply",
            kind,
            "PATCH",
            kind.path(metadata.get("namespace"), metadata["name"], subresource),
            manifest,
            query={**_MANAGER, "force": "true"},
            content_type=APPLY,
        )

    async def json_patch(
        self, kind: kinds.Kind, namespace: str, name: str, operations: list[Object]
    ) -> Object:
        """RFC 6902 patch; raises Conflict when a `test` fails, or the object lacks what an operation needs."""
        try:
            return await self._write(
                "patch",
                kind,
                "PATCH",
                kind.path(namespace, name),
                operations,
                query=_MANAGER,
                content_type=JSON_PATCH,
            )
        except errors.Invalid as error:
            if error.status != 422 or not str(error).startswith(_NOT_APPLICABLE):
                raise
            text = f"{kind.kind} {name} is not as it was read"
            raise errors.Conflict(text, status=409, reason="Conflict") from error

    async def merge_patch(self, kind: kinds.Kind, namespace: str, name: str, patch: Object) -> Object:
        """RFC 7386 patch."""
        return await self._write(
            "patch",
            kind,
            "PATCH",
            kind.path(namespace, name),
            patch,
            query=_MANAGER,
            content_type=MERGE_PATCH,
        )

    async def replace(self, kind: kinds.Kind, manifest: Object) -> Object:
        """PUT; `metadata.resourceVersion` is the precondition."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._write("update", kind, "PUT", path, manifest, query=_MANAGER)

    async def delete(
        self, kind: kinds.Kind, namespace: str | None, name: str, *, uid: str, foreground: bool = False
    ) -> None:
        """Delete exactly the object with this UID; absence is success.

        Args:
            foreground: the object stays, as one that is being deleted, until what it owns is gone.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        try:
            await self._write("delete", kind, "DELETE", kind.path(namespace, name), body)
        except errors.NotFound:
            return

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        tail: int,
        previous: bool,
        limit_bytes: int = 1 << 20,
    ) -> str:
        """Last `tail` lines of a container's log, of these the first `limit_bytes` bytes.

        The answer is the node's, and a dead node gives none: it is not waited for long.
        """
        query = {
            "container": container,
            "tailLines": str(tail),
            "limitBytes": str(limit_bytes),
            "previous": str(previous).lower(),
        }
        path = kinds.POD.path(namespace, pod, "log")
        try:
            async with asyncio.timeout(LOG_TIMEOUT):
                raw = await self._raw("get", kinds.POD, "GET", path, query=query, accept="*/*")
        except TimeoutError:
            raise errors.Unavailable(f"the log of pod {pod} did not come in {LOG_TIMEOUT:.0f} s") from None
        return raw.decode("utf-8", errors="replace")

    async def events(self, namespace: str, uid: str, *, most: int = 100) -> list[Object]:
        """Events about the object with this UID, at most so many."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(most)}
        path = kinds.EVENT.path(namespace)
        return list((await self._request("list", kinds.EVENT, "GET", path, query=query)).get("items") or [])

    async def _write(
        self,
        verb: str,
        kind: kinds.Kind,
        method: str,
        path: str,
        body: Any,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        return await self._request(
            verb, kind, method, path, query=query, body=body, content_type=content_type, guard=self.guard
        )

    async def _request(
        self,
        verb: str,
        kind: kinds.Kind,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        guard: Guard = lambda: None,
    ) -> Object:
        raw = await self._raw(
            verb,
            kind,
            method,
            path,
            query=query,
            body=body,
            accept=accept,
            content_type=content_type,
            guard=guard,
        )
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise errors.Unavailable(f"the API server's answer is no JSON: {raw[:100]!r}") from error
        if not isinstance(answer, dict):
            raise errors.Unavailable(f"the API server's answer is no object: {raw[:100]!r}")
        return answer

    async def _raw(
        self,
        verb: str,
        kind: kinds.Kind,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        guard: Guard = lambda: None,
    ) -> bytes:
        headers = {"Accept": accept, "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        status = 0
        try:
            async with self._slots:
                guard()  # not earlier: waiting for a slot may outlast the lease
                answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                    method, url, headers=headers, body=body, _request_timeout=self._timeout
                )
                raw: bytes = await answer.read()
            status = int(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Unavailable(f"the API server did not answer: {error!r}") from error
        finally:
            self._observer(verb, kind.kind, status)
        if status >= 300:
            raise _error(status, raw, answer.headers)
        return raw


_MANAGER = {"fieldManager": names.FIELD_MANAGER}
#: What the API server says of a JSON patch that cannot be applied to the object as it stands. One whose
#: result breaks a rule is answered 422 as well, with the rule in its message.
#: Source: k8s.io/apiserver, pkg/endpoints/handlers/patch.go, and NewGenericServerResponse of k8s.io/apimachinery.
_NOT_APPLICABLE = "the server rejected our request due to an error in our request"


def _error(status: int, raw: bytes, headers: Mapping[str, str]) -> errors.KubeError:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    text = raw[:300].decode("utf-8", errors="replace")
    retry_after = headers.get("Retry-After", "")
    return errors.from_status(
        status,
        reason=str(answer.get("reason", "")),
        message=str(answer.get("message") or text or f"HTTP {status}"),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )
