"""Generated values of a sandbox: read back if they exist, made if they do not.

A value is only ever made for a Secret that the API server then creates; a POST that finds the name
taken changes nothing, so a stale view can never replace a key that is in use (I2).
"""

from __future__ import annotations

import base64
import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.desired import access, common, envoy_routes, facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen

from . import material

log = logging.getLogger(__name__)

#: Component label of certificate Secrets; they are not rendered, so the plan must leave them alone.
CERTIFICATE = "certificate"

Children = Mapping[tuple[str, str], seen.Seen]


class Credentials:
    """Makes and keeps the generated values of sandboxes."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        write_back: Callable[[kinds.Kind, Mapping[str, Any]], seen.Seen],
        *,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client = client
        self._write_back = write_back
        self._now = now
        self._fresh: dict[str, facts.Material] = {}

    async def ensure(self, sandbox: v1alpha1.AISandbox, children: Children) -> facts.Material:
        """All values for rendering.

        Values that are not stored yet are made once and kept until they are seen stored, so that
        Secrets that are created in one pass agree with each other.
        """
        uid = sandbox.metadata.uid
        engine = _data(children, access.engine_key_name(sandbox)).get(access.ENGINE_KEY)
        session = _data(children, access.chat_name(sandbox)).get(access.CHAT_SESSION_KEY)
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
                engine_key=material.engine_key(),
                chat_session_key=material.session_key(),
                chat_admin_password=material.admin_password(),
                api_keys={},
            )
        if stored_keys is None and fresh is not None:
            keys = {name: fresh.api_keys.get(name) or material.api_key() for name in wanted}
            fresh = self._fresh[uid] = facts.Material(
                engine_key=fresh.engine_key,
                chat_session_key=fresh.chat_session_key,
                chat_admin_password=fresh.chat_admin_password,
                api_keys=keys,
            )
        return facts.Material(
            engine_key=engine or (fresh.engine_key if fresh else ""),
            chat_session_key=session or (fresh.chat_session_key if fresh else ""),
            chat_admin_password=admin or (fresh.chat_admin_password if fresh else ""),
            # Only names that the spec has and values that are fit to be a key reach the gateway.
            api_keys={n: keys[n] for n in wanted if envoy_routes.usable_key(keys.get(n, ""))},
        )

    def forget(self, uid: str) -> None:
        """Drop values that were made for a sandbox that is gone."""
        self._fresh.pop(uid, None)

    async def _sync_keys(self, stored: seen.Seen, wanted: list[str], keys: dict[str, str]) -> dict[str, str]:
        """Make values for new names and drop those of removed ones; nothing else in the Secret changes."""
        added = {name: material.api_key() for name in wanted if not keys.get(name)}
        removed = [name for name in keys if name not in wanted]
        if not added and not removed:
            return keys
        patch = {
            "metadata": {"resourceVersion": stored.resource_version},
            "data": {**{n: _encode(v) for n, v in added.items()}, **dict.fromkeys(removed)},
        }
        answer = await self._client.merge_patch(kinds.SECRET, stored.namespace, stored.name, patch)
        return dict(self._write_back(kinds.SECRET, answer).facts["data"])

    async def certificate(self, sandbox: v1alpha1.AISandbox, children: Children, *, address: str) -> None:
        """The self-signed certificate: made, renewed in time, and again when names change.

        Raises:
            errors.AlreadyExists: a Secret of that name is somebody else's; the message names it.
        """
        if sandbox.spec.access.tls.mode != "SelfSigned":
            return
        wanted = material.subject_names(
            sandbox=sandbox.metadata.name,
            namespace=sandbox.metadata.namespace,
            hostnames=sandbox.spec.access.hostnames,
            addresses=[address] if address else [],
        )
        leaf_name, authority_name = f"{sandbox.metadata.name}-tls", f"{sandbox.metadata.name}-ca"
        leaf, authority = _data(children, leaf_name), _data(children, authority_name)
        if leaf.get("tls.crt") and authority.get("ca.crt"):
            stale = material.needs_renewal(
                leaf["tls.crt"],
                now=self._now(),
                wanted=wanted,
                key=leaf.get("tls.key"),
                authority=authority["ca.crt"],
            )
            if stale is None:
                return
        old = authority.get("ca.crt")
        if old is None or material.needs_renewal(old, now=self._now(), wanted=None) is not None:
            made = material.new_authority(sandbox=sandbox.metadata.name, now=self._now())
            authority = await self._store(sandbox, authority_name, made, _record(children, authority_name))
        issued = material.issue(authority, names=wanted, now=self._now())
        await self._store(sandbox, leaf_name, issued, _record(children, leaf_name), type_="kubernetes.io/tls")

    async def _store(
        self,
        sandbox: v1alpha1.AISandbox,
        name: str,
        values: Mapping[str, str],
        held: seen.Seen | None,
        *,
        type_: str = "Opaque",
    ) -> dict[str, str]:
        """Create the Secret, or replace the values of the one that is held."""
        manifest = common.secret(sandbox, name, CERTIFICATE, values)
        if type_ != "Opaque":
            manifest["type"] = type_
        if held is None:
            try:
                answer = await self._client.create(kinds.SECRET, manifest)
            except errors.AlreadyExists:
                answer = await self._reclaim(sandbox, name, manifest)
        else:
            if held.owner_uid not in ("", sandbox.metadata.uid):
                raise errors.Conflict(
                    f"Secret {name} belongs to an earlier sandbox that is still being removed"
                )
            metadata = {**manifest["metadata"], "resourceVersion": held.resource_version}
            answer = await self._client.replace(kinds.SECRET, {**manifest, "metadata": metadata})
        return dict(self._write_back(kinds.SECRET, answer).facts["data"])

    async def _reclaim(
        self, sandbox: v1alpha1.AISandbox, name: str, manifest: facts.Manifest
    ) -> kube_client.Object:
        """One of ours that the watch does not show, as it lost its labels: they come back, its values stay."""
        live = await self._client.get(kinds.SECRET, sandbox.metadata.namespace, name)
        if seen.owner_uid(live["metadata"]) != sandbox.metadata.uid:
            raise errors.AlreadyExists(f"Secret {name}", status=409, reason="AlreadyExists")
        patch = {"metadata": {"labels": manifest["metadata"]["labels"]}}
        return await self._client.merge_patch(kinds.SECRET, sandbox.metadata.namespace, name, patch)


def _record(children: Children, name: str) -> seen.Seen | None:
    return children.get(("Secret", name))


def _data(children: Children, name: str) -> dict[str, str]:
    record = _record(children, name)
    return dict(record.facts.get("data", {})) if record else {}


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
