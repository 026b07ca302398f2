"""What holds for every specification: lists only admit, and only what they name."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from networkpolicy import evaluator, expectation, grid, universe
from networkpolicy.expectation import Case
from networkpolicy.universe import BOTH, Matrix
from unit.desired import samples

Access = dict[str, Any]
_LABELS = {
    "app": ("agent", "batch", "none"),
    "tier": ("front", "back"),
    "team": ("a", "b"),
    "stage": ("prod", "test"),
}


@st.composite
def _requirements(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(_LABELS)))
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    if operator in {"Exists", "DoesNotExist"}:
        return {"key": key, "operator": operator}
    values = st.lists(st.sampled_from(_LABELS[key]), min_size=1, max_size=2, unique=True)
    return {"key": key, "operator": operator, "values": draw(values)}


_selectors = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.sampled_from(
            [{"app": "agent"}, {"app": "agent", "tier": "front"}, {"team": "b"}, {}]
        ),
        "matchExpressions": st.lists(_requirements(), max_size=2),
    },
)
_peers = st.fixed_dictionaries(
    {"to": samples.targets}, optional={"namespaceSelector": _selectors, "podSelector": _selectors}
)
#: Networks about the addresses of the universe, and others.
_cidrs = st.sampled_from(
    [
        *("0.0.0.0/0", "::/0", "203.0.113.0/24", "203.0.113.4/32", "203.0.113.128/25", "198.51.100.0/25"),
        *("10.0.0.0/8", "10.2.0.0/16", "192.168.0.0/16", "2001:db8::/32", "2001:db8:1::5/128", "128.0.0.0/1"),
    ]
)
_entries = st.fixed_dictionaries({"cidr": st.one_of(_cidrs, samples.cidrs), "to": samples.targets})
_chats = st.sampled_from(
    [{}, {"enabled": False}, {"oidc": {"providerURL": "https://sso.example.com/x", "clientID": "chat"}}]
)
_cases = st.builds(
    lambda access, chat, operator, balancers: Case(
        {"access": access, "chat": chat}, grid.GRID["default"].neighbour, operator, balancers
    ),
    st.fixed_dictionaries(
        {
            "exposure": st.sampled_from(["ClusterIP", "NodeBalancer"]),
            "allowlist": st.lists(_entries, max_size=4),
            "inCluster": st.lists(_peers, max_size=3),
        }
    ),
    _chats,
    st.sampled_from(["", "ai-sandbox-system"]),
    st.sampled_from([(), ("192.168.255.0/24",), ("192.168.255.0/24", "10.100.0.0/30")]),
)
_readings = st.sampled_from([evaluator.STANDARD, evaluator.CALICO, evaluator.CILIUM])
_thorough = settings(max_examples=60, deadline=None)


def _judge(case: Case, known: Case, reading: evaluator.Reading) -> list[Matrix]:
    """Both ends of each connection, among the endpoints that `known` speaks of."""
    everybody, policies = grid.everybody(known), grid.all_policies(case)
    return [evaluator.evaluate(policies, everybody, reading, (side,)) for side in BOTH]


def _added(less: Case, more: Case, known: Case, reading: evaluator.Reading) -> list[str]:
    pairs = zip(_judge(less, known, reading), _judge(more, known, reading), strict=True)
    return [line for before, after in pairs for line in universe.additions(before, after)]


def _with_access(case: Case, **changes: Any) -> Case:
    return grid.with_spec(case, access={**case.spec["access"], **changes})


@_thorough
@given(case=_cases, reading=_readings)
def test_any_specification_admits_exactly_what_it_says(case: Case, reading: evaluator.Reading) -> None:
    everybody = grid.everybody(case)
    meaning = expectation.Addresses(reading.pods, reading.nodes)
    for side, found in zip(BOTH, _judge(case, case, reading), strict=True):
        wanted = expectation.matrix(case, everybody, meaning, (side,))
        assert not universe.differences(wanted, found)


@_thorough
@given(case=_cases, reading=_readings, data=st.data())
def test_an_entry_less_never_admits_more(case: Case, reading: evaluator.Reading, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["allowlist", "inCluster"]))
    entries = case.spec["access"][key]
    if entries:
        gone = data.draw(st.integers(0, len(entries) - 1))
        fewer = _with_access(case, **{key: [*entries[:gone], *entries[gone + 1 :]]})
        assert not _added(case, fewer, case, reading)


@_thorough
@given(case=_cases, reading=_readings, entry=_entries, peer=_peers)
def test_an_entry_more_never_takes_away(
    case: Case, reading: evaluator.Reading, entry: dict[str, Any], peer: dict[str, Any]
) -> None:
    access = case.spec["access"]
    more = _with_access(case, allowlist=[entry, *access["allowlist"]], inCluster=[*access["inCluster"], peer])
    assert not _added(more, case, more, reading)


@_thorough
@given(case=_cases, reading=_readings, data=st.data())
def test_order_and_repetition_do_not_matter(
    case: Case, reading: evaluator.Reading, data: st.DataObject
) -> None:
    access = case.spec["access"]
    shuffled: Access = {
        key: data.draw(st.permutations([*access[key], *access[key][:1]]))
        for key in ("allowlist", "inCluster")
    }
    assert _judge(_with_access(case, **shuffled), case, reading) == _judge(case, case, reading)


@_thorough
@given(case=_cases, reading=_readings)
def test_a_chat_that_is_off_never_admits_more(case: Case, reading: evaluator.Reading) -> None:
    off = grid.with_spec(case, chat={**case.spec["chat"], "enabled": False})
    assert not _added(case, off, case, reading)


@_thorough
@given(case=_cases, reading=_readings)
def test_only_the_gateway_answers_anybody_outside_of_the_sandbox(
    case: Case, reading: evaluator.Reading
) -> None:
    """The promise itself, without any of the specification's details."""
    everybody = grid.everybody(case)
    found = evaluator.evaluate(grid.all_policies(case), everybody, reading)
    own = {
        pod: part
        for pod in universe.PODS
        if (part := expectation.part_of(pod)) and part[0] == universe.SANDBOX
    }
    for inside, (_, component) in own.items():
        for outside in everybody:
            if outside not in own:
                if component == "engine" and expectation.is_operator(case, outside):
                    assert found[outside, inside] == {("TCP", 8000)}
                elif component != "gateway":
                    assert found[outside, inside] == frozenset()
                if component in {"engine", "debug"}:
                    assert found[inside, outside] == frozenset()
