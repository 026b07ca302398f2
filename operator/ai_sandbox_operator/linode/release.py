"""The end of a sandbox's Linode objects, and the report on those that no sandbox owns any more.

Order (each step looks at the live state, so any of them may be repeated or found done):
Service gone -> NodeBalancer gone by id -> firewall without assignments -> firewall deleted. The CCM
deletes the NodeBalancer with the Service, but leaks it if the Service's status was empty, and it leaves
a firewall behind that was given by `firewall-id`; both are ours to remove (I7), if they carry our tags (I2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from ai_sandbox_operator.api import names
from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode import errors, firewall, models
from ai_sandbox_operator.linode.ownership import Owner

ABANDON = f"to leave it behind, annotate the sandbox with {names.ANNOTATION_ABANDON}=true"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleaseState:
    """How far the release is.

    Attributes:
        done: nothing of the sandbox is left at Linode; the finalizer may go.
        blocked: in plain English, what is waited for and what a person can do.
        deleted: what this call deleted.
    """

    done: bool
    blocked: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an object may be deleted now; if not, why."""

    delete: bool
    blocked: str = ""


def judge_nodebalancer(
    live: models.NodeBalancer, *, owner: Owner, service_gone_for: float, leak_grace: float
) -> Verdict:
    """What becomes of a NodeBalancer that outlives the Service."""
    what = f"NodeBalancer {live.id} ({live.label}, {live.ipv4}) still exists"
    if not owner.owns(live.tags):
        return Verdict(
            delete=False,
            blocked=f"{what} and does not carry the sandbox's tags, so the operator does not delete it. "
            f"Delete it if it was the sandbox's; {ABANDON}.",
        )
    if live.locks:
        return Verdict(
            delete=False,
            blocked=f"{what} and is locked ({', '.join(live.locks)}). Remove the lock; {ABANDON}.",
        )
    if service_gone_for < leak_grace:
        left = errors.seconds(leak_grace - service_gone_for)
        return Verdict(
            delete=False,
            blocked=f"{what}. The cloud controller deletes it; if it has not done so in {left}, the "
            "operator does.",
        )
    return Verdict(delete=True)


def judge_firewall(live: models.Firewall) -> Verdict:
    """What becomes of a firewall of ours once no NodeBalancer of ours is left."""
    if not live.entities:
        return Verdict(delete=True)
    users = ", ".join(f"{one.type} {one.id}" for one in live.entities[:3])
    more = "" if len(live.entities) <= 3 else f" and {len(live.entities) - 3} more"
    return Verdict(
        delete=False,
        blocked=f"The Cloud Firewall {live.label} (id {live.id}) is still assigned to {users}{more}, which "
        f"its deletion would leave open. Remove the assignment; {ABANDON}.",
    )


async def release(
    client: api.LinodeClient,
    *,
    owner: Owner,
    firewall_id: int | None,
    nodebalancer_id: int | None,
    service_gone_for: float | None,
    leak_grace: float = 300.0,
) -> ReleaseState:
    """Go one step further towards nothing left. `service_gone_for` is None while the Service exists.

    Raises:
        LinodeError: a call failed; the next pass goes on from there.
    """
    if service_gone_for is None:
        return ReleaseState(done=False, blocked=("The Service still exists; its NodeBalancer goes with it.",))
    deleted: list[str] = []
    blocked: list[str] = []
    for nodebalancer in await _nodebalancers(client, owner=owner, known_id=nodebalancer_id):
        verdict = judge_nodebalancer(
            nodebalancer, owner=owner, service_gone_for=service_gone_for, leak_grace=leak_grace
        )
        if verdict.delete:
            refusal = await _delete_nodebalancer(client, nodebalancer)
            deleted += [] if refusal else [f"NodeBalancer {nodebalancer.id}"]
            blocked += [refusal] if refusal else []
        else:
            blocked.append(verdict.blocked)
    if blocked:
        # The firewall stays: it is what keeps the NodeBalancer closed.
        return ReleaseState(done=False, blocked=tuple(blocked), deleted=tuple(deleted))
    for live in await _firewalls(client, owner=owner, known_id=firewall_id):
        verdict = judge_firewall(live)
        refusal = await _delete_firewall(client, live) if verdict.delete else verdict.blocked
        deleted += [] if refusal else [f"Cloud Firewall {live.id}"]
        blocked += [refusal] if refusal else []
    return ReleaseState(done=not blocked, blocked=tuple(blocked), deleted=tuple(deleted))


