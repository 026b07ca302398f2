"""The second part of a pass: what rendering needs, from Secrets, the hub and the cluster's nodes."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.desired import common, facts
from ai_sandbox_operator.kube import client as kube_client

from . import (
    certificates,
    credentials,
    execute,
    inputs,
    model,
    model_cache,
    model_volume,
    pool,
    resolution,
    views,
)
from .references import References


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """What rendering needs, and what a person has to put right.

    Attributes:
        material: None while it is not known; then nothing is written.
        hold: components that stay as they are in this pass.
        problems: of the Secrets that the spec names.
        lacks: of the certificate.
        volume: who uses the model's volume; looked at while a download or a sweep is to be done.
    """

    model: views.ModelView
    material: facts.Material | None
    hold: frozenset[str]
    problems: tuple[views.Problem, ...]
    lacks: tuple[views.Problem, ...]
    volume: model_volume.Use
    again: float | None


class Preparation:
    """Gathers it, once per pass."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        hub: resolution.Resolutions,
        write_back: execute.WriteBack,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client = client
        self._hub = hub
        self._references = References(client, clock=clock, now=now)
        self._credentials = credentials.Credentials(client, write_back)
        self._certificates = certificates.Certificates(client, write_back, now=now)
        self._pool = pool.Pool(client, clock=clock)

    async def prepare(
        self, sandbox: v1alpha1.AISandbox, own: inputs.Children, outcome: execute.Outcome
    ) -> Prepared:
        """What rendering needs: the spec's Secrets, the model, the certificate and the keys."""
        missing = await execute.attempt(outcome, "the spec's Secrets", self._references.missing(sandbox))
        # A download whose token is not there waits for it; what runs already keeps running.
        waits_for_secret = missing is None or any(r.component == common.FETCH for r, _ in missing)
        look = _nothing_new if waits_for_secret else self._look
        found = await model.view(sandbox, own, look, self._pool.cards)
        volume = await execute.attempt(outcome, "the pods", self._volume(sandbox, own, found.commit))
        known_as = inputs.public_names(inputs.external_service(sandbox, own))
        ensured = self._certificates.ensure(sandbox, own, public_names=known_as)
        lacks, again = await execute.attempt(outcome, "the certificate", ensured) or ((), None)
        keys = await execute.attempt(outcome, "the keys", self._credentials.ensure(sandbox, own))
        waits = waits_for_secret or volume is None or model_cache.claim_leaves(sandbox, own, found.commit)
        return Prepared(
            model=found,
            material=keys,
            hold=found.hold | (frozenset({common.FETCH}) if waits else frozenset()),
            problems=tuple(problem for _, problem in missing or ()),
            lacks=tuple(lacks),
            volume=volume or model_volume.UNUSED,
            again=again,
        )

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox that is gone."""
        self._credentials.forget(uid)

    async def _volume(
        self, sandbox: v1alpha1.AISandbox, own: inputs.Children, commit: str
    ) -> model_volume.Use:
        cached = model_cache.cached(sandbox, own, commit)
        if not commit or (cached and not model_cache.sweep(sandbox, own, commit)):
            return model_volume.UNUSED
        selector = common.label_selector(sandbox)
        return model_volume.use(
            await self._client.list_all(kinds.POD, sandbox.metadata.namespace, label_selector=selector)
        )

    def _look(self, sandbox: v1alpha1.AISandbox, commit: str) -> resolution.Look:
        return self._hub.look(sandbox, commit=commit)


def _nothing_new(_sandbox: v1alpha1.AISandbox, _commit: str) -> resolution.Look:
    """The hub is not asked while the token that it may want is not there."""
    return resolution.Look()
