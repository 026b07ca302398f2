"""Which models the volume holds, as told by the Jobs that put them there. Pure.

A complete download is the record that its model is in the cache, and the engine trusts it. So the record
of a model goes before its files do: an earlier model's Job is kept until the sweep that removes its files
exists, and while a sweep for another model may run, no record is trusted. Nor is the record of an earlier
volume: one that is older than the claim.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import engine, fetch, storage
from ai_sandbox_operator.observed import seen

from . import engine_state
from .model_volume import Use

Children = Mapping[tuple[str, str], seen.Seen]
Key = tuple[str, str]

#: Seconds after which a failed download or sweep is tried again.
RETRY = 300.0


def cached(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether the model of the current spec is complete in the cache."""
    job = children.get(("Job", fetch.job_name(sandbox, commit)))
    complete = job is not None and job.facts["complete"] and not job.deleting
    claimed = ("PersistentVolumeClaim", storage.model_claim_name(sandbox)) in children
    return bool(commit) and complete and claimed and not _doubtful(sandbox, children, commit)


def earlier(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> frozenset[Key]:
    """The records of other models, until the sweep that removes their files exists."""
    if ("Job", fetch.sweep_name(sandbox, commit)) in children:
        return frozenset()
    others = {
        (job.kind, job.name)
        for job in _jobs(children)
        if job.facts["complete"] and is_fetch(sandbox, job.name)
    }
    return frozenset(others - {("Job", fetch.job_name(sandbox, commit))})


def sweep(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether other models are to be removed: once this one was seen to serve, and to the end."""
    begun = children.get(("Job", fetch.sweep_name(sandbox, commit)))
    if begun is not None:
        return not begun.facts["complete"]
    deployment = children.get(("Deployment", engine.service_name(sandbox)))
    return bool(earlier(sandbox, children, commit)) and _settled(sandbox, deployment, commit)


def claim_leaves(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether the claim is being deleted and no download is there: none is made before there is another claim."""
    claim = children.get(("PersistentVolumeClaim", storage.model_claim_name(sandbox)))
    return claim is not None and claim.deleting and ("Job", fetch.job_name(sandbox, commit)) not in children


def to_replace(
    sandbox: v1alpha1.AISandbox, children: Children, commit: str, now: datetime.datetime, use: Use
) -> frozenset[Key]:
    """Jobs that are made anew.

    What failed is tried again after a while, and at once when the spec has changed. A download whose files
    may be gone is made again; it finds them if they are still there. So is a Job whose pod would wait for
    ever where it is told to run; it keeps what it has fetched.
    """
    edited = sandbox.status.observed_generation != sandbox.metadata.generation
    fetched, swept = ("Job", fetch.job_name(sandbox, commit)), ("Job", fetch.sweep_name(sandbox, commit))

    def due(key: Key) -> bool:
        job = children.get(key)
        if job is None or not job.facts["failed_at"]:
            return False
        failed_at = datetime.datetime.fromisoformat(job.facts["failed_at"])
        return edited or (now - failed_at).total_seconds() > RETRY

    def astray(key: Key) -> bool:
        job = children.get(key)
        ended = job is None or job.facts["complete"] or job.facts["failed"]
        return job is not None and not ended and use.strands(job.name, beside=job.facts["beside_engine"])

    job = children.get(fetched)
    complete = job is not None and job.facts["complete"]
    doubtful = {fetched} if complete and _doubtful(sandbox, children, commit) else set()
    return frozenset({key for key in (fetched, swept) if due(key) or astray(key)} | doubtful)


def is_fetch(sandbox: v1alpha1.AISandbox, job: str) -> bool:
    """Whether a Job of this name downloads."""
    return job.startswith(f"{sandbox.metadata.name}-fetch-")


def _doubtful(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether what a complete download left may be gone."""
    return _swept_by_another(sandbox, children, commit) or _of_another_claim(sandbox, children, commit)


def _of_another_claim(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether the claim is going, or was made after the download: with an empty volume, or with one of a backup.

    A claim that is being deleted is held by the download's pods, also by those that have ended, so the record
    goes first. A Job is made after its claim, and ends before a claim that its pod used can go. Both times are the API
    server's, in whole seconds; two servers whose clocks differ cost one more look at what is there.
    """
    job = children.get(("Job", fetch.job_name(sandbox, commit)))
    claim = children.get(("PersistentVolumeClaim", storage.model_claim_name(sandbox)))
    return job is not None and claim is not None and (claim.deleting or _made(claim) > _made(job))


def _made(record: seen.Seen) -> datetime.datetime:
    return datetime.datetime.fromisoformat(record.facts["created"])


def _swept_by_another(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    own, prefix = fetch.sweep_name(sandbox, commit), f"{sandbox.metadata.name}-sweep-"
    return any(job.name.startswith(prefix) and job.name != own for job in _jobs(children))


def _jobs(children: Children) -> list[seen.Seen]:
    return [record for record in children.values() if record.kind == "Job"]


def _settled(sandbox: v1alpha1.AISandbox, deployment: seen.Seen | None, commit: str) -> bool:
    """Whether the engine serves the current spec, and nothing would be rolled back to an earlier model."""
    if deployment is None or not seen.rolled_out(deployment):
        return False
    live = engine_state.live(deployment)
    current = live.inputs == engine.engine_inputs(sandbox, commit)
    return current and live.good is not None and not live.on_trial
