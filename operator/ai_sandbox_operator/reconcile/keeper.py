"""Linode work beside the passes.

A pass never waits for Linode: it states a goal and gets what is known. The work runs in a task of its
own per sandbox and asks for another pass when it has news, so one slow or broken call delays nobody
else (I9). A goal that was reached is checked again every few minutes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import errors as kube_errors
from ai_sandbox_operator.kube import lease
from ai_sandbox_operator.linode import access, errors, models, release
from ai_sandbox_operator.linode.client import LinodeClient
from ai_sandbox_operator.linode.ownership import Owner

from . import backoff, views

log = logging.getLogger(__name__)

Key = tuple[str, str]
FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0
#: Seconds after which a firewall that the cloud controller manager did not attach is attached by us.
ATTACH_GRACE = 20.0
#: Seconds after which a NodeBalancer whose Service is gone counts as leaked.
LEAK_GRACE = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protect:
    """Keep the firewall as the allowlist says, and on the NodeBalancer."""

    owner: Owner
    rules: models.FirewallRules
    annotation: str
    """Firewall id that the external Service carries; empty without a Service."""
    address: str
    hostname: str
    has_service: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """Let everything go, in the order that never exposes. The Service is known to be gone."""

    owner: Owner


Goal = Protect | Release


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What the work for a goal found."""

    view: views.LinodeView = dataclasses.field(default_factory=views.LinodeView)
    released: bool = False
    waiting_for: str = ""
    """What a release waits for, in words."""
    overdue: bool = False
    """The release takes longer than it should, or a call failed: a person should know."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """Ids that survive a restart, from the sandbox's status."""

    firewall_id: int | None = None
    nodebalancer_id: int | None = None


class Confirm(Protocol):
    """Reads the sandbox again; False when the goal is out of date and must not be acted on."""

    def __call__(self) -> Awaitable[bool]: ...


@dataclasses.dataclass
class _Entry:
    goal: Goal
    known: Known
    confirm: Confirm
    result: Result | None = None
    reached: Goal | None = None
    """The goal that `result` is about, whether it was a success or not."""
    checked_at: float = float("-inf")
    retry_at: float = float("-inf")
    failures: int = 0
    since: float = 0.0
    bare_since: float | None = None
    """When the NodeBalancer was first seen without the firewall."""
    task: asyncio.Task[None] | None = None