async def _nodebalancers(
    client: api.LinodeClient, *, owner: Owner, known_id: int | None
) -> list[models.NodeBalancer]:
    """The recorded NodeBalancer if it still exists, and all that carry our tags."""
    found = {
        one.id: one for one in await client.find_nodebalancers(tag=owner.uid_tag) if owner.owns(one.tags)
    }
    if known_id is not None and known_id not in found:
        known = await client.get_nodebalancer(known_id)
        if known is not None:
            found[known.id] = known
    return [found[ident] for ident in sorted(found)]


async def _firewalls(
    client: api.LinodeClient, *, owner: Owner, known_id: int | None
) -> list[models.Firewall]:
    """All firewalls that are ours; the recorded one counts only if it is recognised."""
    found = {one.id: one for one in await client.list_firewalls(label=owner.label, tag=owner.uid_tag)}
    ours = {ident: one for ident, one in found.items() if owner.owns(one.tags)}
    if known_id is not None and known_id not in ours:
        known = found.get(known_id) or await client.get_firewall(known_id)
        if known is not None and owner.recognises(known):
            ours[known.id] = known
    return [ours[ident] for ident in sorted(ours) if ours[ident].status != "deleted"]


async def _delete_nodebalancer(client: api.LinodeClient, live: models.NodeBalancer) -> str:
    """Delete and see it gone; the reason if Linode refuses or still shows it."""
    try:
        await client.delete_nodebalancer(live.id)
    except errors.Invalid as error:
        return f"{error} Or {ABANDON}."
    if await client.get_nodebalancer(live.id) is not None:
        return f"NodeBalancer {live.id} was deleted but is still there; the operator looks again."
    return ""


async def _delete_firewall(client: api.LinodeClient, live: models.Firewall) -> str:
    """Delete it; the reason if Linode refuses, as for a default firewall of the account."""
    try:
        await client.delete_firewall(live.id)
    except errors.Invalid as error:
        return f"{error} Or {ABANDON}."
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orphan:
    """A Linode object of this cluster that nobody needs."""

    kind: str
    id: int
    label: str
    uid: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.label}) of sandbox {self.uid}: {self.why}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrphanReport:
    """What is left over, and how much was looked at. Nothing is ever deleted by the report."""

    orphans: tuple[Orphan, ...]
    firewalls: int
    nodebalancers: int


async def orphans(client: api.LinodeClient, *, cluster_id: str, live_uids: Collection[str]) -> OrphanReport:
    """Linode objects with this cluster's tag whose sandbox is gone, or that a sandbox has twice."""
    tag = firewall.cluster_tag(cluster_id)
    firewalls = sorted(await client.list_firewalls(tag=tag), key=lambda one: one.id)
    nodebalancers = sorted(await client.find_nodebalancers(tag=tag), key=lambda one: one.id)
    found = [
        *_left_over("Cloud Firewall", firewalls, live_uids=live_uids),
        *_left_over("NodeBalancer", nodebalancers, live_uids=live_uids),
    ]
    return OrphanReport(orphans=tuple(found), firewalls=len(firewalls), nodebalancers=len(nodebalancers))


def _left_over(
    kind: str, found: Iterable[models.Firewall | models.NodeBalancer], *, live_uids: Collection[str]
) -> list[Orphan]:
    live = {uid for name in live_uids for uid in firewall.owner_uids([firewall.uid_tag(name)])}
    seen: set[str] = set()
    left: list[Orphan] = []
    for one in found:
        for uid in firewall.owner_uids(one.tags) or ("unknown",):
            why = (
                "the sandbox is gone" if uid not in live else "the sandbox has another" if uid in seen else ""
            )
            if why:
                left.append(Orphan(kind=kind, id=one.id, label=one.label, uid=uid, why=why))
            seen.add(uid)
    return left
