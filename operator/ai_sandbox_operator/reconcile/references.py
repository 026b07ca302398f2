"""Secrets that a spec refers to: are they there, and do they hold the keys?

They belong to the user, carry no label of ours and are therefore not watched; they are read, at most
once per `FRESH` seconds and sandbox, and only while a spec names them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors

from . import judge

FRESH = 10.0
#: Seconds until a sandbox with references is looked at again.
RECHECK = 30.0


@dataclasses.dataclass(frozen=True)
class Reference:
    """A key of a Secret that a field of the spec names."""

    field: str
    secret: str
    key: str
    component: str


def references(sandbox: v1alpha1.AISandbox) -> Iterator[Reference]:
    """What the spec refers to."""
    spec = sandbox.spec
    if (token := spec.model.token_secret_ref) is not None:
        yield Reference("spec.model.tokenSecretRef", token.name, token.key, "fetch")
    if spec.access.tls.mode == "Secret":
        for key in ("tls.crt", "tls.key"):
            yield Reference("spec.access.tls.secretName", spec.access.tls.secret_name, key, "gateway")
    if spec.chat.enabled and spec.chat.admin.secret_name:
        yield Reference("spec.chat.admin.secretName", spec.chat.admin.secret_name, "password", "chat")
    if spec.chat.enabled and (secret := spec.chat.oidc.client_secret_ref) is not None:
        yield Reference("spec.chat.oidc.clientSecretRef", secret.name, secret.key, "chat")


class References:
    """Checks references, with a short memory."""

    def __init__(
        self, client: kube_client.KubeClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, frozenset[str] | None]] = {}

    async def missing(self, sandbox: v1alpha1.AISandbox) -> tuple[tuple[Reference, judge.Problem], ...]:
        """References that lead nowhere, with the words for it.

        Raises:
            errors.KubeError: a Secret could not be read (absence is an answer).
        """
        found = []
        for reference in references(sandbox):
            keys = await self._keys(sandbox.metadata.namespace, reference.secret)
            where = f"{reference.field}: Secret {reference.secret}"
            if keys is None:
                found.append(
                    (
                        reference,
                        judge.Problem(reason=Reason.SecretNotFound, message=f"{where} does not exist"),
                    )
                )
            elif reference.key not in keys:
                message = f"{where} has no key {reference.key}"
                found.append((reference, judge.Problem(reason=Reason.SecretKeyMissing, message=message)))
        return tuple(found)

    async def _keys(self, namespace: str, name: str) -> frozenset[str] | None:
        at, keys = self._known.get((namespace, name), (float("-inf"), None))
        if self._clock() - at < FRESH:
            return keys
        try:
            secret = await self._client.get(kinds.SECRET, namespace, name)
            keys = frozenset(key for key, value in (secret.get("data") or {}).items() if value)
        except errors.NotFound:
            keys = None
        self._prune()
        self._known[namespace, name] = (self._clock(), keys)
        return keys

    def _prune(self) -> None:
        stale = [key for key, (at, _) in self._known.items() if self._clock() - at >= FRESH]
        for key in stale:
            del self._known[key]
