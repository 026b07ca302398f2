"""Generated values of a sandbox: read back if they exist, made if they do not.

A value is only ever made for a Secret that the API server then creates, or for an entry that it lacks: a POST
that finds the name taken changes nothing, and a patch names the version that was seen, so a stale view can
never replace a key that is in use (I2).
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import access, envoy_routes, facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.observed import seen

from . import material, views

Children = Mapping[tuple[str, str], seen.Seen]


class Credentials:
    """Makes and keeps the generated values of sandboxes."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        write_back: Callable[[kinds.Kind, Mapping[str, Any]], seen.Seen],
    ) -> None:
        self._client = client
        self._write_back = write_back
        self._fresh: dict[str, facts.Material] = {}
        self._engine_keys: dict[str, str] = {}

    async def ensure(self, sandbox: v1alpha1.AISandbox, children: Children) -> facts.Material:
        """All values for rendering.

        Values that are not stored yet are made once and kept until they are seen stored, so that
        Secrets that are created in one pass agree with each other.
        """
        uid = sandbox.metadata.uid
        chat = _data(children, access.chat_name(sandbox))
        engine = _data(children, access.engine_key_name(sandbox)).get(access.ENGINE_KEY)
        # An engine reads its key once, at its start. So one that somebody deleted comes back as it was, or the
        # engine that runs would refuse everybody; the chat's Secret holds it too, for an operator that starts anew.
        known = engine or self._engine_keys.get(uid) or chat.get(access.CHAT_ENGINE_KEYS)
        if known:
            self._engine_keys[uid] = known
        session = chat.get(access.CHAT_SESSION_KEY)
        admin = _data(children, access.chat_admin_name(sandbox)).get(access.ADMIN_PASSWORD)
        stored_keys = _record(children, access.api_keys_name(sandbox))
        keys = dict(stored_keys.facts["data"]) if stored_keys else {}
        wanted = [key.name for key in sandbox.spec.access.api_keys]
        if stored_keys is not None:
            keys = await self._sync_keys(stored_keys, wanted, keys)
        fresh = self._fresh.get(uid)
        if engine and session and stored_keys and (admin or sandbox.spec.chat.admin.secret_name):
            self._fresh.pop(uid, None)
        elif fresh is None:
            fresh = self._fresh[uid] = facts.Material(
                engine_key=known or material.engine_key(),
                chat_session_key=material.session_key(),
                chat_admin_password=material.admin_password(),
                api_keys={},
            )
        if stored_keys is None and fresh is not None:
            keys = {name: fresh.api_keys.get(name) or material.api_key() for name in wanted}
            fresh = self._fresh[uid] = dataclasses.replace(fresh, api_keys=keys)
        found = facts.Material(
            engine_key=engine or (fresh.engine_key if fresh else ""),
            chat_session_key=session or (fresh.chat_session_key if fresh else ""),
            chat_admin_password=admin or (fresh.chat_admin_password if fresh else ""),
            # Only names that the spec has and values that are fit to be a key reach the gateway.
            api_keys={n: keys[n] for n in wanted if _usable(keys.get(n, ""))},
        )
        await self._fill(sandbox, children, found)
        return found

    def forget(self, uid: str) -> None:
        """Drop values that were made for a sandbox that is gone."""
        self._fresh.pop(uid, None)
        self._engine_keys.pop(uid, None)

    async def _fill(self, sandbox: v1alpha1.AISandbox, children: Children, found: facts.Material) -> None:
        """Put back what somebody took out of a Secret that stands; what is still in it stays."""
        wanted = {access.engine_key_name(sandbox): {access.ENGINE_KEY: found.engine_key}}
        admin = sandbox.spec.chat.admin
        if not admin.secret_name:
            values = {access.ADMIN_EMAIL: admin.email, access.ADMIN_PASSWORD: found.chat_admin_password}
            wanted[access.chat_admin_name(sandbox)] = values
        for name, values in wanted.items():
            stored = _record(children, name)
            # One that was not read, by its label, is not empty.
            if stored is None or (held := stored.facts.get("data")) is None:
                continue
            if lacking := {key: _encode(value) for key, value in values.items() if not held.get(key)}:
                await self._patch(stored, lacking)

    async def _sync_keys(self, stored: seen.Seen, wanted: list[str], keys: dict[str, str]) -> dict[str, str]:
        """Make values for new names and drop those of removed ones; nothing else in the Secret changes."""
        added = {name: material.api_key() for name in wanted if not facts.split_keys(keys.get(name, ""))}
        removed = [name for name in keys if name not in wanted]
        if not added and not removed:
            return keys
        return await self._patch(
            stored, {**{n: _encode(v) for n, v in added.items()}, **dict.fromkeys(removed)}
        )

    async def _patch(self, stored: seen.Seen, data: Mapping[str, str | None]) -> dict[str, str]:
        """Change entries of exactly what was seen; a Secret that changed since then is left for the next pass."""
        patch = {"metadata": {"resourceVersion": stored.resource_version}, "data": dict(data)}
        answer = await self._client.merge_patch(kinds.SECRET, stored.namespace, stored.name, patch)
        return dict(self._write_back(kinds.SECRET, answer).facts["data"])


def unusable_keys(sandbox: v1alpha1.AISandbox, children: Children) -> tuple[views.Problem, ...]:
    """Values that somebody put into the Secret and that admit nobody; never the values themselves."""
    name = access.api_keys_name(sandbox)
    stored = _data(children, name)
    wanted = [key.name for key in sandbox.spec.access.api_keys]
    return tuple(
        views.Problem(
            reason=Reason.KeyUnusable,
            message=f"Secret {name}, entry {key}: a value is too short, too long or has other characters",
        )
        for key in wanted
        if not all(map(envoy_routes.usable_key, facts.split_keys(stored.get(key, ""))))
    )


def _usable(entry: str) -> bool:
    return any(map(envoy_routes.usable_key, facts.split_keys(entry)))


def _record(children: Children, name: str) -> seen.Seen | None:
    return children.get(("Secret", name))


def _data(children: Children, name: str) -> dict[str, str]:
    record = _record(children, name)
    return dict(record.facts.get("data", {})) if record else {}


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
