"""Secrets that a spec refers to: are they there, and do they hold the keys?

They belong to the user, carry no label of ours and are therefore not watched; they are read, at most
once per `FRESH` seconds and sandbox, and only while a spec names them.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Mapping

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen

from . import material, views

FRESH = 10.0
#: Seconds until a sandbox with references is looked at again.
RECHECK = 30.0

_ADMIN = "spec.chat.admin.secretName"
#: bcrypt reads no more, and Open WebUI makes no administrator with a longer one.
LONGEST_PASSWORD = 72


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
        yield Reference(_ADMIN, spec.chat.admin.secret_name, "password", "chat")
    if spec.chat.enabled and (secret := spec.chat.oidc.client_secret_ref) is not None:
        yield Reference("spec.chat.oidc.clientSecretRef", secret.name, secret.key, "chat")


@dataclasses.dataclass(frozen=True)
class _Read:
    """What is kept of a Secret: names, never values that are secret."""

    keys: frozenset[str]
    long: frozenset[str]
    """Keys whose values are longer than a password may be."""
    certificate: str = ""
    pair_problem: str | None = None


class References:
    """Checks references, with a short memory."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._client = client
        self._clock = clock
        self._now = now
        self._known: dict[tuple[str, str], tuple[float, _Read | None]] = {}

    async def missing(self, sandbox: v1alpha1.AISandbox) -> tuple[tuple[Reference, views.Problem], ...]:
        """References that lead nowhere or to something unusable, with the words for it.

        Raises:
            errors.KubeError: a Secret could not be read (absence is an answer).
        """
        found = []
        for reference in references(sandbox):
            secret = await self._read(sandbox.metadata.namespace, reference.secret)
            if (problem := self._problem(sandbox, reference, secret)) is not None:
                found.append((reference, problem))
        return tuple(found)

    def _problem(
        self, sandbox: v1alpha1.AISandbox, reference: Reference, secret: _Read | None
    ) -> views.Problem | None:
        where = f"{reference.field}: Secret {reference.secret}"
        if secret is None:
            return views.Problem(reason=Reason.SecretNotFound, message=f"{where} does not exist")
        if reference.key not in secret.keys:
            message = f"{where} has no key {reference.key}"
            return views.Problem(reason=Reason.SecretKeyMissing, message=message)
        if reference.field == _ADMIN and reference.key in secret.long:
            message = f"{where}: the value of {reference.key} has more than {LONGEST_PASSWORD} bytes"
            return views.Problem(reason=Reason.PasswordUnusable, message=message)
        if reference.key != material.CERTIFICATE or material.PRIVATE_KEY not in secret.keys:
            return None
        unusable = secret.pair_problem or material.leaf_problem(
            secret.certificate, hostnames=sandbox.spec.access.hostnames, now=self._now()
        )
        if unusable is None:
            return None
        return views.Problem(reason=Reason.CertificateUnusable, message=f"{where}: {unusable}")

    async def _read(self, namespace: str, name: str) -> _Read | None:
        at, read = self._known.get((namespace, name), (float("-inf"), None))
        if self._clock() - at < FRESH:
            return read
        try:
            read = _summary((await self._client.get(kinds.SECRET, namespace, name)).get("data") or {})
        except errors.NotFound:
            read = None
        self._prune()
        self._known[namespace, name] = (self._clock(), read)
        return read

    def _prune(self) -> None:
        stale = [key for key, (at, _) in self._known.items() if self._clock() - at >= FRESH]
        for key in stale:
            del self._known[key]


def _summary(data: Mapping[str, str]) -> _Read:
    keys = frozenset(key for key, value in data.items() if value)
    long = frozenset(key for key, value in data.items() if len(_bytes(value)) > LONGEST_PASSWORD)
    if not {material.CERTIFICATE, material.PRIVATE_KEY} <= keys:
        return _Read(keys, long)
    pem, private = seen.decode(data[material.CERTIFICATE]), seen.decode(data[material.PRIVATE_KEY])
    return _Read(keys, long, pem, material.pair_problem(pem, private))


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""
