"""Conditions from what was observed; True only because it was observed for this spec (I8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Verdict
from ai_sandbox_operator.desired import engine, facts, fetch
from ai_sandbox_operator.observed import diagnosis, seen
from ai_sandbox_operator.reconcile import judge, views
from unit.desired import samples
from unit.observed.live import live

Json = Any
Stage = facts.Stage
Situation = views.Situation
C = ConditionType
PUBLIC: dict[str, Json] = {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": "192.0.2.0/24"}]}}
PROVEN = views.LinodeView(firewall_id=7, nodebalancer_id=8, current=True, attached=True)
SERVED = views.GatewayProof(proven=True)
ANSWERS = views.EngineProof(proven=True)
KNOWN = views.ModelView(commit=samples.COMMIT, size_bytes=samples.FACTS.model_bytes)
STALE = views.GatewayProof(message="demo-gateway-1 still serves an earlier allowlist or earlier keys")
SILENT = views.GatewayProof(reason=Reason.GatewayUnproven, message="demo-gateway-1: port 9902 is not reached")
RUNS: dict[str, Json] = {
    "observedGeneration": 1,
    "replicas": 1,
    "updatedReplicas": 1,
    "readyReplicas": 1,
}


def situation(spec: dict[str, Json] | None = None, **rest: Json) -> Situation:
    """A sandbox of which everything stands and runs."""
    spec = PUBLIC if spec is None else spec
    sandbox = samples.sandbox(spec)
    children = {}
    for child in samples.rendered(spec, samples.EXPOSED):
        body = live(child.manifest)
        match child.kind:
            case "Deployment":
                count = child.manifest["spec"]["replicas"]
                body["status"] = RUNS | dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), count)
            case "Job":
                body["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
            case "Service" if body["spec"]["type"] == "LoadBalancer":
                body["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.80"}]}}
            case _:
                pass
        children[child.kind, child.name] = seen.observe(child.kind, body)
    return Situation(
        sandbox=sandbox,
        children=children,
        engine_inputs=engine.engine_inputs(sandbox, samples.COMMIT),
        fetch_job=fetch.job_name(sandbox, samples.COMMIT),
        **{"linode": PROVEN, "gateway": SERVED, "model": KNOWN, "engine": ANSWERS, **rest},
    )


def verdicts(thing: Situation) -> dict[ConditionType, Verdict]:
    return {verdict.type: verdict for verdict in judge.judge(thing)}


def without(thing: Situation, kind: str, name: str) -> Situation:
    return dataclasses.replace(thing, children={k: r for k, r in thing.children.items() if k != (kind, name)})


def with_facts(thing: Situation, kind: str, name: str, **values: Json) -> Situation:
    record = thing.children[kind, name]
    changed = dataclasses.replace(record, facts={**record.facts, **values})
    return dataclasses.replace(thing, children={**thing.children, (kind, name): changed})


def with_linode(thing: Situation, **values: Json) -> Situation:
    return dataclasses.replace(thing, linode=dataclasses.replace(thing.linode, **values))


def with_(thing: Situation, **values: Json) -> Situation:
    return dataclasses.replace(thing, **values)


JOB = fetch.job_name(samples.sandbox(PUBLIC), samples.COMMIT)


def test_everything_observed_is_all_true_in_the_stored_order() -> None:
    found = judge.judge(situation())
    assert [v.type for v in found] == [t for t in ConditionType if t is not C.UPDATE_AVAILABLE]
    assert {v.type for v in found if v.status == "True"} == {v.type for v in found} - {
        C.RECONCILING,
        C.STALLED,
    }


@pytest.mark.parametrize("spec", [{}, {"chat": {"enabled": False}}, {**PUBLIC, "chat": {"enabled": False}}])
def test_a_settled_sandbox_of_any_kind_is_ready(spec: dict[str, Json]) -> None:
    assert verdicts(situation(spec))[C.READY].status == "True"


Case = tuple[Callable[[Situation], Situation], ConditionType, str, Reason]
TAKEN = views.Problem(reason=Reason.NameTaken, message="Secret demo-tls is somebody else's", stalled=True)
MISSING = views.Problem(reason=Reason.SecretNotFound, message="Secret hf-token does not exist")
REFUSED = views.Problem(reason=Reason.LinodeUnavailable, message="401")

FALSE: dict[str, Case] = {
    "a policy is not as wanted": (
        lambda s: with_(s, pending=frozenset({Stage.POLICY})),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "a gateway pod serves an earlier allowlist": (
        lambda s: with_(s, gateway=STALE),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "a gateway pod does not say what it serves": (
        lambda s: with_(s, gateway=SILENT),
        C.NETWORK_PROTECTED,
        "False",
        Reason.GatewayUnproven,
    ),
    "the gateway was not asked at all": (
        lambda s: with_(s, gateway=views.GatewayProof(unseen=True)),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "the firewall was not observed with the current rules": (
        lambda s: with_linode(s, current=False),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "whether the firewall is on the NodeBalancer is not known": (
        lambda s: with_linode(s, attached=False),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "nor is it when the NodeBalancer is known by its hostname only": (
        lambda s: with_linode(with_facts(s, "Service", "demo", address="", hostname="h"), attached=False),
        C.NETWORK_PROTECTED,
        "False",
        Reason.ProtectionPending,
    ),
    "the NodeBalancer was seen without the firewall": (
        lambda s: with_linode(
            s, attached=False, problem=views.Problem(reason=Reason.NotAttached, message="bare")
        ),
        C.NETWORK_PROTECTED,
        "False",
        Reason.NotAttached,
    ),
    "Linode refuses": (
        lambda s: with_linode(s, problem=REFUSED),
        C.NETWORK_PROTECTED,
        "False",
        Reason.LinodeUnavailable,
    ),
    "an allowlist that a firewall cannot hold": (
        lambda s: with_linode(s, problem=views.Problem(reason=Reason.TooManyNetworks, message="x")),
        C.NETWORK_PROTECTED,
        "False",
        Reason.TooManyNetworks,
    ),
    "no address yet": (
        lambda s: with_facts(s, "Service", "demo", address=""),
        C.EXPOSED,
        "False",
        Reason.AddressPending,
    ),
    "no external Service": (
        lambda s: without(s, "Service", "demo"),
        C.EXPOSED,
        "False",
        Reason.ExposureHeldBack,
    ),
    "the Job that fetches this model does not exist": (
        lambda s: with_(s, fetch_job="demo-fetch-other"),
        C.MODEL_CACHED,
        "False",
        Reason.Fetching,
    ),
    "the Job runs": (
        lambda s: with_facts(s, "Job", JOB, complete=False),
        C.MODEL_CACHED,
        "False",
        Reason.Fetching,
    ),
    "the volume is not bound": (
        lambda s: with_facts(
            with_facts(s, "Job", JOB, complete=False), "PersistentVolumeClaim", "demo-model", phase="Pending"
        ),
        C.MODEL_CACHED,
        "False",
        Reason.VolumePending,
    ),
    "the Job failed": (
        lambda s: with_facts(s, "Job", JOB, complete=False, failed=True),
        C.MODEL_CACHED,
        "False",
        Reason.FetchFailed,
    ),
    "the Job's pod cannot be scheduled": (
        lambda s: with_(
            with_facts(s, "Job", JOB, complete=False),
            findings={"fetch": diagnosis.Finding(Reason.Unschedulable, "no node")},
        ),
        C.MODEL_CACHED,
        "False",
        Reason.Unschedulable,
    ),
    "the Job failed, and its pod says why": (
        lambda s: with_(
            with_facts(s, "Job", JOB, complete=False, failed=True),
            findings={"fetch": diagnosis.Finding(Reason.ModelNotFound, "the hub has no model a/b")},
        ),
        C.MODEL_CACHED,
        "False",
        Reason.ModelNotFound,
    ),
    "the Job failed, and its pod ended without a word": (
        lambda s: with_(
            with_facts(s, "Job", JOB, complete=False, failed=True),
            findings={"fetch": diagnosis.Finding(Reason.CrashLoop, "exit code 1")},
        ),
        C.MODEL_CACHED,
        "False",
        Reason.FetchFailed,
    ),
    "the hub is being asked": (
        lambda s: with_(with_facts(s, "Job", JOB, complete=False), model=views.ModelView(pending=True)),
        C.MODEL_CACHED,
        "False",
        Reason.Resolving,
    ),
    "the hub refuses": (
        lambda s: with_(
            with_facts(s, "Job", JOB, complete=False),
            model=views.ModelView(failure=views.Problem(reason=Reason.HubUnreachable, message="no answer")),
        ),
        C.MODEL_CACHED,
        "False",
        Reason.HubUnreachable,
    ),
    "the engine's pod is ready and nobody has asked it": (
        lambda s: with_(s, engine=views.EngineProof(unseen=True)),
        C.ENGINE_READY,
        "False",
        Reason.Starting,
    ),
    "the engine's pod is ready and does not answer": (
        lambda s: with_(s, engine=views.EngineProof(reason=Reason.EngineUnproven, message="status 500")),
        C.ENGINE_READY,
        "False",
        Reason.EngineUnproven,
    ),
    "the engine runs, but for an earlier spec": (
        lambda s: with_(s, engine_inputs="other"),
        C.ENGINE_READY,
        "False",
        Reason.Starting,
    ),
    "the engine waits for its model": (
        lambda s: with_facts(s, "Deployment", "demo-engine", replicas=0),
        C.ENGINE_READY,
        "False",
        Reason.WaitingForModel,
    ),
    "the engine's pod crashes": (
        lambda s: with_(
            with_facts(s, "Deployment", "demo-engine", ready=0),
            findings={"engine": diagnosis.Finding(Reason.CrashLoop, "CUDA out of memory")},
        ),
        C.ENGINE_READY,
        "False",
        Reason.CrashLoop,
    ),
    "the chat's Deployment could not be brought to the spec and still runs the earlier one": (
        lambda s: with_(s, pending=frozenset({Stage.WORKLOAD})),
        C.CHAT_READY,
        "False",
        Reason.Starting,
    ),
    "the gateway rolls out": (
        lambda s: with_facts(s, "Deployment", "demo-gateway", current=3),
        C.CHAT_READY,
        "False",
        Reason.Starting,
    ),
    "the chat is gone": (
        lambda s: without(s, "Deployment", "demo-chat"),
        C.CHAT_READY,
        "False",
        Reason.Starting,
    ),
    "a name is taken": (lambda s: with_(s, problems=(TAKEN,)), C.SPEC_VALID, "False", Reason.NameTaken),
    "a name is taken, which needs a person": (
        lambda s: with_(s, problems=(TAKEN,)),
        C.STALLED,
        "True",
        Reason.NameTaken,
    ),
    "a Secret is missing, which may come": (
        lambda s: with_(s, problems=(MISSING,)),
        C.STALLED,
        "False",
        Reason.NotStalled,
    ),
    "something waits for the garbage collector": (
        lambda s: with_(s, pending=frozenset({Stage.SECRET})),
        C.RECONCILING,
        "True",
        Reason.Progressing,
    ),
}


@pytest.mark.parametrize("case", FALSE)
def test_what_is_not_observed_is_not_true(case: str) -> None:
    change, type_, status, reason = FALSE[case]
    found = verdicts(change(situation()))
    assert (found[type_].status, found[type_].reason) == (status, reason)
    if type_ is not C.STALLED or status == "True":
        assert found[C.READY].status == "False", case


def test_until_the_earlier_nodebalancer_is_known_to_be_gone_nothing_is_called_closed() -> None:
    found = verdicts(situation({}, releasing=True))
    assert (found[C.EXPOSED].status, found[C.NETWORK_PROTECTED].status) == ("False", "False")
    assert found[C.READY].status == "False"
    found = verdicts(situation({}))
    assert (found[C.EXPOSED].reason, found[C.NETWORK_PROTECTED].status) == (Reason.NotExposed, "True")


def test_before_there_is_a_nodebalancer_nothing_is_called_protected() -> None:
    found = verdicts(with_linode(with_facts(situation(), "Service", "demo", address=""), attached=False))
    assert found[C.NETWORK_PROTECTED].status == "False"
    assert "waits for the NodeBalancer" in found[C.NETWORK_PROTECTED].message


def test_the_message_of_protection_counts_who_is_admitted() -> None:
    assert "admit 1 network." in verdicts(situation())[C.NETWORK_PROTECTED].message
    nobody = {"access": {"exposure": "NodeBalancer"}}
    assert "admit 0 networks (nobody)." in verdicts(situation(nobody))[C.NETWORK_PROTECTED].message


@pytest.mark.parametrize(
    ("changed", "done"),
    [
        ({}, True),
        ({"ready": 0}, False),
        ({"updated": 0}, False),
        ({"current": 2}, False),
        ({"replicas": 0}, False),
        ({"generation": 2}, False),
        ({"replicas": 2}, False),
    ],
)
def test_rolled_out(changed: dict[str, int], done: bool) -> None:
    thing = with_facts(situation(), "Deployment", "demo-engine", **changed)
    assert seen.rolled_out(thing.children["Deployment", "demo-engine"]) is done


def test_suspended_is_settled_but_not_ready() -> None:
    found = verdicts(situation({**PUBLIC, "lifecycle": {"state": "Suspended"}}))
    assert (found[C.READY].status, found[C.READY].reason) == ("False", Reason.Suspended)
    assert (found[C.RECONCILING].status, found[C.STALLED].status) == ("False", "False")
    assert found[C.ENGINE_READY].reason is Reason.Suspended


def test_suspended_without_protection_is_not_settled() -> None:
    thing = with_linode(situation({**PUBLIC, "lifecycle": {"state": "Suspended"}}), current=False)
    assert verdicts(thing)[C.RECONCILING].status == "True"


def test_fields_that_do_nothing_are_named_although_the_sandbox_is_ready() -> None:
    found = verdicts(situation(notices=("spec.x does nothing",)))
    assert found[C.SPEC_VALID].reason is Reason.Valid
    assert "spec.x" in found[C.READY].message


@pytest.mark.parametrize("problem", [TAKEN, MISSING])
def test_a_message_of_what_is_wrong_ends_with_what_to_do(problem: views.Problem) -> None:
    found = verdicts(situation(problems=(problem,)))
    for verdict in found.values():
        wrong = verdict.reason is problem.reason and verdict.type is not C.RECONCILING
        if wrong:
            assert verdict.message.endswith(problem.reason.doc.remedy), verdict.type


def test_the_number_of_further_problems_is_told() -> None:
    assert "(and 1 more)" in verdicts(situation(problems=(MISSING, TAKEN)))[C.SPEC_VALID].message


ENDPOINTS: list[tuple[dict[str, Json], dict[str, str]]] = [
    (
        PUBLIC,
        {
            "api": "https://192.0.2.80:8000/v1",
            "chat": "https://192.0.2.80:3000",
            "caSecretName": "demo-ca",
        },
    ),
    (
        {"chat": {"enabled": False}, "access": {"tls": {"mode": "Disabled"}}},
        {"api": "http://demo-internal.team-a.svc:8000/v1"},
    ),
    (
        {"access": {"exposure": "NodeBalancer", "hostnames": ["ai.example.com"]}, "chat": {"enabled": False}},
        {"api": "https://ai.example.com:8000/v1", "caSecretName": "demo-ca"},
    ),
]


@pytest.mark.parametrize(("spec", "urls"), ENDPOINTS)
def test_endpoints(spec: dict[str, Json], urls: dict[str, str]) -> None:
    assert judge.endpoints(situation(spec)) == urls


@pytest.mark.parametrize("spec", [{}, PUBLIC])
def test_inside_and_outside_protection_needs_the_gateways_word(spec: dict[str, Json]) -> None:
    for proof in (STALE, SILENT, views.GatewayProof()):
        found = verdicts(situation(spec, gateway=proof))[C.NETWORK_PROTECTED]
        assert found.status == "False"
        assert proof.message in found.message


def test_there_is_no_endpoint_before_there_is_an_address() -> None:
    assert judge.endpoints(with_facts(situation(), "Service", "demo", address="")) == {}
    assert judge.endpoints(without(situation(), "Service", "demo")) == {}


EVERYTHING = situation()


@given(
    st.sets(st.sampled_from(sorted(EVERYTHING.children))),
    st.sets(st.sampled_from(list(Stage))),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, REFUSED]),
)
def test_ready_is_true_only_if_nothing_at_all_is_missing(
    missing: set[tuple[str, str]],
    pending: set[Stage],
    served: bool,
    current: bool,
    attached: bool,
    problem: views.Problem | None,
) -> None:
    thing = with_(
        with_linode(EVERYTHING, current=current, attached=attached, problem=problem),
        children={k: r for k, r in EVERYTHING.children.items() if k not in missing},
        pending=frozenset(pending),
        gateway=SERVED if served else STALE,
    )
    found = verdicts(thing)
    needed = {k for k in missing if k[0] in ("Deployment", "Job") or k == ("Service", "demo")}
    bad = bool(needed or pending or not served or not current or not attached or problem)
    assert found[C.READY].status == ("False" if bad else "True")
    assert (found[C.RECONCILING].status == "True") == bad


FULL = diagnosis.Finding(Reason.DiskFull, "3 GiB are needed", permanent=True)


@pytest.mark.parametrize(
    ("change", "stalled"),
    [
        ({"findings": {"fetch": FULL}}, True),
        ({"findings": {"fetch": dataclasses.replace(FULL, permanent=False)}}, False),
        ({"model": views.ModelView(failure=views.Problem(reason=Reason.HubUnreachable, message="m"))}, False),
        (
            {
                "model": views.ModelView(
                    failure=views.Problem(reason=Reason.ModelNotFound, message="m", stalled=True)
                )
            },
            True,
        ),
    ],
)
def test_a_download_that_waits_for_a_person_stalls(change: Json, stalled: bool) -> None:
    thing = with_facts(situation(), "Job", JOB, complete=False, failed=True)
    thing = with_(with_facts(thing, "Deployment", "demo-engine", replicas=0), **change)
    found = verdicts(thing)
    assert found[C.STALLED].status == ("True" if stalled else "False")
    assert found[C.RECONCILING].status == ("False" if stalled else "True")


@pytest.mark.parametrize(
    ("done", "eta", "message"),
    [
        (0, None, "0 % of 13.5 GiB"),
        (7 * 2**30, 150, "51 % of 13.5 GiB, about 2 min left"),
        (7 * 2**30, 5, "51 % of 13.5 GiB, about 1 min left"),
    ],
)
def test_a_download_tells_how_far_it_is(done: int, eta: int | None, message: str) -> None:
    progress = views.Progress(downloaded_bytes=done, total_bytes=int(13.5 * 2**30), eta_seconds=eta)
    thing = with_(with_facts(situation(), "Job", JOB, complete=False), progress=progress)
    assert verdicts(thing)[C.MODEL_CACHED].message == message


@pytest.mark.parametrize(
    ("told", "inputs", "ready", "status"),
    [
        (True, "same", 1, "True"),
        (False, "same", 1, "False"),
        (True, "other", 1, "False"),
        (True, "same", 0, "False"),
    ],
)
def test_an_annotation_that_the_deployment_controller_has_not_seen_yet_says_nothing_new_of_the_engine(
    told: bool, inputs: str, ready: int, status: str
) -> None:
    thing = with_facts(situation(), "Deployment", "demo-engine", generation=9, ready=ready)
    if inputs == "other":
        thing = with_(thing, engine_inputs="other")
    condition = v1alpha1.Condition(
        type=str(C.ENGINE_READY),
        status="True" if told else "False",
        observed_generation=thing.sandbox.metadata.generation,
        last_transition_time="2026-01-01T00:00:00Z",
        reason=Reason.EngineServing.name if told else Reason.Starting.name,
        message="m",
    )
    held = thing.sandbox.model_copy(update={"status": v1alpha1.AISandboxStatus(conditions=[condition])})
    assert verdicts(with_(thing, sandbox=held))[C.ENGINE_READY].status == status
