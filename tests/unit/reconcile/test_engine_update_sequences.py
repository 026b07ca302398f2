"""Any sequence of edits, upgrades, requests, hands in the engine and kills ends ready or rolled back."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_sandbox_operator.observed import canonical
from ai_sandbox_operator.reconcile import engine_state
from unit.reconcile.engine_world import World

Json = Any

SPECS: tuple[dict[str, Json], ...] = (
    {},
    {"engine": {"extraArgs": ["--seed", "1"]}},
    {"engine": {"extraArgs": ["--bad"]}},
    {"engine": {"image": "own:1"}},
    {"engine": {"image": "own:bad"}},
)
RELEASES = ("release:1", "release:2", "release:bad")
EVENTS = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(SPECS)),
    st.tuples(st.just("upgrade"), st.sampled_from(RELEASES)),
    st.tuples(
        st.sampled_from(["update", "retry", "tamper", "settle", "pass", "run", "tell", "restart"]), st.none()
    ),
)


def happen(world: World, event: tuple[str, Json], number: int) -> None:
    match event:
        case "edit", spec:
            world.spec = spec
        case "upgrade", image:
            world.image, world.trial = image, None
        case "update", _:
            world.update = str(number)
        case "retry", _:
            world.retry = str(number)
        case "tamper", _:
            world.tamper(f"somebody:{number}")
        case "settle", _:
            world.settle()
        case "pass", _:
            world.act()  # and is killed before it tells
        case "restart", _:
            world.trial = None
        case what, _ if world.body is not None:
            getattr(world, what)()
        case _:
            pass


def essence(template: Json) -> bytes:
    return canonical.digest({"spec": {"template": template}})


@given(st.lists(EVENTS, max_size=14))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_sequence_ends_ready_or_rolled_back_and_nothing_else_was_ever_written(
    events: list[tuple[str, Json]],
) -> None:
    world = World()
    for number, event in enumerate(events, 1):
        before, wanted = len(world.templates), set()
        wanted.add(essence(world.want.template))
        happen(world, event, number)
        wanted.add(essence(world.want.template))
        for template, good in world.templates[before:]:
            allowed = wanted | ({essence(good)} if good else set())
            assert essence(template) in allowed, f"after {event}"
    world.settle()
    known = engine_state.live(world.record).good
    assert world.outcome in (("ready", "rolled back") if known else ("ready", "failing"))
    if world.outcome == "rolled back":
        assert known is not None
        assert essence(world.template) == essence(known.template)
    if known is not None:
        assert essence(known.template) in {essence(one) for one in world.served}, "good means seen to serve"
    # A settled engine is left alone: by further passes, and by a new process.
    writes = world.writes
    world.trial = None
    world.settle()
    assert world.writes == writes


@given(st.lists(st.sampled_from(RELEASES), min_size=1, max_size=6), st.sampled_from(SPECS))
@settings(max_examples=60, deadline=None)
def test_no_upgrade_of_the_operator_changes_an_engine_that_serves(
    releases: list[str], spec: dict[str, Json]
) -> None:
    world = World()
    world.settle()
    world.spec = spec
    world.settle()
    served = world.outcome == "ready"
    before = essence(world.template)
    for release in releases:
        world.image, world.trial = release, None
        world.settle()
        assert not served or essence(world.template) == before


@given(st.lists(EVENTS, max_size=8), st.integers(0, 5))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_kill_after_any_write_leads_to_the_same_end(
    events: list[tuple[str, Json]], kill_after: int
) -> None:
    calm, killed = World(), World()
    for world in (calm, killed):
        world.settle()
        for number, event in enumerate(events, 1):
            happen(world, event, number)
    calm.settle()
    for _ in range(kill_after):
        killed.act()
        killed.run()
        killed.trial = None  # the process that knew of it is dead
    killed.settle()
    assert killed.outcome == calm.outcome
    assert essence(killed.template) == essence(calm.template)
