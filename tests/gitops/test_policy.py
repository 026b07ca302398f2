"""The admission policies: who may expose a sandbox, what a sandbox may ask for, and the operator under them."""

from __future__ import annotations

import json
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names
from controlplane import steps
from gitops import policies
from gitops.policies import PUBLIC, SMALL, TEAM, access, ask, command
from lab.cluster.controlplane import ControlPlane
from lab.cluster.lab import CRDS, Lab
from lab.world import World
from results import Results

OFFICE = "203.0.113.0/24"
OLDEST = "1.34"
#: As long as a list may be to be compared, and one more.
COMPARABLE = 300


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with the policies."""
    with ControlPlane(crds=CRDS, scheduler=False) as made, policies.installed(made):
        yield made


def stand(plane: ControlPlane, name: str, spec: dict[str, Any]) -> None:
    """An administrator makes the sandbox anew."""
    plane.kubectl("delete", "aisb", name, "--namespace", TEAM, "--ignore-not-found")
    assert ask(plane, "administrator", name, spec) == ""


#: Before, after, and whether the verb is needed.
CHANGES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], bool]] = {
    "a new sandbox inside the cluster": (None, access(exposure="ClusterIP"), False),
    "a new public sandbox": (None, access(OFFICE), True),
    "a new public sandbox open to nobody": (None, access(), True),
    "to public": (access(OFFICE, exposure="ClusterIP"), access(OFFICE), True),
    "from public": (access(OFFICE), access(OFFICE, exposure="ClusterIP"), False),
    "a wider list inside the cluster": (
        access(exposure="ClusterIP"),
        access("0.0.0.0/0", exposure="ClusterIP"),
        False,
    ),
    "a network more": (access(OFFICE), access(OFFICE, "198.51.100.0/24"), True),
    "a network less": (access(OFFICE, "198.51.100.0/24"), access(OFFICE), False),
    "an empty list": (access(OFFICE), access(), False),
    "a larger network": (access(OFFICE), access("203.0.112.0/23"), True),
    "a smaller network": (access(OFFICE), access("203.0.113.128/25", "203.0.113.4/32"), False),
    "a smaller network of IPv6": (access("2001:db8::/32"), access("2001:db8:1::/48"), False),
    "IPv6 where IPv4 was": (access("0.0.0.0/0"), access("::/0"), True),
    "other words and order": (
        access(OFFICE, "198.51.100.0/24"),
        access("198.51.100.0/24", {"cidr": OFFICE, "description": "y"}),
        False,
    ),
    "a use more": (
        access({"cidr": OFFICE, "to": ["API"]}),
        access({"cidr": OFFICE, "to": ["Chat", "API"]}),
        True,
    ),
    "every use, by saying none": (access({"cidr": OFFICE, "to": ["API"]}), access({"cidr": OFFICE}), True),
    "the same uses, spelled out": (
        access({"cidr": OFFICE}),
        access({"cidr": OFFICE, "to": ["API", "Chat"]}),
        False,
    ),
    "a use less": (access(OFFICE), access({"cidr": OFFICE, "to": ["Chat"]}), False),
    "another use in a smaller network": (
        access({"cidr": OFFICE, "to": ["API"]}),
        access({"cidr": "203.0.113.4/32", "to": ["Chat"]}),
        True,
    ),
    "TLS off": (access(OFFICE), access(OFFICE, tls={"mode": "Disabled"}), True),
    "TLS on": (access(OFFICE, tls={"mode": "Disabled"}), access(OFFICE), False),
    "keys and names": (
        access(OFFICE),
        access(OFFICE, apiKeys=[{"name": "second"}], hostnames=["ai.example.com"]),
        False,
    ),
    "suspended": (access(OFFICE), {**access(OFFICE), "lifecycle": {"state": "Suspended"}}, False),
    "resumed": ({**access(OFFICE), "lifecycle": {"state": "Suspended"}}, access(OFFICE), False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_opens_to_the_internet_needs_the_verb_and_nothing_else_does(
    plane: ControlPlane, what: str, results: Results
) -> None:
    before, after, needed = CHANGES[what]
    for person in ("member", "lead", "administrator"):
        name = re.sub(r"\W+", "-", what.lower())[:30] + f"-{person[0]}"
        if before is not None:
            stand(plane, name, before)
        told = ask(plane, person, name, after)
        if person != "member" or not needed:
            assert told == "", (person, told)
            continue
        assert "ai-sandbox-expose" in told
        assert "mia lacks the verb expose on aisandboxes.sandbox.linode.com in namespace team-a: " in told
        assert "ask an administrator for a RoleBinding to the ClusterRole ai-sandbox-expose" in told
    row = {"Check": f"policy `expose`: {what}", "As": "may edit sandboxes, lacks the verb"}
    results.row("gitops", {**row, "Outcome": "refused" if needed else "accepted"})


@pytest.mark.parametrize("count", [COMPARABLE, COMPARABLE + 1, 1000])
def test_a_long_list_never_exceeds_what_the_api_server_lets_an_expression_cost(
    plane: ControlPlane, count: int
) -> None:
    def entries(prefix: int, changed: int) -> dict[str, Any]:
        text = [f"2001:db8:{i:x}:fff0::/{prefix if i < changed else 64}" for i in range(count)]
        return access(*({"cidr": cidr, "description": "d" * 100} for cidr in text))

    stand(plane, "long", entries(64, 0))
    told = ask(plane, "member", "long", entries(72, 10_000 // count))
    if count <= COMPARABLE:
        assert told == ""
    else:
        assert f"a list of more than {COMPARABLE} networks counts as wider whenever it changes" in told
    assert "lacks the verb expose" in ask(plane, "member", "long", entries(60, 10_000 // count))
    assert ask(plane, "lead", "long", entries(60, count)) == ""
    finalizer = ("--type=merge", "--patch", '{"metadata":{"finalizers":["example.com/a"]}}')
    assert command(plane, "member", "patch", "aisb", "long", "--namespace", TEAM, *finalizer) == ""
    clear = ("--type=merge", "--patch", '{"metadata":{"finalizers":null}}')
    assert command(plane, "member", "patch", "aisb", "long", "--namespace", TEAM, *clear) == ""
    assert ask(plane, "member", "long", access()) == "", "closing is always allowed"


def test_others_edit_a_public_sandbox_and_the_owner_of_status_is_never_asked(plane: ControlPlane) -> None:
    stand(plane, "edited", access(OFFICE))
    in_team = ("--namespace", TEAM)
    for patch in (
        {"spec": {"model": {"id": "Qwen/Qwen3-4B"}}},
        {"metadata": {"finalizers": ["example.com/a"]}},
    ):
        merge = ("--type=merge", "--patch", json.dumps(patch))
        assert command(plane, "member", "patch", "aisb", "edited", *in_team, *merge) == ""
    status = ("--subresource=status", "--type=merge", "--patch", '{"status":{"observedGeneration":7}}')
    assert plane.kubectl_result("patch", "aisb", "edited", *in_team, *status).returncode == 0
    clear = ("--type=merge", "--patch", '{"metadata":{"finalizers":null}}')
    assert command(plane, "member", "patch", "aisb", "edited", *in_team, *clear) == ""
    assert command(plane, "member", "delete", "aisb", "edited", *in_team) == ""


def test_kubectl_says_who_may_expose(plane: ControlPlane) -> None:
    def may(person: str) -> str:
        question = ("auth", "can-i", "expose", f"{names.PLURAL}.{names.GROUP}", "--namespace", TEAM)
        return plane.kubectl_result(*question, *policies.identity(person)).stdout.strip()

    assert [may(person) for person in ("member", "lead", "administrator")] == ["no", "yes", "yes"]


BOUNDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "one of the plans": (TEAM, {"plan": "g2-gpu-rtx4000a2-s", "count": 2}, ""),
    "another plan": (
        TEAM,
        {"plan": "g2-gpu-rtx4000a1-s"},
        "spec.gpu.plan must be one of g2-gpu-rtx4000a1-m g2-gpu-rtx4000a2-s in namespace team-a: name one of them",
    ),
    "no plan": (TEAM, {}, "spec.gpu.plan must be one of g2-gpu-rtx4000a1-m g2-gpu-rtx4000a2-s"),
    "another plan by a node label": (
        TEAM,
        {
            "plan": "g2-gpu-rtx4000a1-m",
            "nodeSelector": {"node.kubernetes.io/instance-type": "g3-gpu-rtxpro6000-blackwell-2"},
        },
        "spec.gpu.nodeSelector: Invalid value: must not have the label node.kubernetes.io/instance-type",
    ),
    "too many GPUs": (
        TEAM,
        {"plan": "g2-gpu-rtx4000a2-s", "count": 4},
        "spec.gpu.count must be at most 2 in namespace team-a: ask for fewer GPUs",
    ),
    "the bounds of all namespaces": (
        "team-b",
        {"plan": "g2-gpu-rtx4000a1-s", "count": 2},
        "spec.gpu.count must be at most 1 in namespace team-b",
    ),
    "within the bounds of all namespaces": ("team-b", {"plan": "g2-gpu-rtx4000a1-s"}, ""),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_plans_and_gpus_are_bounded_by_namespace(plane: ControlPlane, what: str, results: Results) -> None:
    namespace, gpu, refusal = BOUNDS[what]
    told = ask(plane, "administrator", "bounded", {"gpu": gpu}, "--dry-run=server", namespace=namespace)
    assert refusal in told if refusal else told == ""
    row = {"Check": f"policy `bounds`: {what}", "As": "administrator"}
    results.row("gitops", {**row, "Outcome": "refused" if refusal else "accepted"})


def test_lower_bounds_stop_nothing_that_runs_and_wrong_ones_are_named(plane: ControlPlane) -> None:
    def set_bounds(data: dict[str, str | None]) -> None:
        patch = ("--type=merge", "--patch", json.dumps({"data": data}))
        plane.kubectl("patch", "configmap", "ai-sandbox-bounds", "--namespace", policies.SYSTEM, *patch)

    stand(plane, "runs", {"gpu": {"plan": "g2-gpu-rtx4000a2-s", "count": 2}})
    larger = {"gpu": {"plan": "g2-gpu-rtx4000a2-s", "count": 2}}
    try:
        set_bounds({"team-a.maxGPUs": "1"})
        _eventually(lambda: "at most 1" in ask(plane, "member", "fresh", larger, "--dry-run=server"))
        suspended = {**larger, "lifecycle": {"state": "Suspended"}}
        assert ask(plane, "member", "runs", suspended) == ""
        set_bounds({"team-a.maxGPUs": "two"})
        wrong = "key team-a.maxGPUs of ConfigMap ai-sandbox-bounds in namespace ai-sandbox-system must be a number"
        _eventually(lambda: wrong in ask(plane, "member", "fresh", larger, "--dry-run=server"))
        allowed = {"gpu": {"plan": "g2-gpu-rtx4000a2-s"}}
        set_bounds({"team-a.maxGPUs": "2", "team-a.plans": "g2-gpu-rtx4000a2-s  g2-gpu-rtx4000a1-m\n"})
        _eventually(lambda: ask(plane, "member", "fresh", allowed, "--dry-run=server") == "")
        assert "must be one of" in ask(plane, "member", "fresh", {}, "--dry-run=server")
        set_bounds({"team-a.plans": ""})
        none = "spec.gpu.plan must be one of none in namespace team-a"
        _eventually(lambda: none in ask(plane, "member", "fresh", allowed, "--dry-run=server"))
        set_bounds({"team-a.maxGPUs": None, "maxGPUs": None, "plans": None, "team-a.plans": None})
        _eventually(lambda: ask(plane, "member", "fresh", {"gpu": {"count": 8}}, "--dry-run=server") == "")
    finally:
        example = str(policies.EXAMPLES / "bounds.yaml")
        plane.kubectl("apply", "--server-side", "--force-conflicts", "--filename", example)
        _eventually(
            lambda: "at most 2" in ask(plane, "member", "fresh", {"gpu": {"count": 8}}, "--dry-run=server")
        )


def _eventually(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_api_servers_type_check_finds_nothing(plane: ControlPlane) -> None:
    assert checked(plane) == [{}, {}]


def checked(plane: ControlPlane) -> list[Any]:
    """What the controller manager found wrong with the types of each policy."""

    def found() -> list[Any]:
        items = json.loads(plane.kubectl("get", "validatingadmissionpolicies", "--output", "json"))["items"]
        return [item.get("status", {}).get("typeChecking") for item in items]

    _eventually(lambda: len(found()) == 2 and None not in found())
    return found()


def test_both_policies_judge_the_same_on_the_oldest_version_that_the_api_server_emulates(
    results: Results,
) -> None:
    with ControlPlane(crds=CRDS, scheduler=False, emulate=OLDEST) as plane, policies.installed(plane):
        assert checked(plane) == [{}, {}]
        for number, (what, (before, after, needed)) in enumerate(CHANGES.items()):
            if before is not None:
                stand(plane, f"old-{number}", before)
            told = ask(plane, "member", f"old-{number}", after, "--dry-run=server")
            assert ("lacks the verb expose" in told) if needed else (told == ""), (what, told)
        for what, (namespace, gpu, refusal) in BOUNDS.items():
            told = ask(plane, "administrator", "b", {"gpu": gpu}, "--dry-run=server", namespace=namespace)
            assert refusal in told if refusal else told == "", (what, told)
    row = {"Check": "both policies, every row above", "As": f"Kubernetes {OLDEST} (emulated)"}
    results.row("gitops", {**row, "Outcome": "the same; the type check finds nothing"})


#: First Kubernetes release with each function (k8s.io/apiserver: pkg/cel/library, pkg/cel/environment).
_FUNCTIONS = {
    "size": 25, "matches": 25, "all": 25, "exists": 25, "filter": 25, "map": 25, "has": 25, "split": 25, "int": 25,
    "join": 25, "trim": 25,
    "group": 27, "resource": 27, "namespace": 27, "name": 27, "check": 27, "allowed": 27,
    "isCIDR": 30, "cidr": 30, "containsCIDR": 30,
}  # fmt: skip


def test_the_policies_use_only_functions_that_a_server_of_the_floor_has() -> None:
    found = policies.expressions()
    assert len(found) > 20
    for text in found:
        code = re.sub(r"\"[^\"]*\"|'[^']*'", "''", text)
        assert set(re.findall(r"([A-Za-z_]\w*)\(", code)) <= set(_FUNCTIONS), text
        assert "?." not in code, text
    assert max(_FUNCTIONS.values()) <= 30


async def test_a_sandbox_lives_a_whole_life_under_the_policies(
    lab: Lab, tmp_path: pathlib.Path, results: Results
) -> None:
    """The operator has the chart's rights, so not the verb: its own writes must never ask for it."""
    with policies.installed(lab.plane):
        async with World(lab, tmp_path, operator={"flags": steps.FLAGS}) as world:
            # In this namespace the bounds of all hold, and they can be gone.
            lab.plane.kubectl("delete", "configmap", "ai-sandbox-bounds", "--namespace", policies.SYSTEM)
            await world.operator.start()
            await world.apply("life", {**SMALL, **PUBLIC})
            await world.until("life", "Ready", timeout=90)
            at = await steps.placed(world, "life")
            await world.edit("life", {"access": {"allowlist": [{"cidr": "203.0.113.0/25"}]}})
            await steps.placed(world, "life")
            await world.edit("life", {"lifecycle": {"state": "Suspended"}})
            await world.until("life", "Ready", "False", reason="Suspended", timeout=60)
            held = await world.sandbox("life")
            assert held["metadata"]["finalizers"] == [names.FINALIZER]
            await world.delete("life")
            await world.gone("life", timeout=60)
            assert at.firewall not in world.linode.state.firewalls
            assert await world.get(kinds.SERVICE, "life") is None
            assert [str(e) for e in world.proxy.journal if e.status == 403] == []
    row = {
        "Check": "a whole life of a public sandbox under both policies",
        "As": "the operator, without the verb",
    }
    results.row("gitops", {**row, "Outcome": "nothing is refused"})
