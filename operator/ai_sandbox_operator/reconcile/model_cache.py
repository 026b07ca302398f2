"""Which models the volume holds, as told by the Jobs that put them there. Pure.

A complete download is the record that its model is in the cache, and the engine trusts it. So the record
of a model goes before its files do: an earlier model's Job is kept until the sweep that removes its files
exists, and while a sweep for another model may run, no record is trusted.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import engine, fetch
from ai_sandbox_operator.observed import seen

from . import engine_state

Children = Mapping[tuple[str, str], seen.Seen]
Key = tuple[str, str]

#: Seconds after which a failed download or sweep is tried again.
RETRY = 300.0


def cached(sandbox: v1alpha1.AISandbox, children: Children, commit: str) -> bool:
    """Whether the model of the current spec is complete in the cache."""
    job = children.get(("Job", fetch.job_name(sandbox, commit)))
    complete = job is not None and job.facts["complete"]
    return bool(commit) and complete and not _swept_by_another(sandbox, children, commit)


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


def to_replace(
    sandbox: v1alpha1.AISandbox, children: Children, commit: str, now: datetime.datetime
) -> frozenset[Key]:
    """Jobs that are made anew.

    What failed is tried again after a while, and at once when the spec has changed. A download whose files a
    sweep for another model may have removed is made again; it finds them if they are still there.
    """
    edited = sandbox.status.observed_generation != sandbox.metadata.generation
    fetched, swept = ("Job", fetch.job_name(sandbox, commit)), ("Job", fetch.sweep_name(sandbox, commit))

    def due(key: Key) -> bool:
        job = children.get(key)
        if job is None or not job.facts["failed_at"]:
            return False
        failed_at = datetime.datetime.fromisoformat(job.facts["failed_at"])
        return edited or (now - failed_at).total_seconds() > RETRY

    job = children.get(fetched)
    complete = job is not None and job.facts["complete"]
    doubtful = {fetched} if complete and _swept_by_another(sandbox, children, commit) else set()
    return frozenset({key for key in (fetched, swept) if due(key)} | doubtful)


def is_fetch(sandbox: v1alpha1.AISandbox, job: str) -> bool:
    """Whether a Job of this name downloads."""
    return job.startswith(f"{sandbox.metadata.name}-fetch-")


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
