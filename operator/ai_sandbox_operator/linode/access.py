"""Firewall and NodeBalancer of one sandbox: make it so, prove it, and release it.

Each function is called once per pass, looks at the live state and does what is missing; none relies
on what an earlier call did. Decisions are pure functions here and in `ownership.py`; the rest only
carries them out. Sources of the rules: order and hazards as observed on the cloud controller manager
(CCM) v0.9.8 and in the Linode API description.

* A firewall is created with its rules in place, before anything is exposed.
* A settled check of the firewall is one GET and no write (I4).
* After a lost reply the firewall is looked up by label, never created again blindly.
* A firewall is deleted only after its NodeBalancers are gone by id and nothing is assigned to it: it
  would otherwise leave them open.
* What does not carry the tags of cluster and sandbox is never changed or deleted (I2).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Awaitable, Callable

from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode import errors, firewall, models, ownership
from ai_sandbox_operator.linode.ownership import Owner

#: Whether what is about to be written is still wanted.
Confirm = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirewallState:
    """The sandbox's firewall after a pass.

    Attributes:
        holds: the API's own answer admits exactly what is wanted, and the firewall is enabled.
        repaired: in words, what was found different and written.
        nodebalancer_ids: NodeBalancers that it is assigned to.
    """

    id: int
    version: int | None
    holds: bool
    created: bool = False
    repaired: tuple[str, ...] = ()
    nodebalancer_ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repairs:
    """What has to be written to a firewall. Nothing if all are None or False."""

    reasons: tuple[str, ...] = ()
    status: str | None = None
    tags: tuple[str, ...] | None = None
    rules: bool = False

    @property
    def update(self) -> bool:
        return self.status is not None or self.tags is not None


def repairs(wanted: models.FirewallRules, live: models.Firewall, owner: Owner) -> Repairs:
    """The fewest writes that make a firewall of ours as wanted."""
    missing = owner.missing_tags(live.tags)
    tagless = (f"the tags {', '.join(missing)} are missing",) if missing else ()
    rules = firewall.rules_differ(wanted, live.rules)
    return Repairs(
        reasons=firewall.disabled(live) + rules + tagless,
        status=None if live.status == "enabled" else "enabled",
        tags=(*live.tags, *missing) if missing else None,
        rules=bool(rules),
    )


async def ensure_firewall(
    client: api.LinodeClient,
    *,
    wanted: models.FirewallRules,
    owner: Owner,
    known_id: int | None,
    confirm: Confirm = _always,
) -> FirewallState:
    """The sandbox's firewall with the wanted rules; created or repaired if need be.

    Rules are written only after `confirm`, asked right before: looking may have taken long, and an
    allowlist that was taken back meanwhile must not be written (I1).

    Raises:
        Superseded: `confirm` said no; nothing was written.
        ForeignFirewall: the label is taken by a firewall that is not ours.
        LinodeError: a call failed; what was done stays, and the next pass goes on from there.
    """
    live = await _known(client, owner=owner, known_id=known_id) or await _look_up(client, owner)
    created = False
    if live is None:
        if not await confirm():
            raise errors.Superseded
        live, created = await _create(client, wanted=wanted, owner=owner)
    todo = repairs(wanted, live, owner)
    if todo.rules and not created and not await confirm():
        raise errors.Superseded
    live = await _repair(client, live=live, wanted=wanted, todo=todo)
    # What nothing was written to was compared a moment ago; a thousand networks take their time.
    holds = not (todo.rules or todo.status) or not firewall.differs(wanted, live)
    return FirewallState(
        id=live.id,
        version=live.rules.version,
        holds=holds,
        created=created,
        repaired=todo.reasons,
        nodebalancer_ids=live.nodebalancer_ids,
    )


async def _repair(
    client: api.LinodeClient, *, live: models.Firewall, wanted: models.FirewallRules, todo: Repairs
) -> models.Firewall:
    """Closing comes first: a disabled firewall is enabled, else the rules are written, before mere tags."""
    if todo.status is not None:
        live = await client.update_firewall(live.id, status=todo.status, tags=todo.tags)
    if todo.rules:
        live = live.model_copy(update={"rules": await client.replace_rules(live.id, wanted)})
    if todo.status is None and todo.tags is not None:
        updated = await client.update_firewall(live.id, tags=todo.tags)
        live = live.model_copy(update={"tags": updated.tags})
    return live


async def _known(client: api.LinodeClient, *, owner: Owner, known_id: int | None) -> models.Firewall | None:
    """The firewall that our status names, if it exists and is ours."""
    if known_id is None:
        return None
    live = await client.get_firewall(known_id)
    if live is None or live.status == "deleted" or not owner.recognises(live):
        return None
    return live


async def _look_up(client: api.LinodeClient, owner: Owner) -> models.Firewall | None:
    """Our firewall by label or tag.

    Raises:
        ForeignFirewall: the label is taken by one that is not ours.
    """
    found = await client.list_firewalls(label=owner.label, tag=owner.uid_tag)
    chosen = ownership.choose_firewall(found, owner)
    if chosen is None and (foreign := ownership.foreign_firewall(found, owner)):
        raise errors.ForeignFirewall(label=foreign.label, firewall_id=foreign.id)
    return chosen


async def _create(
    client: api.LinodeClient, *, wanted: models.FirewallRules, owner: Owner
) -> tuple[models.Firewall, bool]:
    """A new firewall, or the one that a lost or concurrent creation made."""
    try:
        return await client.create_firewall(label=owner.label, tags=owner.tags, rules=wanted), True
    except errors.Ambiguous:
        found = await _look_up(client, owner)
        if found is None:
            raise
        return found, True
    except errors.Invalid as error:
        if not api.is_duplicate_label(error):
            raise
        found = await _look_up(client, owner)
        if found is None:
            raise errors.ForeignFirewall(label=owner.label, firewall_id=None) from error
        return found, False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeBalancerState:
    """The sandbox's NodeBalancer as observed.

    Attributes:
        ours: it carries the tags of cluster and sandbox; only then may it be changed.
        firewall_ids: firewalls that are assigned to it.
    """

    id: int
    ipv4: str | None
    hostname: str | None
    ours: bool
    firewall_ids: tuple[int, ...]


async def observe_nodebalancer(
    client: api.LinodeClient,
    *,
    owner: Owner,
    ipv4: str | None = None,
    hostname: str | None = None,
    known_id: int | None = None,
) -> NodeBalancerState | None:
    """The NodeBalancer that serves the sandbox; None if there is none yet.

    `ipv4` and `hostname` are those of the Service's status. Before there are any, the tags find it.
    """
    live = None if known_id is None else await client.get_nodebalancer(known_id)
    candidates = [] if live is None else [live]
    chosen = ownership.choose_nodebalancer(candidates, owner=owner, ipv4=ipv4, hostname=hostname)
    if chosen is None:
        wanted = {"ipv4": ipv4} if ipv4 is not None else {"tag": owner.uid_tag}
        found = await client.find_nodebalancers(**wanted)
        chosen = ownership.choose_nodebalancer(found, owner=owner, ipv4=ipv4, hostname=hostname)
    if chosen is None:
        return None
    try:
        assigned = await client.nodebalancer_firewalls(chosen.id)
    except errors.NotFound:
        return None
    return NodeBalancerState(
        id=chosen.id,
        ipv4=chosen.ipv4,
        hostname=chosen.hostname,
        ours=owner.owns(chosen.tags),
        firewall_ids=tuple(sorted(one.id for one in assigned)),
    )


class Next(enum.Enum):
    """What the attachment needs next."""

    NOTHING = "nothing"
    WAIT = "wait for the cloud controller"
    ATTACH = "attach the firewall"
    ANNOTATE = "write the firewall's id into the Service's annotation"
    REFUSE = "the NodeBalancer is not ours"


def next_step(
    nodebalancer: NodeBalancerState,
    *,
    firewall_id: int,
    annotated_id: int | None,
    waited: float,
    grace: float,
) -> Next:
    """How firewall, NodeBalancer and annotation come to agree.

    The annotation follows the attachment: the CCM compares both, and finds nothing to do if they are
    equal. An annotation that names another id means that the firewall was replaced, so the NodeBalancer
    is open or about to be: no grace then.

    Args:
        annotated_id: the id in the live Service's annotation.
        waited: seconds since the NodeBalancer was first seen without the firewall.
    """
    if firewall_id in nodebalancer.firewall_ids and len(nodebalancer.firewall_ids) == 1:
        return Next.NOTHING if annotated_id == firewall_id else Next.ANNOTATE
    if not nodebalancer.ours:
        return Next.REFUSE
    if annotated_id == firewall_id and waited < grace:
        return Next.WAIT
    return Next.ATTACH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attachment:
    """Whether the NodeBalancer stands behind the firewall, by the API's own answer.

    Attributes:
        annotate: the caller must now write the firewall's id into the Service's annotation.
        message: what is amiss and what happens next; empty if proven and nothing is left to do.
    """

    proven: bool
    annotate: bool = False
    attached: bool = False
    message: str = ""


async def prove_attached(
    client: api.LinodeClient,
    nodebalancer: NodeBalancerState,
    *,
    firewall_id: int,
    annotated_id: int | None,
    waited: float,
    grace: float = 60.0,
) -> Attachment:
    """Judge the attachment and, if it is time, attach the firewall.

    Raises:
        NotFound: the NodeBalancer or the firewall went away meanwhile.
    """
    where = f"NodeBalancer {nodebalancer.id} ({nodebalancer.ipv4 or nodebalancer.hostname})"
    step = next_step(
        nodebalancer, firewall_id=firewall_id, annotated_id=annotated_id, waited=waited, grace=grace
    )
    match step:
        case Next.NOTHING:
            return Attachment(proven=True)
        case Next.ANNOTATE:
            return Attachment(
                proven=True, annotate=True, message=f"{where}: the Service's annotation follows."
            )
        case Next.REFUSE:
            message = (
                f"{where} stands without the sandbox's firewall and without its tags, so the operator does "
                "not touch it. The cloud controller restores the tags when the Service changes; or set "
                "them by hand."
            )
            return Attachment(proven=False, message=message)
        case Next.WAIT:
            left = errors.seconds(grace - waited)
            message = (
                f"{where} stands without the sandbox's firewall; the operator attaches it in {left} "
                "unless the cloud controller does."
            )
            return Attachment(proven=False, message=message)
        case Next.ATTACH:
            assigned = await client.set_nodebalancer_firewalls(nodebalancer.id, [firewall_id])
            proven = [one.id for one in assigned] == [firewall_id]
            message = f"The operator attached the firewall to {where}."
            return Attachment(
                proven=proven, annotate=annotated_id != firewall_id, attached=True, message=message
            )
