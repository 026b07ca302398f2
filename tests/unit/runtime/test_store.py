"""The store: the last word of the watch, corrected by lists, never brought back in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.runtime import store as stores

Json = Any
KEY = ("team-a", "demo")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def child(name: str = "demo-x", *, uid: str = "u1", version: int | str = 10, sandbox: str = "demo") -> Json:
    labels = {names.LABEL_SANDBOX: sandbox, names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
    return {"metadata": _metadata(name, uid, version) | {"labels": labels}, "spec": {}}


def sandbox(*, uid: str = "u1", version: int = 10, spec: Json = None) -> Json:
    managed = [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]
    return {"metadata": _metadata("demo", uid, version) | {"managedFields": managed}, "spec": spec or {}}


def _metadata(name: str, uid: str, version: int | str) -> dict[str, Json]:
    return {"name": name, "namespace": "team-a", "uid": uid, "resourceVersion": str(version)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> stores.Store:
    return stores.Store(clock=clock)


def versions(store: stores.Store) -> dict[tuple[str, str], tuple[str, str]]:
    return {key: (r.uid, r.resource_version) for key, r in store.children(KEY).items()}


def test_a_sandbox_comes_back_as_a_fresh_copy_without_managed_fields(store: stores.Store) -> None:
    body = sandbox(spec={"gpu": {"count": 2}})
    assert store.observe(kinds.SANDBOX, "ADDED", body) == KEY
    held = store.sandbox(KEY)
    assert held is not None
    assert held["spec"] == {"gpu": {"count": 2}}
    assert "managedFields" not in held["metadata"]
    assert "managedFields" in body["metadata"]
    held["spec"].clear()
    assert store.sandbox(KEY) != held
    assert (store.sandbox_uid(KEY), list(store.sandboxes())) == ("u1", [KEY])


def test_a_child_is_found_by_the_label_of_its_sandbox(store: stores.Store) -> None:
    assert store.observe(kinds.SERVICE, None, child()) == KEY
    store.observe(kinds.SECRET, "ADDED", child())
    store.observe(kinds.SECRET, "ADDED", child("other-x", sandbox="other"))
    assert set(store.children(KEY)) == {("Service", "demo-x"), ("Secret", "demo-x")}
    assert store.count(kinds.SECRET) == 2


def test_a_child_without_a_sandbox_is_nobodys_business(store: stores.Store) -> None:
    body = child()
    body["metadata"]["labels"] = None
    assert store.observe(kinds.SECRET, "ADDED", body) is None


def test_a_child_whose_label_moved_leaves_its_sandbox(store: stores.Store) -> None:
    store.observe(kinds.SECRET, "ADDED", child())
    assert store.observe(kinds.SECRET, "MODIFIED", child(version=11, sandbox="other")) == ("team-a", "other")
    assert store.children(KEY) == {}
    assert set(store.children(("team-a", "other"))) == {("Secret", "demo-x")}


def test_deleted_forgets(store: stores.Store) -> None:
    store.observe(kinds.SECRET, "ADDED", child())
    assert store.observe(kinds.SECRET, "DELETED", child(version=11)) == KEY
    assert store.children(KEY) == {}
    assert store.observe(kinds.SECRET, "DELETED", child(version=11)) == KEY


@pytest.mark.parametrize("kind", [kinds.SANDBOX, kinds.SECRET], ids=["sandbox", "child"])
@pytest.mark.parametrize("late", ["DELETED", "MODIFIED"])
def test_a_late_word_of_the_namesake_changes_nothing(
    store: stores.Store, kind: kinds.Kind, late: str
) -> None:
    make = sandbox if kind is kinds.SANDBOX else child
    store.observe(kind, "ADDED", make(uid="old", version=10))
    store.observe(kind, "ADDED", make(uid="new", version=20))
    store.observe(kind, late, make(uid="old", version=15))
    if kind is kinds.SANDBOX:
        assert store.sandbox_uid(KEY) == "new"
    else:
        assert versions(store) == {("Secret", "demo-x"): ("new", "20")}


def test_an_older_event_does_not_overtake_the_answer_to_a_write(store: stores.Store) -> None:
    store.write_back(kinds.SECRET, child(version=12))
    store.observe(kinds.SECRET, "MODIFIED", child(version=9))
    assert versions(store) == {("Secret", "demo-x"): ("u1", "12")}
    store.observe(kinds.SECRET, "MODIFIED", child(version=13))
    assert versions(store) == {("Secret", "demo-x"): ("u1", "13")}


def test_versions_are_compared_as_numbers(store: stores.Store) -> None:
    store.write_back(kinds.SECRET, child(version=9))
    store.observe(kinds.SECRET, "MODIFIED", child(version=10))
    assert versions(store) == {("Secret", "demo-x"): ("u1", "10")}


def test_versions_that_are_no_numbers_are_taken_as_they_come(store: stores.Store) -> None:
    store.write_back(kinds.SECRET, child(version="b"))
    store.observe(kinds.SECRET, "MODIFIED", child(version="a"))
    assert versions(store) == {("Secret", "demo-x"): ("u1", "a")}


def test_the_answer_to_a_write_does_not_bring_back_what_was_deleted_meanwhile(store: stores.Store) -> None:
    store.observe(kinds.NETWORK_POLICY, "ADDED", child(version=10))
    store.observe(kinds.NETWORK_POLICY, "DELETED", child(version=12))
    store.write_back(kinds.NETWORK_POLICY, child(version=11))
    assert store.children(KEY) == {}


def test_what_got_its_label_back_is_seen_again(store: stores.Store) -> None:
    """The watch says DELETED when an object loses the label that is watched; it lives on."""
    store.observe(kinds.SECRET, "ADDED", child(version=10))
    store.observe(kinds.SECRET, "DELETED", child(version=11))
    store.observe(kinds.SECRET, "ADDED", child(version=12))
    assert versions(store) == {("Secret", "demo-x"): ("u1", "12")}


def test_the_memory_of_the_deleted_is_bounded(store: stores.Store) -> None:
    for number in range(stores.TOMBSTONES + 10):
        store.observe(kinds.SECRET, "DELETED", child(uid=f"u{number}"))
    assert len(store._gone) == stores.TOMBSTONES


# -- sweep -------------------------------------------------------------------------------------------------


def listed(*bodies: Json) -> list[Json]:
    return [{"metadata": body["metadata"]} for body in bodies]


def test_a_ghost_is_removed_and_its_sandbox_is_told(store: stores.Store, clock: Clock) -> None:
    store.observe(kinds.SECRET, "ADDED", child())
    store.observe(kinds.SANDBOX, "ADDED", sandbox())
    clock.now += 1
    found = store.sweep(kinds.SECRET, [], clock.now)
    assert (found.lost, found.missed, found.behind) == ({KEY}, set(), {})
    assert store.children(KEY) == {}
    assert store.sweep(kinds.SANDBOX, [], clock.now).lost == {KEY}
    assert store.sandbox(KEY) is None


def test_what_was_seen_after_the_list_began_is_left_alone(store: stores.Store, clock: Clock) -> None:
    began = clock.now
    clock.now += 1
    store.observe(kinds.SECRET, "ADDED", child(version=12))
    assert store.sweep(kinds.SECRET, [], began) == stores.Swept(lost=set(), missed=set(), behind={})
    assert not store.sweep(kinds.SECRET, listed(child(version=11)), began).behind
    assert len(store.children(KEY)) == 1


def test_what_was_missed_is_told_with_the_version_that_is_held(store: stores.Store, clock: Clock) -> None:
    store.observe(kinds.SECRET, "ADDED", child(version=10))
    clock.now += 1
    found = store.sweep(kinds.SECRET, listed(child(version=11), child("demo-new")), clock.now)
    assert found.missed == {KEY}
    assert found.behind == {("team-a", "demo-x"): "10", ("team-a", "demo-new"): ""}


def test_an_equal_list_finds_nothing(store: stores.Store, clock: Clock) -> None:
    store.observe(kinds.SECRET, "ADDED", child(version=10))
    clock.now += 1
    found = store.sweep(kinds.SECRET, listed(child(version=10)), clock.now)
    assert found == stores.Swept(lost=set(), missed=set(), behind={})
    assert store.holds(kinds.SECRET, {("team-a", "demo-x")})
    assert not store.holds(kinds.SECRET, {("team-a", "demo-x"), ("team-a", "y")})


class Watching(RuleBasedStateMachine):
    """A namespace of objects, a watch that delivers per UID in order but lags and loses, answers to writes.

    Whatever comes late: after all that is still under way has arrived, and a sweep, the store holds what
    exists, and nothing that does not.
    """

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.store = stores.Store(clock=self.clock)
        self.version = 0
        self.uids = 0
        self.alive: dict[str, Json] = {}
        self.queues: dict[str, list[tuple[str, Json]]] = {}
        self.answers: list[Json] = []

    def _changed(self, event: str, body: Json, *, ours: bool = False) -> None:
        self.queues.setdefault(body["metadata"]["uid"], []).append((event, body))
        if ours:
            self.answers.append(body)

    def _next(self) -> int:
        self.version += 1
        self.clock.now += 1
        return self.version

    @rule(name=st.sampled_from(["a", "b"]), ours=st.booleans(), label=st.sampled_from(["demo", "other"]))
    def write(self, name: str, ours: bool, label: str) -> None:
        held = self.alive.get(name)
        if held is None:
            self.uids += 1
        uid = held["metadata"]["uid"] if held else f"u{self.uids}"
        self.alive[name] = body = child(name, uid=uid, version=self._next(), sandbox=label)
        self._changed("MODIFIED" if held else "ADDED", body, ours=ours)

    @rule(name=st.sampled_from(["a", "b"]))
    def delete(self, name: str) -> None:
        if (held := self.alive.pop(name, None)) is not None:
            metadata = {**held["metadata"], "resourceVersion": str(self._next())}
            self._changed("DELETED", {**held, "metadata": metadata})

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        if waiting := [uid for uid, queue in self.queues.items() if queue]:
            event, body = self.queues[data.draw(st.sampled_from(waiting))].pop(0)
            self.store.observe(kinds.SECRET, event, body)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The watch was interrupted: what exists is listed again, what vanished is not told."""
        if waiting := [uid for uid, queue in self.queues.items() if queue]:
            uid = data.draw(st.sampled_from(waiting))
            _, last = self.queues[uid][-1]
            gone = self.queues[uid][-1][0] == "DELETED"
            self.queues[uid] = [] if gone else [("MODIFIED", last)]

    @rule()
    def answer(self) -> None:
        if self.answers:
            self.store.write_back(kinds.SECRET, self.answers.pop(0))

    @rule()
    def settle(self) -> None:
        for queue in self.queues.values():
            for event, body in queue:
                self.store.observe(kinds.SECRET, event, body)
            queue.clear()
        while self.answers:
            self.answer()
        self.clock.now += 1
        self.store.sweep(kinds.SECRET, listed(*self.alive.values()), self.clock.now)
        held = {
            name: (record.uid, record.resource_version)
            for key in (KEY, ("team-a", "other"))
            for (_, name), record in self.store.children(key).items()
        }
        assert held == {
            name: (body["metadata"]["uid"], body["metadata"]["resourceVersion"])
            for name, body in self.alive.items()
        }

    @invariant()
    def every_child_is_where_its_label_says(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in ("demo", "other"):
            for record in self.store.children(("team-a", name)).values():
                assert record.sandbox == name


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
