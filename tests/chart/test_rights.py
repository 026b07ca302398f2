"""The operator lives on the rights that the chart gives it, and needs each of them."""

from __future__ import annotations

import asyncio
import copy
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds, names, permissions
from chart import account, helm
from controlplane import steps
from lab import cert_manager
from lab.cluster.lab import Lab
from lab.cluster.nodes.behaviour import Behaviour
from lab.engine.script import Script
from lab.world import World
from results import Results

SCOPES: dict[str, dict[str, Any]] = {
    "whole cluster": {},
    "one namespace": {"watch": {"namespaces": [account.SERVED]}},
}
NAME = "life"
POD = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.com/a:1"}]}
ISSUED = {"mode": "CertManager", "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}


def table(*scopes: permissions.Scope) -> set[account.Use]:
    """Every right of the table, less those that no cluster of tests asks for."""
    return {
        (p.kind.group, p.resource, verb)
        for scope in scopes
        for p in permissions.of(scope)
        for verb in p.verbs
        if verb not in p.unobserved
    }


def used(world: World) -> set[account.Use]:
    """What was asked for and granted."""
    granted = [e for e in world.proxy.journal if e.status not in (None, 401, 403)]
    return {use for exchange in granted for use in account.uses(exchange)}


def refused(world: World) -> list[str]:
    return [str(e) for e in world.proxy.journal if e.status in (401, 403)]


def _nobody(_stage: str) -> None:
    pass


async def live(world: World, stage: Callable[[str], None] = _nobody) -> None:
    """One life that takes every way through the operator that asks for a right of its own.

    `stage` is told what comes next, once all before has settled.
    """
    stage("the operator starts and makes a public sandbox")
    broken = world.lab.nodes.behave(
        Behaviour(engine=Script(fail="kv-cache-too-small")), component="engine", namespace=world.namespace
    )
    access = {"exposure": "NodeBalancer", "allowlist": [{"cidr": steps.ALLOWED}]}
    await world.apply(NAME, {"access": access})
    await world.until(NAME, "EngineReady", "False", reason="KVCacheTooSmall", timeout=60)
    world.lab.nodes.forget(broken)
    await world.until(NAME, "Ready", timeout=90)
    # A narrower list, with names: the gateways' pods are hurried, the certificate is replaced.
    stage("its allowlist is narrowed")
    narrow = {"allowlist": [{"cidr": "203.0.113.9/32"}], "hostnames": ["ai.example.com"]}
    await world.edit(NAME, {"access": narrow})
    await world.until(NAME, "Ready", timeout=60)
    stage("children lost their labels")
    await unlabel(world)
    stage("cert-manager issues the certificate")
    await certificate(world)
    stage("objects of an earlier release are left over")
    await leftovers(world)
    stage("a volume waits for its storage class")
    await waiting(world)
    stage("chat and public address are switched off")
    await world.edit(NAME, {"chat": {"enabled": False}, "access": {"exposure": "ClusterIP"}})

    async def without_chat() -> bool:
        return await world.get(kinds.DEPLOYMENT, f"{NAME}-chat") is None

    await world.eventually(without_chat, what="the end of the chat")
    await world.until(NAME, "Ready", timeout=60)
    stage("the sandbox is deleted")
    await world.delete(NAME)
    await world.gone(NAME)


async def unlabel(world: World) -> None:
    """Take every child out of the watch's sight: the operator finds each by its name and labels it anew.

    A volume that outlives its sandbox has no owner, so its labels are all that says whose it is.
    """
    children = await world.children(NAME)
    children.pop(("PersistentVolumeClaim", f"{NAME}-chat"))
    for kind, name in children:
        patch = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}
        await world.api.merge_patch(kinds.BY_NAME[kind], world.namespace, name, patch)

    async def restored() -> bool:
        return children.keys() <= (await world.children(NAME)).keys()

    await world.eventually(restored, timeout=60, what="the labels of all children")
    await world.until(NAME, "Ready", timeout=60)


async def leftovers(world: World) -> None:
    """What an earlier release made and this one does not know goes away."""
    owner = (await world.sandbox(NAME))["metadata"]["uid"]
    spec: dict[kinds.Kind, dict[str, Any]] = {
        kinds.SECRET: {"stringData": {}},
        kinds.POD_DISRUPTION_BUDGET: {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
        kinds.JOB: {"spec": {"suspend": True, "template": {"spec": POD}}},
    }
    for kind, rest in spec.items():
        metadata = {
            "name": f"{NAME}-leftover",
            "namespace": world.namespace,
            "labels": names.labels(NAME, "gateway"),
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": NAME,
                    "uid": owner,
                    "controller": True,
                }
            ],
        }
        manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **rest}
        await world.api.create(kind, manifest)

    async def gone() -> bool:
        return all([await world.get(kind, f"{NAME}-leftover") is None for kind in spec])

    await world.eventually(gone, timeout=60, what="the end of what is left over")


async def waiting(world: World) -> None:
    """A second sandbox gets no volume, and the operator looks up why."""
    await world.apply(f"{NAME}-2", {"storage": {"className": "absent"}})

    async def looked() -> bool:
        return ("", "events", "list") in used(world)

    await world.eventually(looked, timeout=40, what="a look at the events of a volume that waits")
    await world.delete(f"{NAME}-2")
    await world.gone(f"{NAME}-2")


