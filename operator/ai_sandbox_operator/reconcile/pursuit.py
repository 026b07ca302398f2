"""Looks at pods beside the passes: one task per sandbox, until what it looks for was seen.

A pass states a goal and takes what is known; a slow pod delays nobody (I9).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from ai_sandbox_operator.api import v1alpha1

Key = tuple[str, str]
#: Asks for another pass over a sandbox.
Add = Callable[[Key], None]

FIRST_RETRY, LONGEST_RETRY = 0.2, 5.0


class Goal(Protocol):
    """What is looked for. Any difference between two goals asks for another look."""

    @property
    def subject(self) -> Hashable:
        """What a proof is about: another subject ends what was proven."""


class Proof(Protocol):
    """What was seen."""

    @property
    def proven(self) -> bool: ...


G = TypeVar("G", bound=Goal)
P = TypeVar("P", bound=Proof)


@dataclasses.dataclass
class _Entry(Generic[G, P]):
    key: Key
    goal: G
    proof: P
    reached: G | None = None
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Pursuits(Generic[G, P]):
    """One entry per sandbox, by UID.

    Args:
        look: sees once; must not raise.
        add: asks for another pass over a sandbox.
    """

    def __init__(self, look: Callable[[Key, G], Awaitable[P]], *, add: Add) -> None:
        self._look = look
        self._add = add
        self._entries: dict[str, _Entry[G, P]] = {}

    def pursue(self, sandbox: v1alpha1.AISandbox, goal: G, *, unseen: P, superseded: P) -> P:
        """What is known now; another pass is asked for when that changes.

        A proof of the same subject stands while it is looked again.

        Args:
            unseen: what to say before the first look of this process.
            superseded: what to say from another subject to the next look.
        """
        uid = sandbox.metadata.uid
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(sandbox.key, goal, unseen)
        elif goal != entry.goal:
            if goal.subject != entry.goal.subject:
                entry.proof = superseded
            entry.goal = goal
            entry.changed.set()
        if entry.reached != goal and (entry.task is None or entry.task.done()):
            name = f"look {sandbox.metadata.namespace}/{sandbox.metadata.name}"
            entry.task = asyncio.create_task(self._pursue(entry), name=name)
        return entry.proof

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox."""
        entry = self._entries.pop(uid, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def close(self) -> None:
        """End all looks."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pursue(self, entry: _Entry[G, P]) -> None:
        delay = FIRST_RETRY
        while entry.reached != entry.goal:
            goal = entry.goal
            entry.changed.clear()
            proof = await self._look(entry.key, goal)
            if goal != entry.goal:
                delay = FIRST_RETRY
                continue
            if proof.proven:
                entry.reached = goal
            if proof != entry.proof:
                entry.proof = proof
                self._add(entry.key)
            if not proof.proven:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(entry.changed.wait(), delay)
                delay = min(delay * 2, LONGEST_RETRY)