class Keeper:
    """One entry per sandbox, by UID."""

    def __init__(
        self,
        client: LinodeClient,
        *,
        add: Callable[[Key], None],
        check_interval: float,
        repaired: Callable[[Key, tuple[str, ...]], None] = lambda _key, _what: None,
        guard: Callable[[], None] = lambda: None,
        concurrency: int = 16,
        attach_grace: float = ATTACH_GRACE,
        leak_grace: float = LEAK_GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._add = add
        self._check_interval = check_interval
        self._repaired = repaired
        self._guard = guard
        self._slots = asyncio.Semaphore(concurrency)
        self._attach_grace = attach_grace
        self.leak_grace = leak_grace
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def pursue(
        self, key: Key, uid: str, goal: Goal, *, known: Known, confirm: Confirm
    ) -> tuple[Result | None, float]:
        """State the goal; returns what is known for exactly this goal, and when to ask again (seconds)."""
        entry = self._entries.get(uid)
        now = self._clock()
        if entry is None:
            entry = self._entries[uid] = _Entry(goal=goal, known=known, confirm=confirm, since=now)
        if type(entry.goal) is not type(goal):
            # What was seen for protecting proves nothing once a release may have begun: its DELETE of the
            # firewall can be on its way when the spec wants the exposure again (I1).
            entry.since, entry.reached = now, None
        if entry.goal != goal:
            entry.goal, entry.retry_at, entry.failures = goal, float("-inf"), 0
        entry.confirm = confirm
        due = entry.reached != goal or now - entry.checked_at >= self._check_interval
        if due and now >= entry.retry_at and (entry.task is None or entry.task.done()):
            entry.task = asyncio.create_task(self._work(key, entry), name=f"linode {key[0]}/{key[1]}")
        result = entry.result
        current = result if entry.reached == goal else None
        if current is None and result is not None:
            # What was known for an earlier goal still names the objects, but proves nothing now.
            view = dataclasses.replace(
                result.view, current=result.view.current and _same_rules(entry.reached, goal), attached=False
            )
            current = dataclasses.replace(result, view=view, released=False)
        if entry.retry_at > now:
            wait = entry.retry_at - now
        elif entry.task is not None and not entry.task.done():
            wait = self._check_interval  # it asks for a pass itself when it ends
        else:
            wait = entry.checked_at + self._check_interval - now
        return current, max(wait, 0.1)

    def forget(self, uid: str) -> None:
        """Drop what is known of a sandbox that is gone."""
        entry = self._entries.pop(uid, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def close(self) -> None:
        """Stop all work."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, key: Key, entry: _Entry) -> None:
        async with self._slots:
            while True:
                goal = entry.goal
                try:
                    self._guard()
                    result = await self._act(key, goal, entry)
                except errors.Superseded:
                    if entry.goal != goal:
                        continue
                    log.info("the sandbox changed meanwhile; waiting for its new spec", extra={"key": key})
                    entry.retry_at = self._clock() + FIRST_RETRY
                    break
                except lease.LeaseLost:
                    # Renewal is late. Nothing was asked of Linode, so what was told of it still holds (I8).
                    entry.retry_at = self._clock() + FIRST_RETRY
                    break
                except Exception as error:
                    self._fail(key, entry, goal, error)
                    break
                entry.failures, entry.retry_at = 0, float("-inf")
                entry.checked_at = self._clock()
                entry.result, entry.reached = result, goal
                pending = isinstance(goal, Release) and not result.released
                unattached = _has_address(goal) and not result.view.attached
                if pending or unattached:
                    entry.reached = None if pending else goal
                    entry.retry_at = self._clock() + 2 * FIRST_RETRY
                    entry.checked_at = float("-inf")
                if entry.goal == goal:
                    break
        self._add(key)

    async def _stands(self, key: Key, entry: _Entry, goal: Goal) -> bool:
        """Whether the goal may be acted on, by a live read."""
        try:
            return entry.goal == goal and await entry.confirm()
        except kube_errors.KubeError as error:
            log.warning("the sandbox could not be read", extra={"key": key, "error": str(error)})
            return False

    def _fail(self, key: Key, entry: _Entry, goal: Goal, error: Exception) -> None:
        entry.failures += 1
        delay = backoff.pause(entry.failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
        asked = getattr(error, "retry_after", None)
        entry.retry_at = self._clock() + max(delay, float(asked or 0.0))
        entry.checked_at = float("-inf")
        problem = _problem(error)
        before = entry.result.view if entry.result else views.LinodeView()
        view = dataclasses.replace(
            before,
            firewall_id=before.firewall_id or entry.known.firewall_id,
            nodebalancer_id=before.nodebalancer_id or entry.known.nodebalancer_id,
            current=False,
            attached=False,
            problem=problem,
        )
        entry.result = Result(view=view, waiting_for=problem.message, overdue=True)
        entry.reached = goal
        log.warning(
            "Linode work failed", extra={"key": key, "error": str(error), "kind": type(error).__name__}
        )

    async def _act(self, key: Key, goal: Goal, entry: _Entry) -> Result:
        if isinstance(goal, Release):
            if not await self._stands(key, entry, goal):
                raise errors.Superseded
            return await self._release(goal, entry)
        before = entry.result.view if entry.result else views.LinodeView()
        state = await access.ensure_firewall(
            self._client,
            wanted=goal.rules,
            owner=goal.owner,
            known_id=before.firewall_id or entry.known.firewall_id,
            confirm=lambda: self._stands(key, entry, goal),
        )
        if state.repaired:
            self._repaired(key, state.repaired)
        view = views.LinodeView(firewall_id=state.id, firewall_version=state.version, current=state.holds)
        if not (goal.address or goal.hostname):
            return Result(view=view)
        known = before.nodebalancer_id or entry.known.nodebalancer_id
        if before.attached and known in state.nodebalancer_ids and goal.annotation == str(state.id):
            # The firewall itself names the NodeBalancer: nothing has changed, one GET is enough.
            return Result(view=dataclasses.replace(view, nodebalancer_id=known, attached=True))
        return Result(view=await self._prove(key, goal, entry, view, known))

    async def _prove(
        self, key: Key, goal: Protect, entry: _Entry, view: views.LinodeView, known: int | None
    ) -> views.LinodeView:
        """Find the NodeBalancer and see the firewall on it; attach it if nobody else does in time."""
        balancer = await access.observe_nodebalancer(
            self._client,
            owner=goal.owner,
            ipv4=goal.address or None,
            hostname=goal.hostname or None,
            known_id=known,
        )
        if balancer is None or view.firewall_id is None:
            return view
        if entry.bare_since is None:
            entry.bare_since = self._clock()
        attachment = await access.prove_attached(
            self._client,
            balancer,
            firewall_id=view.firewall_id,
            annotated_id=int(goal.annotation) if goal.annotation.isdigit() else None,
            waited=self._clock() - entry.bare_since,
            grace=self._attach_grace,
        )
        if attachment.attached:
            self._repaired(key, (attachment.message,))
        problem = None
        if attachment.proven:
            entry.bare_since = None
        else:
            problem = views.Problem(reason=Reason.NotAttached, message=attachment.message)
        return dataclasses.replace(
            view, nodebalancer_id=balancer.id, attached=attachment.proven, problem=problem
        )

    async def _release(self, goal: Release, entry: _Entry) -> Result:
        before = entry.result.view if entry.result else views.LinodeView()
        state = await release.release(
            self._client,
            owner=goal.owner,
            firewall_id=before.firewall_id or entry.known.firewall_id,
            nodebalancer_id=before.nodebalancer_id or entry.known.nodebalancer_id,
            service_gone_for=self._clock() - entry.since,
            leak_grace=self.leak_grace,
        )
        return Result(
            view=before,
            released=state.done,
            waiting_for="; ".join(state.blocked),
            overdue=self._clock() - entry.since > self.leak_grace,
        )


def _has_address(goal: Goal) -> bool:
    return isinstance(goal, Protect) and bool(goal.address or goal.hostname)


def _same_rules(earlier: Goal | None, goal: Goal) -> bool:
    """Whether a firewall that was seen to serve the earlier goal serves this one."""
    return (
        isinstance(earlier, Protect)
        and isinstance(goal, Protect)
        and (earlier.owner, earlier.rules) == (goal.owner, goal.rules)
    )


def _problem(error: Exception) -> views.Problem:
    match error:
        case errors.NoToken():
            return views.Problem(reason=Reason.NoLinodeToken, message="the operator has no Linode API token")
        case errors.ForeignFirewall():
            return views.Problem(reason=Reason.ForeignFirewall, message=str(error))
        case errors.TooManyNetworks():
            return views.Problem(reason=Reason.TooManyNetworks, message=str(error))
        case errors.LinodeError():
            return views.Problem(reason=Reason.LinodeUnavailable, message=str(error))
        case _:
            return views.Problem(reason=Reason.LinodeUnavailable, message=f"unexpected: {error!r}")
