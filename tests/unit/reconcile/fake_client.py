"""A client that remembers what it was asked for, over a dict of live objects."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from unit.observed.live import live, patched

Json = Any
Failure = Callable[[str, str, str], Exception | None]


class FakeClient(kube_client.KubeClient):
    """Keeps objects as an API server would, as far as the executor can tell.

    `fail(verb, kind, name)` may return an error to raise; `after_apply` changes what an apply leaves.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Json]] = {}
        self.calls: list[str] = []
        self.sent: list[Json] = []
        self.fail: Failure = lambda _verb, _kind, _name: None
        self.after_apply: Callable[[dict[str, Json]], object] = lambda _body: None
        self._version = 1000

    async def get(self, kind: kinds.Kind, namespace: str | None, name: str) -> Json:
        await self._called("get", kind, name)
        return copy.deepcopy(self._held(kind, name))

    async def list_all(self, kind: kinds.Kind, namespace: str | None, **_: Any) -> list[Json]:
        await self._called("list", kind, "")
        return [copy.deepcopy(body) for (held, _name), body in self.objects.items() if held == kind.kind]

    async def replace(self, kind: kinds.Kind, manifest: Json) -> Json:
        name = manifest["metadata"]["name"]
        await self._called("replace", kind, name, manifest)
        held = self._held(kind, name)
        metadata = {**held["metadata"], **manifest["metadata"]}
        return self._store(kind, copy.deepcopy({**held, **manifest, "metadata": metadata}))

    async def create(self, kind: kinds.Kind, manifest: Json) -> Json:
        name = manifest["metadata"]["name"]
        await self._called("create", kind, name, manifest)
        if (kind.kind, name) in self.objects:
            raise errors.AlreadyExists(f"{name} already exists", status=409)
        return self._store(kind, live(manifest))

    async def apply(self, kind: kinds.Kind, manifest: Json, *, subresource: str | None = None) -> Json:
        name = manifest["metadata"]["name"]
        await self._called("apply", kind, name, manifest)
        held = self.objects.get((kind.kind, name))
        body = _merged(held, manifest) if held else live(manifest)
        self.after_apply(body)
        return self._store(kind, body)

    async def json_patch(self, kind: kinds.Kind, namespace: str, name: str, operations: Json) -> Json:
        await self._called("patch", kind, name, operations)
        return self._store(kind, patched(self._held(kind, name), operations))

    async def merge_patch(self, kind: kinds.Kind, namespace: str, name: str, patch: Json) -> Json:
        await self._called("merge", kind, name, patch)
        return self._store(kind, _merged(self._held(kind, name), patch))

    async def delete(
        self, kind: kinds.Kind, namespace: str | None, name: str, *, uid: str, foreground: bool = False
    ) -> None:
        await self._called("delete", kind, name, "Foreground" if foreground else "Background")
        held = self.objects.get((kind.kind, name))
        if held is not None:
            if held["metadata"]["uid"] != uid:
                raise errors.Conflict("another object has the name", status=409)
            del self.objects[kind.kind, name]

    def _held(self, kind: kinds.Kind, name: str) -> dict[str, Json]:
        if (kind.kind, name) not in self.objects:
            raise errors.NotFound(f"{name} not found", status=404)
        return self.objects[kind.kind, name]

    async def _called(self, verb: str, kind: kinds.Kind, name: str, sent: Json = None) -> None:
        self.calls.append(f"{verb} {kind.kind} {name}")
        self.sent.append(copy.deepcopy(sent))
        await asyncio.sleep(0)
        if (error := self.fail(verb, kind.kind, name)) is not None:
            raise error

    def _store(self, kind: kinds.Kind, body: dict[str, Json]) -> dict[str, Json]:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[kind.kind, body["metadata"]["name"]] = body
        return copy.deepcopy(body)


def _merged(held: Json, patch: Json) -> Json:
    """RFC 7386; near enough to server-side apply where lists have one writer."""
    if not (isinstance(held, dict) and isinstance(patch, dict)):
        return copy.deepcopy(patch)
    both = {**held, **{k: _merged(held.get(k), v) for k, v in patch.items()}}
    return {key: value for key, value in both.items() if value is not None}
