from __future__ import annotations

import pytest

from lab.cluster.nodes import behaviour
from lab.cluster.nodes.behaviour import NORMAL, Behaviour, Behaviours, Selector
from unit.lab_nodes.factory import pod

CRASH = Behaviour("crash")
SLOW = Behaviour("slow")


def test_without_rules_everything_is_normal() -> None:
    assert Behaviours().of(pod()) is NORMAL


@pytest.mark.parametrize(
    "selector",
    [
        Selector(),
        Selector(component="engine"),
        Selector(namespace="team"),
        Selector(sandbox="demo"),
        Selector(prefix="demo-engine-"),
        Selector(component="engine", namespace="team", sandbox="demo", prefix="demo"),
    ],
)
def test_selected(selector: Selector) -> None:
    assert selector.matches(pod())


@pytest.mark.parametrize(
    "selector",
    [
        Selector(component="chat"),
        Selector(namespace="other"),
        Selector(sandbox="other"),
        Selector(prefix="engine"),
        Selector(component="engine", namespace="other"),
    ],
)
def test_not_selected(selector: Selector) -> None:
    assert not selector.matches(pod())


def test_last_match_wins_and_comes_back_when_removed() -> None:
    rules = Behaviours()
    rules.add(CRASH)
    narrow = rules.add(SLOW, Selector(component="engine"))
    rules.add(NORMAL, Selector(component="chat"))
    assert rules.of(pod()) is SLOW
    assert rules.of(pod(component="chat")) is NORMAL
    assert rules.of(pod(component="fetch")) is CRASH
    assert rules.remove(narrow)
    assert rules.of(pod()) is CRASH
    rules.clear()
    assert rules.of(pod()) is NORMAL


def test_every_change_is_told_and_only_changes() -> None:
    rules = Behaviours()
    told: list[int] = []
    rules.on_change(lambda: told.append(len(rules.rules())))
    ident = rules.add(CRASH)
    assert not rules.remove(ident + 1)
    rules.remove(ident)
    rules.clear()
    assert told == [1, 0, 0]


def test_a_rule_survives_its_way_over_http() -> None:
    rules = Behaviours()
    said = Behaviour("fail", seconds=0.5, exit_code=78, message="gated", log="a\nb", previous_log="c")
    selector = Selector(component="fetch", prefix="demo-")
    rules.add(said, selector)
    (rule,) = rules.rules()
    assert behaviour.parse(rule.to_json()) == (said, selector)


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="explode"):
        Behaviour("explode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colour"):
        behaviour.parse({"kind": "crash", "colour": "red"})


def test_duration() -> None:
    assert NORMAL.duration(0.1) == 0.1
    assert SLOW.duration(0.1) > 1
    assert Behaviour("slow", seconds=2).duration(0.1) == 2
