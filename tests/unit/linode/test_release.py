"""The end of a sandbox's Linode objects: the order, what blocks, and what is never touched."""

from __future__ import annotations

import dataclasses

import pytest

from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode import errors, models, release
from ai_sandbox_operator.linode.ownership import Owner
from lab.linode import LinodeSimulator, faults

OWNER = Owner(cluster_id="584692", uid="6f1c2a3e-0d4b-4a5c-9e8f-112233445566")
OTHER = Owner(cluster_id="584692", uid="00000000-0000-0000-0000-000000000000")
TAGS = list(OWNER.tags)


@dataclasses.dataclass(frozen=True)
class World:
    firewall: int
    nodebalancer: int


@pytest.fixture
def world(sim: LinodeSimulator) -> World:
    firewall = sim.state.create_firewall(OWNER.label, tags=TAGS).id
    return World(
        firewall, sim.state.create_nodebalancer("ccm-1", firewall_id=firewall, tags=["lke7", *TAGS]).id
    )


async def end(
    client: api.LinodeClient, world: World | None, *, gone_for: float | None = 0.0
) -> release.ReleaseState:
    return await release.release(
        client,
        owner=OWNER,
        firewall_id=world.firewall if world else None,
        nodebalancer_id=world.nodebalancer if world else None,
        service_gone_for=gone_for,
        leak_grace=300,
    )


def writes(sim: LinodeSimulator, since: int = 0) -> list[str]:
    return [f"{entry.method} {entry.path}" for entry in sim.journal.mutations(since)]


