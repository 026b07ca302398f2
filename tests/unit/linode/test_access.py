"""Firewall and attachment of one sandbox: the exact calls in each situation, and the ordering hazards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.linode import access, errors, firewall, models
from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode.access import Next
from ai_sandbox_operator.linode.ownership import Owner
from lab.linode import LinodeSimulator, faults

OWNER = Owner(cluster_id="584692", uid="6f1c2a3e-0d4b-4a5c-9e8f-112233445566")
OTHER = Owner(cluster_id="584692", uid="00000000-0000-0000-0000-000000000000")
LIST, POST = "GET /networking/firewalls", "POST /networking/firewalls"
PORTS: dict[v1alpha1.Target, int] = {"Chat": 3000, "API": 8000}
WANTED = firewall.rules_for([v1alpha1.AllowlistEntry(cidr="203.0.113.0/24")], ports=PORTS)
INSIDE, OUTSIDE = "203.0.113.9", "192.0.2.1"


def asked(sim: LinodeSimulator, since: int) -> list[str]:
    return [f"{entry.method} {entry.path}" for entry in sim.journal.since(since)]


def existing(sim: LinodeSimulator, *, owner: Owner = OWNER, label: str | None = None) -> int:
    """A firewall as the operator leaves it."""
    made = sim.state.create_firewall(label or owner.label, WANTED.to_wire(), tags=owner.tags)
    return made.id


async def ensure(client: api.LinodeClient, known_id: int | None) -> access.FirewallState:
    return await access.ensure_firewall(client, wanted=WANTED, owner=OWNER, known_id=known_id)


async def test_a_new_firewall_is_born_with_its_rules(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    state = await ensure(client, None)
    assert asked(sim, 0) == [LIST, POST]
    assert state == access.FirewallState(id=state.id, version=1, holds=True, created=True)
    live = sim.state.firewalls[state.id]
    assert (live.label, set(live.tags)) == (OWNER.label, set(OWNER.tags))


async def test_i4_a_settled_check_is_one_get(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    ident = existing(sim)
    state = await ensure(client, ident)
    assert asked(sim, 0) == [f"GET /networking/firewalls/{ident}"]
    assert state.holds
    assert state.repaired == ()
    assert not state.created


async def test_i4_a_restart_without_status_finds_it_and_writes_nothing(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    assert (await ensure(client, None)).id == ident
    assert asked(sim, 0) == [LIST]


Spoil = Callable[[LinodeSimulator, int], object]


def disable(sim: LinodeSimulator, ident: int) -> None:
    sim.state.disable_firewall(ident)


def opened(sim: LinodeSimulator, ident: int) -> None:
    sim.state.open_firewall(ident)


def tagless(sim: LinodeSimulator, ident: int) -> None:
    sim.state.tag_firewall(ident, [])


def relabel(sim: LinodeSimulator, ident: int) -> None:
    sim.state.relabel_firewall(ident, "my-name")


def add_tag(sim: LinodeSimulator, ident: int) -> None:
    sim.state.tag_firewall(ident, [*OWNER.tags, "billing-7"])


def accept_by_default(sim: LinodeSimulator, ident: int) -> None:
    sim.state.set_rules(ident, {"inbound_policy": "ACCEPT"})


def emptied(sim: LinodeSimulator, ident: int) -> None:
    sim.state.set_rules(ident, {"inbound": []})


@dataclasses.dataclass(frozen=True)
class Drift:
    sentence: str
    spoil: tuple[Spoil, ...]
    writes: tuple[str, ...]
    words: str


def puts(*paths: str) -> tuple[str, ...]:
    return tuple(f"PUT /networking/firewalls/ID{path}" for path in paths)


DRIFTS = [
    Drift("opened to everybody", (opened,), puts("/rules"), "may admit anybody"),
    Drift("inbound policy accepts", (accept_by_default,), puts("/rules"), "the inbound policy is ACCEPT"),
    Drift("rules removed", (emptied,), puts("/rules"), "is closed to"),
    Drift("disabled", (disable,), puts(""), "lets everything pass"),
    Drift(
        "disabled and opened: enabled first, because it closes something at once",
        (opened, disable),
        puts("", "/rules"),
        "lets everything pass",
    ),
    Drift("tags removed", (tagless,), puts(""), "tags ai-sandbox"),
    Drift(
        "opened and tags removed: closed first", (opened, tagless), puts("/rules", ""), "may admit anybody"
    ),
    Drift("label changed: it is still ours", (relabel,), (), ""),
    Drift("a person's further tag stays", (add_tag,), (), ""),
]


@pytest.mark.parametrize("drift", DRIFTS, ids=[one.sentence for one in DRIFTS])
async def test_drift_is_repaired_with_the_fewest_writes(
    drift: Drift, sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    for spoil in drift.spoil:
        spoil(sim, ident)
    state = await ensure(client, ident)
    writes = tuple(one.replace(str(ident), "ID") for one in asked(sim, 0)[1:])
    assert writes == drift.writes
    assert state.holds
    assert drift.words in "; ".join(state.repaired)
    assert firewall.differs(WANTED, await live(client, ident)) == ()
    mark = sim.journal.last
    again = await ensure(client, ident)
    assert again.repaired == ()
    assert sim.journal.mutations(mark) == []


async def live(client: api.LinodeClient, ident: int) -> models.Firewall:
    found = await client.get_firewall(ident)
    assert found is not None
    return found


async def test_added_tags_keep_those_of_a_person(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    ident = existing(sim)
    sim.state.tag_firewall(ident, ["billing-7"])
    await ensure(client, ident)
    assert set(sim.state.firewalls[ident].tags) == {"billing-7", *OWNER.tags}


async def test_hazard_3_a_deleted_firewall_is_created_anew(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    sim.state.delete_firewall(ident)
    state = await ensure(client, ident)
    assert asked(sim, 0) == [f"GET /networking/firewalls/{ident}", LIST, POST]
    assert state.created
    assert state.id != ident


LOST = [faults.lost_reply, faults.gateway_timeout]


@pytest.mark.parametrize("fault", LOST)
async def test_hazard_9_after_a_lost_reply_the_label_finds_it(
    fault: Callable[..., faults.Fault], sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    sim.faults.add(fault("POST", "/networking/firewalls"))
    state = await ensure(client, None)
    assert asked(sim, 0) == [LIST, POST, LIST]
    assert list(sim.state.firewalls) == [state.id]
    assert state.holds


async def test_hazard_9_a_creation_that_was_lost_before_its_effect_waits_for_the_next_pass(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    sim.faults.add(faults.reset("POST", "/networking/firewalls"))
    with pytest.raises(errors.Ambiguous):
        await ensure(client, None)
    assert (await ensure(client, None)).created
    assert len(sim.state.firewalls) == 1


async def test_a_creation_that_another_operator_won_is_adopted(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    sim.faults.add(faults.Fault(status=200, body=EMPTY, method="GET", path="/networking/firewalls"))
    state = await ensure(client, None)
    assert asked(sim, 0) == [LIST, POST, LIST]
    assert (state.id, state.created) == (ident, False)


EMPTY = '{"data": [], "page": 1, "pages": 1, "results": 0}'


async def test_a_renamed_firewall_without_status_is_found_by_its_tag(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim, label="my-name")
    assert (await ensure(client, None)).id == ident
    assert asked(sim, 0) == [LIST]


@pytest.mark.parametrize(
    ("sentence", "tags"),
    [
        ("no tags", ()),
        ("tags of another sandbox", OTHER.tags),
        ("tags of another cluster", Owner(cluster_id="1", uid=OWNER.uid).tags),
        ("only the human tag", ("ai-sandbox",)),
    ],
)
async def test_i2_a_foreign_firewall_with_our_label_is_named_and_not_touched(
    sentence: str, tags: tuple[str, ...], sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    made = sim.state.create_firewall(OWNER.label, tags=list(tags))
    with pytest.raises(errors.ForeignFirewall, match=rf"{OWNER.label} \(id {made.id}\).*Rename or delete it"):
        await ensure(client, None)
    assert sim.journal.mutations(0) == [], sentence


async def test_i2_an_id_in_the_status_is_a_hint_and_not_a_right(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    """Whoever may write the status must not be able to aim the operator at another firewall."""
    victim = existing(sim, owner=OTHER)
    person = sim.state.create_firewall("production-db")
    for known_id in (victim, person.id):
        mark = sim.journal.last
        state = await ensure(client, known_id)
        assert state.id not in (victim, person.id)
        assert all(str(known_id) not in entry.path for entry in sim.journal.mutations(mark))


async def test_a_taken_label_that_the_token_cannot_see_is_explained(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    existing(sim)
    sim.state.restrict_user("sandbox", add={"add_firewalls"}, grants={})
    with pytest.raises(errors.ForeignFirewall, match="not visible to the token's user"):
        await ensure(client, None)


async def test_i8_an_answer_that_differs_is_not_called_held(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    sim.state.open_firewall(ident)
    body = '{"inbound": [], "inbound_policy": "ACCEPT", "outbound": [], "outbound_policy": "ACCEPT"}'
    sim.faults.add(faults.Fault(status=200, body=body, method="PUT"))
    assert not (await ensure(client, ident)).holds


async def test_i1_rules_are_never_wider_than_wanted_after_any_write(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    seen: list[bool] = []
    sim.on_write(
        lambda w: seen.append(any(w.snapshot.admits(nb, OUTSIDE, 8000) for nb in w.snapshot.nodebalancers))
    )
    ident = (await ensure(client, None)).id
    sim.state.create_nodebalancer("ccm-0123456789ab", firewall_id=ident, tags=list(OWNER.tags))
    closed = firewall.rules_for([], ports=PORTS)
    await access.ensure_firewall(client, wanted=closed, owner=OWNER, known_id=ident)
    await ensure(client, ident)
    assert seen
    assert not any(seen)


# NodeBalancer and attachment


def nodebalancer(
    *attached: int, ours: bool = True, ident: int = 7, ipv4: str = "198.51.100.7"
) -> access.NodeBalancerState:
    return access.NodeBalancerState(id=ident, ipv4=ipv4, hostname="h", ours=ours, firewall_ids=attached)


STEPS = [
    ("attached and annotated", nodebalancer(5), 5, 0, Next.NOTHING),
    (
        "attached by us, not annotated yet: the controller would detach it (hazard 2)",
        nodebalancer(5),
        None,
        0,
        Next.ANNOTATE,
    ),
    ("attached, the annotation names the deleted one (hazard 3)", nodebalancer(5), 4, 0, Next.ANNOTATE),
    ("annotated, not attached, within the grace (hazard 8)", nodebalancer(), 5, 59, Next.WAIT),
    ("annotated, not attached, after the grace (hazard 8)", nodebalancer(), 5, 60, Next.ATTACH),
    (
        "another one attached after the grace, such as an account's default",
        nodebalancer(9),
        5,
        60,
        Next.ATTACH,
    ),
    ("recreated, so the NodeBalancer is open: no grace (hazard 3)", nodebalancer(), 4, 0, Next.ATTACH),
    (
        "recreated while the old one is still attached: attach before annotating (hazard 4)",
        nodebalancer(4),
        4,
        0,
        Next.ATTACH,
    ),
    ("two attached", nodebalancer(5, 9), 5, 60, Next.ATTACH),
    ("not attached and not ours", nodebalancer(ours=False), 5, 60, Next.REFUSE),
    (
        "attached; whose tags it has does not matter for the proof",
        nodebalancer(5, ours=False),
        5,
        0,
        Next.NOTHING,
    ),
]


@pytest.mark.parametrize(
    ("sentence", "state", "annotated", "waited", "expected"), STEPS, ids=[one[0] for one in STEPS]
)
def test_next_step(
    sentence: str, state: access.NodeBalancerState, annotated: int | None, waited: float, expected: Next
) -> None:
    step = access.next_step(state, firewall_id=5, annotated_id=annotated, waited=waited, grace=60)
    assert step == expected, sentence


async def observe(client: api.LinodeClient, **known: object) -> access.NodeBalancerState | None:
    return await access.observe_nodebalancer(client, owner=OWNER, **known)  # type: ignore[arg-type]


async def test_the_nodebalancer_is_found_by_address_else_by_tag(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    made = sim.state.create_nodebalancer("ccm-1", firewall_id=ident, tags=["lke7", *OWNER.tags])
    sim.state.create_nodebalancer("ccm-2", tags=["lke7", *OTHER.tags])
    expected = access.NodeBalancerState(
        id=made.id, ipv4=made.ipv4, hostname=made.hostname, ours=True, firewall_ids=(ident,)
    )
    proof = f"GET /nodebalancers/{made.id}/firewalls"
    mark = sim.journal.last
    assert await observe(client, ipv4=made.ipv4) == expected
    assert asked(sim, mark) == ["GET /nodebalancers", proof]
    assert await observe(client) == expected
    assert await observe(client, hostname=made.hostname) == expected
    mark = sim.journal.last
    assert await observe(client, known_id=made.id, ipv4=made.ipv4) == expected
    assert asked(sim, mark) == [f"GET /nodebalancers/{made.id}", proof]


async def test_hazard_7_the_address_of_the_service_wins_over_the_recorded_id(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    old = sim.state.create_nodebalancer("ccm-1", tags=list(OWNER.tags))
    new = sim.state.create_nodebalancer("ccm-2", tags=list(OWNER.tags))
    found = await observe(client, known_id=old.id, ipv4=new.ipv4)
    assert found is not None
    assert found.id == new.id
    by_tag = await observe(client)
    assert by_tag is not None
    assert by_tag.id == new.id


async def test_no_nodebalancer_yet_is_none(sim: LinodeSimulator, client: api.LinodeClient) -> None:
    sim.state.create_nodebalancer("ccm-1", tags=list(OTHER.tags))
    assert await observe(client) is None
    assert await observe(client, ipv4="198.51.100.250", known_id=999) is None
    assert await observe(client, hostname="gone.ip.linodeusercontent.com") is None


async def prove(
    client: api.LinodeClient, state: access.NodeBalancerState | None, **given: object
) -> access.Attachment:
    assert state is not None
    return await access.prove_attached(client, state, **given)  # type: ignore[arg-type]


async def test_hazard_8_an_ignored_annotation_is_made_good_after_the_grace(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    made = sim.state.create_nodebalancer("ccm-1", tags=list(OWNER.tags))
    state = await observe(client, ipv4=made.ipv4)
    mark = sim.journal.last
    waiting = await prove(client, state, firewall_id=ident, annotated_id=ident, waited=10)
    assert not waiting.proven
    assert "attaches it in 50 seconds" in waiting.message
    assert asked(sim, mark) == []
    done = await prove(client, state, firewall_id=ident, annotated_id=ident, waited=60)
    assert asked(sim, mark) == [f"PUT /nodebalancers/{made.id}/firewalls"]
    assert done.proven
    assert done.attached
    assert not done.annotate
    settled = await prove(
        client, await observe(client, ipv4=made.ipv4), firewall_id=ident, annotated_id=ident, waited=0
    )
    assert settled == access.Attachment(proven=True)


async def test_hazards_3_and_4_a_recreated_firewall_is_attached_before_it_is_annotated(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    old = existing(sim)
    made = sim.state.create_nodebalancer("ccm-1", firewall_id=old, tags=list(OWNER.tags))
    sim.state.delete_firewall(old)
    new = (await ensure(client, old)).id
    mark = sim.journal.last
    result = await prove(
        client, await observe(client, ipv4=made.ipv4), firewall_id=new, annotated_id=old, waited=0
    )
    assert [one for one in asked(sim, mark) if not one.startswith("GET")] == [
        f"PUT /nodebalancers/{made.id}/firewalls"
    ]
    assert result.proven
    assert result.annotate
    assert [one.id for one in sim.state.firewalls_of(made.id)] == [new]
    after = await prove(
        client, await observe(client, ipv4=made.ipv4), firewall_id=new, annotated_id=new, waited=0
    )
    assert after == access.Attachment(proven=True)


async def test_i2_a_nodebalancer_without_our_tags_is_not_changed(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    made = sim.state.create_nodebalancer("shop")
    result = await prove(
        client, await observe(client, ipv4=made.ipv4), firewall_id=ident, annotated_id=ident, waited=999
    )
    assert not result.proven
    assert "does not touch it" in result.message
    assert sim.journal.mutations(0) == []


async def test_i8_an_attachment_is_proven_by_the_answer_only(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    ident = existing(sim)
    made = sim.state.create_nodebalancer("ccm-1", tags=list(OWNER.tags))
    state = await observe(client, ipv4=made.ipv4)
    sim.faults.add(faults.Fault(status=200, body=EMPTY, method="PUT"))
    assert not (await prove(client, state, firewall_id=ident, annotated_id=ident, waited=60)).proven