async def certificate(world: World) -> None:
    """Have cert-manager issue, and then the operator again."""
    await cert_manager.install(world.api)
    await world.edit(NAME, {"access": {"tls": ISSUED}})

    async def asked() -> dict[str, Any] | None:
        return await world.get(kinds.CERTIFICATE, f"{NAME}-gateway")

    found = await world.eventually(asked, timeout=60, what="the Certificate")
    await cert_manager.issue(world.api, found)
    await world.until(NAME, "SpecValid", timeout=60)
    await world.edit(NAME, {"access": {"tls": {"mode": "SelfSigned", "issuerRef": None}}})

    async def withdrawn() -> bool:
        return await asked() is None

    await world.eventually(withdrawn, what="the end of the Certificate")
    await cert_manager.uninstall(world.api)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_whole_life_needs_every_right_of_the_table_and_no_other(
    lab: Lab, newest: helm.Helm, tmp_path: pathlib.Path, scope: str, results: Results
) -> None:
    manifests = newest.template(SCOPES[scope])
    wide = not SCOPES[scope]
    async with account.world(lab, tmp_path, manifests, clusterwide=wide, flags=steps.FLAGS) as world:
        await world.operator.start()
        await live(world)
        assert refused(world) == []
        wanted = table("sandboxes", "cluster", "own")
        assert sorted(used(world) - wanted) == []
        assert sorted(wanted - used(world)) == []
        for permission in permissions.PERMISSIONS:
            for verb in permission.unobserved:
                right = (permission.kind.group, permission.resource, verb)
                assert right not in used(world)
                results.row("rights", row(right, "nothing is refused: only some clusters ask for it"))


RIGHTS = sorted(table("sandboxes", "cluster", "own"))
#: One of each scope in the everyday run; test_rights_sweep.py takes all others.
SAMPLE = {("", "secrets", "create"), ("", "nodes", "list"), ("coordination.k8s.io", "leases", "update")}


def without(manifests: list[helm.Manifest], right: account.Use) -> list[helm.Manifest]:
    """The chart's objects, less one right of the operator."""
    group, resource, verb = right
    result, removed = copy.deepcopy(manifests), 0
    for role in result:
        for rule in role.get("rules", ()):
            people = role["metadata"]["name"].endswith(("-view", "-edit"))
            if not people and (rule["apiGroups"], rule["resources"]) == ([group], [resource]):
                removed += verb in rule["verbs"]
                rule["verbs"] = [other for other in rule["verbs"] if other != verb] or ["none"]
    assert removed == 1
    return result


_PLACES: dict[permissions.Scope, str] = {
    "sandboxes": "namespaces with sandboxes",
    "cluster": "the cluster",
    "own": "the operator's namespace",
}


def row(right: account.Use, without_it: str) -> dict[str, str]:
    """What the docs say of a right."""
    group, resource, verb = right
    (scope,) = {
        p.scope
        for p in permissions.PERMISSIONS
        if (p.kind.group, p.resource) == (group, resource) and verb in p.verbs
    }
    full = ".".join(part for part in (resource.split("/")[0], group) if part)
    shown = "/".join([full, *resource.split("/")[1:]])
    return {"Scope": _PLACES[scope], "Resource": shown, "Verb": verb, "Without it": without_it}


#: When these are asked for first depends on how fast others were.
_SOME_TIME = {("", "events", "get"), ("", "events", "patch"), ("", "pods", "patch")}


async def refused_at(lab: Lab, newest: helm.Helm, folder: pathlib.Path, right: account.Use) -> str:
    """Live without a right until something is refused; what went on then.

    Raises:
        AssertionError: nothing was refused, or something else.
    """
    manifests = without(newest.template(), right)
    async with account.world(lab, folder, manifests, clusterwide=True, flags=steps.FLAGS) as world:
        stages: list[tuple[float, str]] = []
        await world.operator.start(wait=False)
        living = asyncio.create_task(live(world, lambda name: stages.append((time.monotonic(), name))))
        try:
            while not living.done() and not refused(world):
                await asyncio.sleep(0.1)
        finally:
            living.cancel()
            (ended,) = await asyncio.gather(living, return_exceptions=True)
            await cert_manager.uninstall(world.api)
        if isinstance(ended, Exception):
            raise AssertionError("the life ended before anything was refused") from ended
        denied = [e for e in world.proxy.journal if e.status == 403]
        # A refused POST or PATCH does not say whether the object would have been new.
        assert {use[:2] for e in denied for use in account.uses(e)} == {right[:2]}
        if right in _SOME_TIME:
            return "it is edited"
        return [name for began, name in stages if began <= denied[0].at][-1]


@pytest.mark.parametrize("right", sorted(SAMPLE), ids="-".join)
async def test_without_a_right_the_same_life_is_refused_that_very_request(
    lab: Lab, newest: helm.Helm, tmp_path: pathlib.Path, right: account.Use, results: Results
) -> None:
    stage = await refused_at(lab, newest, tmp_path, right)
    results.row("rights", row(right, f"refused when {stage}; shown in every run"))