async def test_nothing_is_asked_while_the_service_exists(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    state = await end(client, world, gone_for=None)
    assert not state.done
    assert len(sim.journal) == 0


async def test_hazard_6_the_firewall_outlives_the_nodebalancer(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    waiting = await end(client, world, gone_for=10)
    assert not waiting.done
    assert "cloud controller deletes it" in waiting.blocked[0]
    assert "290 seconds" in waiting.blocked[0]
    assert writes(sim) == []
    sim.state.delete_nodebalancer(world.nodebalancer)
    done = await end(client, world, gone_for=20)
    assert done == release.ReleaseState(done=True, deleted=(f"Cloud Firewall {world.firewall}",))
    assert writes(sim) == [f"DELETE /networking/firewalls/{world.firewall}"]
    mark = sim.journal.last
    assert (await end(client, world, gone_for=30)).done
    assert writes(sim, mark) == []


async def test_hazard_6_holds_although_the_firewall_is_not_assigned_any_more(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    """Whoever detached it may attach it again; while the NodeBalancer lives there is something to close."""
    sim.state.detach(world.nodebalancer)
    assert not (await end(client, world, gone_for=10)).done
    assert writes(sim) == []


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "never recorded"])
async def test_hazard_7_a_leaked_nodebalancer_is_deleted_after_the_grace(
    recorded: bool, sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    state = await end(client, world if recorded else None, gone_for=300)
    assert writes(sim) == [
        f"DELETE /nodebalancers/{world.nodebalancer}",
        f"DELETE /networking/firewalls/{world.firewall}",
    ]
    assert state.done


async def test_i1_a_nodebalancer_is_never_open_during_a_release(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    open_ = []
    sim.on_write(
        lambda w: open_.append(
            any(w.snapshot.admits(nb, "192.0.2.1", 8000) for nb in w.snapshot.nodebalancers)
        )
    )
    for gone_for in (0, 100, 300, 400):
        await end(client, world, gone_for=gone_for)
    assert open_ == [False, False]


async def test_i2_a_recorded_nodebalancer_without_our_tags_blocks_and_is_not_deleted(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.tag_nodebalancer(world.nodebalancer, ["lke7"])
    state = await end(client, world, gone_for=10_000)
    assert not state.done
    assert "does not carry the sandbox's tags" in state.blocked[0]
    assert "sandbox.linode.com/abandon-linode-objects=true" in state.blocked[0]
    assert writes(sim) == []


async def test_i2_objects_of_others_are_not_touched_even_if_the_status_names_them(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    foreign = World(
        sim.state.create_firewall(OTHER.label, tags=list(OTHER.tags)).id,
        sim.state.create_nodebalancer("ccm-2", tags=list(OTHER.tags)).id,
    )
    state = await end(client, foreign, gone_for=10_000)
    assert not state.done
    sim.state.delete_nodebalancer(foreign.nodebalancer)
    assert (await end(client, foreign, gone_for=10_000)).done
    assert writes(sim) == []
    assert foreign.firewall in sim.state.firewalls


async def test_i2_a_foreign_firewall_with_our_label_stays(
    sim: LinodeSimulator, client: api.LinodeClient
) -> None:
    sim.state.create_firewall(OWNER.label)
    assert (await end(client, None)).done
    assert writes(sim) == []


async def test_a_recorded_firewall_whose_tags_were_removed_is_known_by_its_label(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.tag_firewall(world.firewall, [])
    sim.state.delete_nodebalancer(world.nodebalancer)
    assert (await end(client, world)).done
    assert sim.state.firewalls == {}


async def test_a_firewall_that_something_else_uses_stays_and_blocks(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.delete_nodebalancer(world.nodebalancer)
    sim.state.add_linode("node-1", "192.168.128.11", ident=1001)
    sim.state.attach_linode(world.firewall, 1001)
    state = await end(client, world)
    assert not state.done
    assert "still assigned to linode 1001" in state.blocked[0]
    assert writes(sim) == []


async def test_a_default_firewall_of_the_account_blocks_with_linodes_words(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.delete_nodebalancer(world.nodebalancer)
    sim.state.set_default_firewall(world.firewall)
    state = await end(client, world)
    assert not state.done
    assert "default firewall" in state.blocked[0]
    assert "abandon" in state.blocked[0]


async def test_a_locked_nodebalancer_blocks(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.lock_nodebalancer(world.nodebalancer)
    state = await end(client, world, gone_for=10_000)
    assert not state.done
    assert state.blocked
    assert world.firewall in sim.state.firewalls


async def test_a_second_firewall_of_ours_goes_too(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    sim.state.delete_nodebalancer(world.nodebalancer)
    sim.state.create_firewall("twin-1", tags=TAGS)
    assert (await end(client, world)).done
    assert sim.state.firewalls == {}


@pytest.mark.parametrize("write", [1, 2])
@pytest.mark.parametrize("fault", [faults.lost_reply, faults.reset, faults.gateway_timeout])
async def test_i7_a_release_that_is_interrupted_anywhere_ends_on_a_later_pass(
    write: int, fault: object, sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    made = fault("DELETE", "*", times=6)  # type: ignore[operator]
    made.skip = write - 1
    sim.faults.add(made)
    for _ in range(5):
        try:
            state = await end(client, world, gone_for=300)
        except errors.LinodeError:
            continue
        if state.done:
            break
    assert sim.state.firewalls == {}
    assert sim.state.nodebalancers == {}


def shown(*, tags: tuple[str, ...] = OWNER.tags, locks: tuple[str, ...] = ()) -> models.NodeBalancer:
    return models.NodeBalancer(id=7, label="ccm-1", ipv4="198.51.100.7", tags=tags, locks=locks)


@pytest.mark.parametrize(
    ("sentence", "live", "gone_for", "delete", "words"),
    [
        ("within the grace the controller is at it", shown(), 299, False, "cloud controller deletes it"),
        ("after the grace it has leaked", shown(), 300, True, ""),
        ("without our tags it is never deleted", shown(tags=("lke7",)), 10_000, False, "does not carry"),
        ("with another sandbox's tags neither", shown(tags=OTHER.tags), 10_000, False, "does not carry"),
        ("a lock is a person's decision", shown(locks=("cannot_delete",)), 10_000, False, "Remove the lock"),
    ],
)
def test_judge_nodebalancer(
    sentence: str, live: models.NodeBalancer, gone_for: float, delete: bool, words: str
) -> None:
    verdict = release.judge_nodebalancer(live, owner=OWNER, service_gone_for=gone_for, leak_grace=300)
    assert verdict.delete == delete, sentence
    assert words in verdict.blocked


async def test_hazard_10_the_report_names_what_is_left_of_sandboxes_that_are_gone(
    sim: LinodeSimulator, client: api.LinodeClient, world: World
) -> None:
    left = sim.state.create_firewall(OTHER.label, tags=list(OTHER.tags))
    leaked = sim.state.create_nodebalancer("ccm-2", tags=list(OTHER.tags))
    twin = sim.state.create_nodebalancer("ccm-3", tags=TAGS)
    sim.state.create_firewall("of-another-cluster", tags=list(Owner(cluster_id="1", uid="x").tags))
    sim.state.create_firewall("of-a-person")
    report = await release.orphans(client, cluster_id="584692", live_uids=[OWNER.uid])
    assert [(one.kind, one.id, one.why) for one in report.orphans] == [
        ("Cloud Firewall", left.id, "the sandbox is gone"),
        ("NodeBalancer", leaked.id, "the sandbox is gone"),
        ("NodeBalancer", twin.id, "the sandbox has another"),
    ]
    assert str(report.orphans[0]) == (
        f"Cloud Firewall {left.id} ({OTHER.label}) of sandbox {OTHER.uid}: the sandbox is gone"
    )
    assert (report.firewalls, report.nodebalancers) == (2, 3)
    assert writes(sim) == []
