"""What the hub says of a sandbox's model, asked beside the passes.

A look is a task, so that a slow hub delays nobody (I9), and one answer serves every sandbox that asks
for the same. Once a commit is pinned in the status, the hub is asked again only when the engine is to
change: a hub that is down leaves alone what runs.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import time
from collections.abc import Callable

from ai_sandbox_operator.api import kinds, v1alpha1
from ai_sandbox_operator.desired import architecture
from ai_sandbox_operator.fetch import resolve
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen

log = logging.getLogger(__name__)

Key = tuple[str, str]
#: As `fetch.resolve.resolve`: blocking, raises FetchError.
Resolve = Callable[..., resolve.Resolved]

#: Seconds for which the meaning of a branch is shared between sandboxes.
FRESH = 60.0
#: Seconds until a refusal that only a person can end is tried again: terms accepted, a repository made.
RETRY_PERMANENT = 60.0
FIRST_RETRY, LONGEST_RETRY = 5.0, 60.0
#: Seconds after which an answer is not waited for any longer. Its thread ends by its own time-outs.
PATIENCE = 120.0
_MOST = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model at one commit, as far as anything but its download needs it."""

    commit: str
    size_bytes: int
    weight_bytes: int
    architecture: architecture.Architecture


@dataclasses.dataclass(frozen=True)
class Look:
    """What is known now: a model, or why not, or neither while the hub is being asked."""

    model: Model | None = None
    failure: FetchError | None = None
    again: float | None = None
    """Seconds until the hub may be asked once more."""


@dataclasses.dataclass(frozen=True)
class _Question:
    model: str
    revision: str
    token: tuple[str, str, str]
    """Namespace, Secret and key; empty without a token."""


@dataclasses.dataclass
class _Entry:
    look: Look = Look()
    until: float = float("-inf")
    delay: float = FIRST_RETRY
    task: asyncio.Task[None] | None = None
    asking: set[Key] = dataclasses.field(default_factory=set)


class Resolutions:
    """Answers of the hub, with a bounded memory.

    Args:
        endpoint: base URL of the hub; empty for the public one.
        add: asks for another pass over a sandbox.
        observer: called after each question to the hub with the name of the failure, or "ok".
    """

    def __init__(
        self,
        client: kube_client.KubeClient,
        *,
        endpoint: str,
        add: Callable[[Key], None],
        ask: Resolve = resolve.resolve,
        clock: Callable[[], float] = time.monotonic,
        concurrency: int = 4,
        observer: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self._client = client
        self._observer = observer
        self._endpoint = endpoint
        self._add = add
        self._ask = ask
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._entries: collections.OrderedDict[_Question, _Entry] = collections.OrderedDict()

    def look(self, sandbox: v1alpha1.AISandbox, *, commit: str) -> Look:
        """What is known; another pass is asked for when that changes.

        Args:
            commit: the one that is pinned; empty to ask what the spec's revision means.
        """
        spec, reference = sandbox.spec.model, sandbox.spec.model.token_secret_ref
        token = (sandbox.metadata.namespace, reference.name, reference.key) if reference else ("", "", "")
        question = _Question(spec.id, commit or spec.revision, token)
        entry = self._entries.setdefault(question, _Entry())
        self._entries.move_to_end(question)
        if entry.task is not None:
            entry.asking.add(sandbox.key)
            return entry.look
        if self._clock() < entry.until:
            wait = entry.until - self._clock() if entry.look.failure is not None else None
            return dataclasses.replace(entry.look, again=wait)
        if entry.look.failure is None:
            entry.look = Look()  # A branch may have moved on since.
        entry.asking.add(sandbox.key)
        entry.task = asyncio.create_task(self._pursue(question, entry), name=f"resolve {spec.id}")
        self._prune()
        return entry.look

    async def close(self) -> None:
        """End all looks."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pursue(self, question: _Question, entry: _Entry) -> None:
        try:
            model = await self._answer(question)
            self._observer("ok")
            entry.look, entry.until = Look(model=model), self._clock() + FRESH
            entry.delay = FIRST_RETRY
            # What a commit holds never changes.
            pinned = dataclasses.replace(question, revision=model.commit)
            self._entries[pinned] = _Entry(look=entry.look, until=float("inf"))
        except FetchError as failure:
            self._observer(failure.failure.name)
            entry.look = Look(failure=failure)
            entry.until = self._clock() + (RETRY_PERMANENT if failure.failure.permanent else entry.delay)
            entry.delay = min(entry.delay * 2, LONGEST_RETRY)
        finally:
            entry.task = None
        for key in entry.asking:
            self._add(key)
        entry.asking.clear()

    async def _answer(self, question: _Question) -> Model:
        try:
            async with self._slots, asyncio.timeout(PATIENCE):
                token = await self._token(question)
                found = await asyncio.to_thread(
                    self._ask, question.model, question.revision, endpoint=self._endpoint, token=token
                )
                parsed = architecture.read(found.config, found.params)
        except FetchError:
            raise
        except TimeoutError:
            raise FetchError(FetchFailure.HubUnreachable, "the hub does not answer in time") from None
        except errors.KubeError as error:
            raise FetchError(FetchFailure.Unexpected, f"the token's Secret is not read: {error}") from None
        except Exception:
            log.exception("model not resolved", extra={"model": question.model})
            raise FetchError(FetchFailure.Unexpected, "see the operator's log") from None
        return Model(
            commit=found.commit,
            size_bytes=found.size_bytes,
            weight_bytes=found.weight_bytes,
            architecture=parsed,
        )

    async def _token(self, question: _Question) -> str | None:
        namespace, name, key = question.token
        if not name:
            return None
        secret = await self._client.get(kinds.SECRET, namespace, name)
        return seen.decode((secret.get("data") or {}).get(key, "")).strip() or None

    def _prune(self) -> None:
        for question in list(self._entries)[: max(0, len(self._entries) - _MOST)]:
            if self._entries[question].task is None:
                del self._entries[question]
