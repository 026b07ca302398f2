"""Whatever is broken in the policies, the comparison notices."""

from __future__ import annotations

import pytest

from networkpolicy import evaluator, expectation, grid, mutations, oracle, universe
from networkpolicy.grid import GRID, RICH
from networkpolicy.universe import BOTH, Manifest

_DENIED = "the policy that denies everything isolates the pod in this direction already"
_PAIR = "224.0.0.0/4 and 240.0.0.0/4 are both excepted and together are 224.0.0.0/3"
#: Mutations that change nothing, and why.
EQUIVALENT = {
    "demo-fetch: policyTypes without Ingress": _DENIED,
    "demo-engine: policyTypes without Egress": _DENIED,
    # Only where the gateway admits nobody.
    "demo-gateway: policyTypes without Ingress": _DENIED,
    "demo-fetch: egress 1 to 0 except 224.0.0.0/4 one bit shorter": _PAIR,
    "demo-fetch: egress 1 to 0 except 240.0.0.0/4 one bit shorter": _PAIR,
    "demo-chat: egress 2 to 0 except 224.0.0.0/4 one bit shorter": _PAIR,
    "demo-chat: egress 2 to 0 except 240.0.0.0/4 one bit shorter": _PAIR,
}


def _equivalent(policies: list[Manifest]) -> set[str]:
    """The mutations of EQUIVALENT that exist, and change nothing, in this case."""
    gateway = next(policy["spec"] for policy in policies if policy["metadata"]["name"] == "demo-gateway")
    found = {what for what, _ in mutations.mutations(policies)} & set(EQUIVALENT)
    return found - {"demo-gateway: policyTypes without Ingress"} if "ingress" in gateway else found


def _survivors(name: str) -> tuple[int, set[str]]:
    """How many mutations there are, and those after which both ends still admit what they should."""
    case = GRID[name]
    everybody, policies = grid.everybody(case), grid.policies(case)
    neighbour = grid.policies(case, universe.NEIGHBOUR)
    wanted = {side: expectation.matrix(case, everybody, sides=(side,)) for side in BOTH}
    survived, count = set(), 0
    for what, mutant in mutations.mutations(policies):
        count += 1
        found = [*mutant, *neighbour]
        if all(evaluator.evaluate(found, everybody, sides=(side,)) == wanted[side] for side in BOTH):
            survived.add(what)
    return count, survived


def _check(name: str) -> None:
    count, survived = _survivors(name)
    assert survived == _equivalent(grid.policies(GRID[name]))
    assert count > 190


@pytest.mark.parametrize("name", RICH)
def test_each_mutation_of_a_rich_case_is_noticed(name: str) -> None:
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GRID if name not in RICH])
def test_each_mutation_of_every_case_is_noticed(name: str) -> None:
    _check(name)


def _agree(name: str, step: int) -> None:
    """The independent program and the evaluator read mutants alike, so the evaluator may judge them."""
    case = GRID[name]
    everybody, neighbour = grid.everybody(case), grid.policies(case, universe.NEIGHBOUR)
    chosen = list(mutations.mutations(grid.policies(case)))[::step]
    questions = [
        oracle.spell_out(oracle.one_sided([*mutant, *neighbour], side))
        for _, mutant in chosen
        for side in BOTH
    ]
    answers = oracle.ask(questions)
    judged = [(what, mutant, side) for what, mutant in chosen for side in BOTH]
    assert len(answers) == len(judged) > 20
    for answer, (what, mutant, side) in zip(answers, judged, strict=True):
        mine = evaluator.evaluate([*mutant, *neighbour], everybody, sides=(side,))
        assert not universe.differences(mine, oracle.matrix(answer, everybody)), (what, side)


@pytest.mark.parametrize(("name", "step"), [("everything", 29), ("expressions", 31)])
def test_the_independent_program_reads_a_sample_of_mutants_as_the_evaluator_does(
    name: str, step: int
) -> None:
    _agree(name, step)


@pytest.mark.slow
@pytest.mark.parametrize("name", RICH)
def test_the_independent_program_reads_all_mutants_as_the_evaluator_does(name: str) -> None:
    _agree(name, 1)
