"""Which template the engine gets: the one that was asked for, or the last good one; nothing else (I5)."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.observed import diagnosis, seen
from ai_sandbox_operator.reconcile import engine_state, engine_trial, engine_update
from ai_sandbox_operator.reconcile.engine_state import Failed, Good, Live
from ai_sandbox_operator.reconcile.engine_update import Ask, Decision, Wanted
from unit.observed.live import observed
from unit.reconcile.things import child_of

NOW = datetime.datetime(2026, 5, 1, 12, 0, tzinfo=datetime.UTC)
LATE = engine_update.PATIENCE + 1
BUDGET = 3000.0


def template(image: str, *arguments: str, plan: str = "") -> dict[str, object]:
    pod: dict[str, object] = {
        "containers": [{"name": "engine", "image": image, "args": ["/models/m", *arguments]}]
    }
    if plan:
        pod["nodeSelector"] = {"node.kubernetes.io/instance-type": plan}
    return {"metadata": {"labels": {}}, "spec": pod}


def ago(seconds: float) -> str:
    return (NOW - datetime.timedelta(seconds=seconds)).isoformat()


GOOD = Good(inputs="in-1", rendered="re-1", template=template("engine:1"))
GOOD_TEXT = json.dumps(dataclasses.asdict(GOOD))
TRIED = json.dumps({"inputs": "in-2", "rendered": "re-2", "template": template("engine:2")})
ELSEWHERE = json.dumps({"inputs": "in-2", "rendered": "re-2", "template": template("engine:2", plan="g2")})
#: What the spec asks for: the same as what serves, something else, or the same as rendered by a later release.
SAME = Wanted(inputs="in-1", rendered="re-1", template=template("engine:1"), budget=BUDGET)
OTHER = Wanted(inputs="in-2", rendered="re-2", template=template("engine:2"), budget=BUDGET)
NEWER = Wanted(inputs="in-1", rendered="re-1b", template=template("engine:1b"), budget=BUDGET)
FAILED = Failed(inputs="in-2", rendered="re-2", cause="no such image", retry="")
FAILED_NEWER = Failed(inputs="in-1", rendered="re-1b", cause="no such image", retry="")


def state(inputs: str, rendered: str, **more: str) -> dict[str, str]:
    names = {
        "good": seen.ANNOTATION_ENGINE_GOOD,
        "failed": seen.ANNOTATION_ENGINE_FAILED,
        "update": seen.ANNOTATION_ENGINE_UPDATE,
    }
    return {
        seen.ANNOTATION_ENGINE_INPUTS: inputs,
        seen.ANNOTATION_ENGINE_TEMPLATE: rendered,
        **{names[name]: value for name, value in more.items()},
    }


def text(failed: Failed) -> str:
    return json.dumps(dataclasses.asdict(failed), sort_keys=True)


#: The good one serves; another one is on trial; the good one serves again after that one failed.
SERVES = Live(
    inputs="in-1",
    rendered="re-1",
    good=GOOD,
    rolled_out=True,
    replicas=1,
    generation=4,
    annotations=state("in-1", "re-1", good=GOOD_TEXT),
)
ON_TRIAL = Live(
    inputs="in-2",
    rendered="re-2",
    candidate=TRIED,
    good=GOOD,
    replicas=1,
    generation=5,
    annotations=state("in-2", "re-2", good=GOOD_TEXT),
)
BACK = dataclasses.replace(
    SERVES, failed=FAILED, annotations=state("in-1", "re-1", good=GOOD_TEXT, failed=text(FAILED))
)


def live(thing: Live, **values: object) -> Live:
    return dataclasses.replace(thing, **values)  # type: ignore[arg-type]


def trial(seconds: float = 60, *, reason: Reason = Reason.CrashLoop, **values: object) -> engine_trial.Trial:
    permanent = bool(values.pop("permanent", False))
    fields: dict[str, object] = {
        "generation": ON_TRIAL.generation,
        "since": ago(seconds),
        "restarts": 0,
        "unpulled": False,
        "unscheduled": False,
        "finding": diagnosis.Finding(reason, "the cause", permanent=permanent),
    }
    return engine_trial.Trial(**{**fields, **values})  # type: ignore[arg-type]


def ask(**values: object) -> Ask:
    return Ask(**{"now": NOW, **values})  # type: ignore[arg-type]


STAYS, CHANGES, GOES_BACK = "stays", "becomes what is wanted", "becomes the last good one"


def word(decision: Decision, want: Wanted) -> str:
    if decision.template is None:
        return STAYS
    return CHANGES if decision.template == want.template else GOES_BACK


# -- what somebody asked for -------------------------------------------------------------------------------

CHANGES_OF_TEMPLATE: dict[str, tuple[Live, Wanted, Ask, str]] = {
    "nothing changed": (SERVES, SAME, ask(), STAYS),
    "the spec was edited": (SERVES, OTHER, ask(), CHANGES),
    "the spec was edited, its model is not cached": (SERVES, OTHER, ask(changeable=False), STAYS),
    "an operator upgrade": (SERVES, NEWER, ask(), STAYS),
    "an operator upgrade, taken over": (SERVES, NEWER, ask(update="1"), CHANGES),
    "an operator upgrade, taken over before": (live(SERVES, update="1"), NEWER, ask(update="1"), STAYS),
    "an operator upgrade while a change is tried": (
        ON_TRIAL,
        dataclasses.replace(OTHER, rendered="re-2b"),
        ask(),
        STAYS,
    ),
    "what failed is not tried again": (BACK, OTHER, ask(), STAYS),
    "what failed, and the user asks again": (BACK, OTHER, ask(retry="1"), CHANGES),
    "what failed after the user had asked again": (
        live(BACK, failed=dataclasses.replace(FAILED, retry="1")),
        OTHER,
        ask(retry="1"),
        STAYS,
    ),
    "what failed, rendered anew by another release": (
        BACK,
        dataclasses.replace(OTHER, rendered="re-2b"),
        ask(),
        CHANGES,
    ),
    "what failed, and the spec says something else again": (
        BACK,
        dataclasses.replace(OTHER, inputs="in-3", rendered="re-3"),
        ask(),
        CHANGES,
    ),
    "what failed, and the spec was taken back": (BACK, SAME, ask(), STAYS),
    "a release's engine that failed is not tried again": (
        live(SERVES, failed=FAILED_NEWER),
        NEWER,
        ask(),
        STAYS,
    ),
    "a release's engine that failed, asked for once more": (
        live(SERVES, failed=FAILED_NEWER, update="1"),
        NEWER,
        ask(update="2"),
        CHANGES,
    ),
    "a release's engine that failed, retried": (
        live(SERVES, failed=FAILED_NEWER, update="1"),
        NEWER,
        ask(update="1", retry="1"),
        CHANGES,
    ),
    "an edit while another one is tried": (
        ON_TRIAL,
        dataclasses.replace(OTHER, inputs="in-3", rendered="re-3"),
        ask(trial=trial(permanent=True)),
        CHANGES,
    ),
    "somebody changed the good one": (live(SERVES, foreign=True), SAME, ask(), GOES_BACK),
    "somebody changed the good one before an upgrade": (live(SERVES, foreign=True), NEWER, ask(), GOES_BACK),
    "somebody changed what is tried": (live(ON_TRIAL, foreign=True), OTHER, ask(), CHANGES),
    "somebody changed what no good one is known for": (
        live(ON_TRIAL, foreign=True, good=None),
        OTHER,
        ask(),
        CHANGES,
    ),
    "somebody took the engine's annotations off": (
        live(SERVES, annotations=state("in-1", "re-1", good=GOOD_TEXT)),
        SAME,
        ask(),
        STAYS,
    ),
}


@pytest.mark.parametrize("case", CHANGES_OF_TEMPLATE)
def test_the_template(case: str) -> None:
    now, want, asked, expected = CHANGES_OF_TEMPLATE[case]
    # Both may be the same text; what is asked for is then named.
    want = dataclasses.replace(want, template={**want.template, "wanted": True})
    assert word(engine_update.decide(now, want, asked), want) == expected


# -- what ends a trial -------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Live, Ask, bool]] = {
    "it is starting": (ON_TRIAL, ask(trial=trial(reason=Reason.Starting)), False),
    "no pod yet": (ON_TRIAL, ask(), False),
    "a permanent fault": (ON_TRIAL, ask(trial=trial(permanent=True)), True),
    "a permanent fault of an earlier template's pod": (
        ON_TRIAL,
        ask(trial=trial(permanent=True, generation=4)),
        False,
    ),
    "two restarts": (ON_TRIAL, ask(trial=trial(restarts=2)), False),
    "three restarts": (ON_TRIAL, ask(trial=trial(restarts=3)), True),
    "no image for a while": (ON_TRIAL, ask(trial=trial(60, unpulled=True)), False),
    "no image for long": (ON_TRIAL, ask(trial=trial(LATE, unpulled=True)), True),
    "no node for long, and the good one asks for the same": (
        ON_TRIAL,
        ask(trial=trial(LATE, unscheduled=True)),
        False,
    ),
    "no node for long, and the good one asks for others": (
        live(ON_TRIAL, candidate=ELSEWHERE),
        ask(trial=trial(LATE, unscheduled=True)),
        True,
    ),
    "no node for a while, and the good one asks for others": (
        live(ON_TRIAL, candidate=ELSEWHERE),
        ask(trial=trial(60, unscheduled=True)),
        False,
    ),
    "within its startup budget": (ON_TRIAL, ask(trial=trial(BUDGET - 1, reason=Reason.NotReady)), False),
    "beyond its startup budget": (ON_TRIAL, ask(trial=trial(BUDGET + 1, reason=Reason.NotReady)), True),
    "the API server takes no pod, for a while": (
        live(ON_TRIAL, refused="exceeded quota", refused_since=ago(60)),
        ask(),
        False,
    ),
    "the API server takes no pod, for long": (
        live(ON_TRIAL, refused="exceeded quota", refused_since=ago(LATE)),
        ask(),
        True,
    ),
    "ready, and silent for a while": (
        live(ON_TRIAL, rolled_out=True, available_since=ago(60)),
        ask(silent="status 500"),
        False,
    ),
    "ready, and silent for long": (
        live(ON_TRIAL, rolled_out=True, available_since=ago(LATE)),
        ask(silent="status 500"),
        True,
    ),
    "ready, and nobody has asked it": (
        live(ON_TRIAL, rolled_out=True, available_since=ago(LATE)),
        ask(),
        False,
    ),
    "suspended": (live(ON_TRIAL, replicas=0), ask(trial=trial(permanent=True)), False),
    "no good one is known": (live(ON_TRIAL, good=None), ask(trial=trial(permanent=True)), False),
    "the good one itself has a fault": (
        live(SERVES, rolled_out=False),
        ask(trial=trial(permanent=True, generation=SERVES.generation)),
        False,
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_end_of_a_trial(case: str) -> None:
    now, asked, goes_back = ENDS[case]
    want = SAME if now.inputs == "in-1" else OTHER
    decision = engine_update.decide(now, want, asked)
    assert word(decision, want) == (GOES_BACK if goes_back else STAYS)
    if goes_back:
        assert decision.template == GOOD.template


def test_an_engine_that_waited_for_a_gpu_has_its_startup_budget_from_then_on() -> None:
    """A node pool may take hours to get a card; going back then would end a healthy change at its start."""
    record = observed([child_of("Deployment", "demo-engine")])["Deployment", "demo-engine"]
    deployment = dataclasses.replace(record, facts={"engine_template": "", "generation": ON_TRIAL.generation})
    finding = diagnosis.Finding(Reason.Starting, "the cause")

    def goes_back(seconds: float) -> bool:
        pod = {
            "metadata": {"name": "p", "creationTimestamp": ago(3 * BUDGET)},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(seconds)}]
            },
        }
        found = engine_trial.observe([pod], deployment, finding)
        return engine_update.decide(ON_TRIAL, OTHER, ask(trial=found)).template is not None

    assert not goes_back(30)
    assert not goes_back(BUDGET - 1)
    assert goes_back(BUDGET + 1)


def test_a_rollback_says_in_the_same_write_what_failed_and_why() -> None:
    asked = ask(trial=trial(permanent=True), retry="r", update="7")
    decision = engine_update.decide(live(ON_TRIAL, update="7"), OTHER, asked)
    held = engine_state.parse_failed(decision.annotations[seen.ANNOTATION_ENGINE_FAILED])
    assert held == Failed(inputs="in-2", rendered="re-2", cause="the cause", retry="r")
    assert {**decision.annotations, seen.ANNOTATION_ENGINE_FAILED: ""} == {
        **state("in-1", "re-1", good=GOOD_TEXT, update="7"),
        seen.ANNOTATION_ENGINE_FAILED: "",
    }


def test_while_another_model_is_downloaded_a_failing_engine_goes_back_all_the_same() -> None:
    third = dataclasses.replace(OTHER, inputs="in-3", rendered="re-3", template=template("engine:3"))
    decision = engine_update.decide(ON_TRIAL, third, ask(changeable=False, trial=trial(permanent=True)))
    assert decision.template == GOOD.template


# -- what is remembered ------------------------------------------------------------------------------------

CANDIDATE = GOOD_TEXT.replace("engine:1", "engine:1 again")
MEMORY: dict[str, tuple[Live, Wanted, Ask, dict[str, str]]] = {
    "what serves is kept once": (
        live(SERVES, candidate=CANDIDATE),
        SAME,
        ask(serving=True),
        state("in-1", "re-1", good=CANDIDATE),
    ),
    "what is kept already causes no write": (
        SERVES,
        SAME,
        ask(serving=True),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "ready, but not told as serving yet": (
        live(SERVES, candidate=CANDIDATE),
        SAME,
        ask(),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "told as serving a moment ago, and not ready": (
        live(SERVES, candidate=CANDIDATE, rolled_out=False),
        SAME,
        ask(serving=True),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "somebody else's changes are never good": (
        live(SERVES, candidate=CANDIDATE, foreign=True, good=None),
        SAME,
        ask(serving=True, changeable=False),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "a word for a release's engine that runs already is used up": (
        SERVES,
        SAME,
        ask(update="1"),
        state("in-1", "re-1", good=GOOD_TEXT, update="1"),
    ),
    "a word that waits for a model is not used up": (
        SERVES,
        NEWER,
        ask(update="1", changeable=False),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "a change takes the word along and forgets what failed": (
        BACK,
        dataclasses.replace(OTHER, inputs="in-3", rendered="re-3"),
        ask(update="1"),
        state("in-3", "re-3", good=GOOD_TEXT, update="1"),
    ),
    "a change that was taken back may be tried anew": (
        BACK,
        SAME,
        ask(),
        state("in-1", "re-1", good=GOOD_TEXT),
    ),
    "a change that failed stays known": (BACK, OTHER, ask(), dict(BACK.annotations)),
}


@pytest.mark.parametrize("case", MEMORY)
def test_the_annotations(case: str) -> None:
    now, want, asked, expected = MEMORY[case]
    assert dict(engine_update.decide(now, want, asked).annotations) == expected


def test_a_new_engine_starts_with_the_words_of_today() -> None:
    assert dict(engine_update.first(OTHER, ask(update="1")).annotations) == state("in-2", "re-2", update="1")


def garbled(change: Callable[[dict[str, object]], object]) -> str:
    held = json.loads(GOOD_TEXT)
    change(held)
    return json.dumps(held)


@pytest.mark.parametrize(
    "annotation",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        garbled(lambda held: held.pop("inputs")),
        garbled(lambda held: held.update(template={})),
        garbled(lambda held: held.update(template={"spec": {"containers": []}})),
        garbled(lambda held: held.update(template={"spec": {"containers": [{"args": []}]}})),
    ],
)
def test_a_garbled_memory_is_no_memory(annotation: str) -> None:
    assert engine_state.parse_good(annotation) is None
    assert engine_state.parse_failed(annotation) is None


# -- what is told ------------------------------------------------------------------------------------------

DIFFERENCES: dict[str, tuple[Live, Wanted, str]] = {
    "nothing": (SERVES, SAME, ""),
    "another spec": (SERVES, OTHER, ""),
    "another image": (SERVES, NEWER, "image engine:1 becomes engine:1b"),
    "arguments": (
        live(SERVES, good=dataclasses.replace(GOOD, template=template("engine:1b", "--old", "--kept"))),
        dataclasses.replace(NEWER, template=template("engine:1b", "--kept", "--new")),
        "arguments without --old and with --new",
    ),
    "the order of arguments": (
        live(SERVES, good=dataclasses.replace(GOOD, template=template("engine:1b", "--a", "--b"))),
        dataclasses.replace(NEWER, template=template("engine:1b", "--b", "--a")),
        "arguments in another order",
    ),
    "something else": (
        SERVES,
        dataclasses.replace(NEWER, template=template("engine:1")),
        "other settings of the pod",
    ),
    "a template of which nobody knows how it was rendered": (live(SERVES, rendered=""), NEWER, ""),
    "something is being tried": (live(ON_TRIAL, inputs="in-1"), NEWER, ""),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_a_newer_release_would_change(case: str) -> None:
    now, want, expected = DIFFERENCES[case]
    assert engine_update.newer(now, want) == expected
