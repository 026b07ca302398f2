"""From the version before to this one and back, while sandboxes serve.

The operators are processes with the flags, the account and the rights that their chart gives them. A
standby of the new version is up before the old one ends, as the chart's Deployment has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import json
import pathlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import pytest

from ai_sandbox_operator.api import kinds, names
from chart import helm
from lab import admits, previous, rights
from lab.cluster.lab import Lab
from lab.observer import ClosedObserver
from lab.operator_process import OPERATOR_FOLDER, OperatorProcess
from lab.world import World
from results import Results

Object = dict[str, Any]

#: Seventeen engines at most.
POOLS = {"g2-gpu-rtx4000a4-m": 5, "g6-standard-8": 5}
CIDR = "203.0.113.0/24"
MODEL = {"id": "Qwen/Qwen3-0.6B"}
PUBLIC = {"exposure": "NodeBalancer", "allowlist": [{"cidr": CIDR}]}
KEYS = [{"name": "default"}, {"name": "notebooks"}, {"name": "ci"}]
SHAPES: dict[str, Object] = {
    "plain": {},
    "public": {"access": PUBLIC},
    "no-chat": {"chat": {"enabled": False}},
    "suspended": {"access": PUBLIC, "lifecycle": {"state": "Suspended"}},
    "keys": {"access": {"allowlist": [{"cidr": CIDR}], "apiKeys": KEYS}},
}
VALUES: Object = {"linode": {"checkIntervalSeconds": 2}}
#: What CHANGELOG.md says of the newest version where its upgrade rolls pods.
ANNOUNCEMENTS = {"gateway": "An upgrade rolls the gateways.", "chat": "An upgrade restarts the chats."}
#: Flags of the chart that the lab gives itself.
_LAB = (
    "--linode-url",
    "--linode-token-file",
    "--health-port",
    "--log-format",
    "--hub-endpoint",
    "--lease-namespace",
)


@dataclasses.dataclass
class Release:
    """What Helm installed, and the operator that runs by it."""

    world: World
    helm: helm.Helm

    async def run(self, verb: str, *arguments: str, **values: Any) -> None:
        """Helm, until the operator's pods are ready."""
        flags = ("--namespace", self.world.home, "--wait", "--timeout", "90s")
        await asyncio.to_thread(
            self.helm.run,
            verb,
            helm.RELEASE,
            *arguments,
            *flags,
            values={**VALUES, **values} if values else None,
        )

    async def replace(self, code: pathlib.Path) -> float:
        """Start the operator of the release as it is now, then end the one before; seconds between their work."""
        world, before = self.world, self.world.operator
        deployment = await world.api.get(kinds.DEPLOYMENT, world.home, f"{helm.RELEASE}-ai-sandbox")
        pod = deployment["spec"]["template"]["spec"]
        token = await rights.token(world.api, world.home, pod["serviceAccountName"])
        given = pod["containers"][0]["args"][1:]
        after = OperatorProcess(
            kubeconfig=rights.kubeconfig(world.folder / "release.kubeconfig", world.proxy.url, None, token),
            linode_url=world.linode.url,
            log_path=world.folder / f"operator-{time.monotonic_ns()}.log",
            lease_namespace=world.home,
            pod_proxy=world.lab.pod_proxy,
            hub_endpoint=world.hub_url,
            flags=[flag for flag in given if not flag.startswith(_LAB)],
            code=code,
        )
        await after.start(wait=False)
        world.operator = after
        await self._says(after, "serving health and metrics")
        began = time.monotonic()
        assert await before.stop() == 0
        await self._says(after, "reconciling")
        return time.monotonic() - began

    async def _says(self, operator: OperatorProcess, message: str) -> None:
        async def said() -> bool:
            return f'"message": "{message}"' in operator.log()

        await self.world.eventually(said, what=f"'{message}' in {operator.log()[-2000:]}")


@contextlib.asynccontextmanager
async def releases(folder: pathlib.Path, newest: helm.Helm) -> AsyncIterator[Release]:
    """A control plane without the CRD, which the chart brings, and a world whose operator Helm is to install."""
    with Lab(pools=POOLS) as lab:
        lab.plane.kubectl("delete", "crd", f"{names.PLURAL}.{names.GROUP}", "--wait")
        installer = dataclasses.replace(newest, kubeconfig=lab.plane.kubeconfig)
        async with World(lab, folder, apart=True, clusterwide=True) as world:
            yield Release(world, installer)
            assert world.linode.violations == []
            assert world.proxy.errors == []


@dataclasses.dataclass(frozen=True)
class Picture:
    """What must be the same afterwards.

    Attributes:
        told: status and reason of Ready, by sandbox.
        workloads: template and generation of each Deployment and Job.
        pods: UID and restarts of each container.
        kept: UID of everything, the values of keys, passwords and certificates, and what Services say. What
            policies and gateways' configurations let through is the observers' to judge.
        linode: firewalls and NodeBalancers.
    """

    told: dict[str, tuple[str, str]]
    workloads: dict[str, tuple[int, Object]]
    pods: dict[str, tuple[str, tuple[int, ...]]]
    kept: dict[str, object]
    linode: object

    @classmethod
    async def taken(cls, world: World) -> Self:
        """The state now, less what the changelog says to be rolled."""
        rolled = announced()

        async def items(kind: kinds.Kind) -> list[Object]:
            return await world.api.list_all(kind, world.namespace)

        def named(item: Object) -> str:
            return str(item["metadata"]["name"])

        workloads: dict[str, tuple[int, Object]] = {}
        kept: dict[str, object] = {}
        for kind in kinds.CHILDREN:
            for item in await items(kind):
                key = f"{kind.kind}/{named(item)}"
                values = {} if key.endswith("-gateway") else item.get("data")
                kept[key] = (item["metadata"]["uid"], values)
                if kind is kinds.SERVICE:
                    kept[key] = (item["metadata"]["uid"], item["metadata"].get("annotations"), item["spec"])
                if kind in (kinds.DEPLOYMENT, kinds.JOB) and component(item) not in rolled:
                    workloads[key] = (item["metadata"].get("generation", 0), item["spec"]["template"])
        now = world.linode.state.snapshot()
        return cls(
            told={named(item): ready(item) for item in await items(kinds.SANDBOX)},
            workloads=workloads,
            pods={
                named(pod): (
                    pod["metadata"]["uid"],
                    tuple(c["restartCount"] for c in pod["status"].get("containerStatuses", ())),
                )
                for pod in await items(kinds.POD)
                if component(pod) not in rolled
            },
            kept=kept,
            linode=(now.firewalls, now.nodebalancers),
        )


def component(item: Mapping[str, Any]) -> str:
    """Which part of a sandbox an object is of."""
    return str(item["metadata"].get("labels", {}).get(names.LABEL_COMPONENT, ""))


def announced() -> set[str]:
    """Components of which the changelog says that this upgrade rolls their pods. An engine never is one (I5)."""
    newest = (helm.ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    return {name for name, words in ANNOUNCEMENTS.items() if words in " ".join(newest.split())}


def ready(sandbox: Mapping[str, Any]) -> tuple[str, str]:
    """Status and reason of the condition Ready."""
    for condition in (sandbox.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            return condition["status"], condition["reason"]
    return "Unknown", ""


@dataclasses.dataclass(frozen=True)
class Step:
    """One way of changing the version: what Helm is told, and the operator that then runs."""

    name: str
    verb: str
    arguments: tuple[str, ...]
    values: Mapping[str, Any]
    code: pathlib.Path


async def changes(release: Release, step: Step) -> str:
    """Take the step and prove that nobody who uses a sandbox has noticed; what was measured."""
    world = release.world
    before = await Picture.taken(world)
    mark, at_linode = len(world.proxy.journal), world.linode.journal.last
    await release.run(step.verb, *step.arguments, **step.values)
    gap = await release.replace(step.code)
    await world.quiet(5.0, timeout=60)  # more than two checks of every firewall
    after = await Picture.taken(world)

    differing = [
        changed(key, template, after.workloads.get(key, (0, {}))[1])
        for key, (generation, template) in before.workloads.items()
        if after.workloads.get(key) != (generation, template)
    ]
    assert not differing, "\n".join(differing)
    assert after.pods == before.pods
    assert after.kept == before.kept
    assert after.linode == before.linode
    assert [str(entry) for entry in world.linode.journal.mutations(at_linode)] == []
    assert after.told == before.told
    # A sandbox counts as ready only when its gateways are rolled out.
    rolling = {("False", "Starting")} if announced() else set()
    for exchange in world.proxy.writes(mark):
        if exchange.path.endswith("/status") and exchange.plural == names.PLURAL:
            name = exchange.path.split("/")[-2]
            assert ready(exchange.answer) in {before.told[name], *rolling}, await world.describe()
    written, tried = world.proxy.writes(mark), world.proxy.attempts(mark)
    return f"{gap:.1f} s without a leader; {len(tried)} requests to write, {len(written)} changed an object"


def changed(key: str, before: Object, after: Object) -> str:
    """For people: what a version renders differently, and what to do."""
    first, second = (json.dumps(t, indent=1, sort_keys=True).splitlines() for t in (before, after))
    lines = difflib.unified_diff(first, second, "before", "after", n=1, lineterm="")
    return (
        f"{key} is another one after the step. An engine never may be (I5); for gateways and chats CHANGELOG.md "
        f"must say {' or '.join(ANNOUNCEMENTS.values())}\n" + "\n".join(lines)
    )


async def settled(world: World, name: str) -> None:
    """Wait until a sandbox is all that its shape lets it be."""
    if name.startswith("suspended"):
        await world.until(name, "ChatReady", timeout=120)
        await world.until(name, "NetworkProtected", timeout=60)
    else:
        await world.until(name, "Ready", timeout=120)


async def serving(release: Release, older: previous.Previous, count: int) -> list[ClosedObserver]:
    """Install the version before, and bring up sandboxes of every shape; who watches that they stay closed."""
    await release.run("install", str(older.chart), "--create-namespace", **VALUES)
    await release.replace(older.code)
    world = release.world
    shapes = [f"{shape}-{index}" for index in range(count) for shape in SHAPES][:count]
    for start in range(0, count, len(SHAPES)):
        wave = shapes[start : start + len(SHAPES)]
        for name in wave:
            await world.apply(name, {"model": MODEL, **SHAPES[name.rpartition("-")[0]]})
        for name in wave:
            await settled(world, name)
    await world.quiet(3.0)
    observers = [ClosedObserver(world, name, admits.samples(CIDR)) for name in shapes[: len(SHAPES)]]
    for observer in observers:
        await observer.look()
    return observers


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.slow)])
async def test_nobody_who_uses_a_sandbox_notices_an_upgrade_or_the_way_back(
    newest: helm.Helm, tmp_path: pathlib.Path, results: Results, count: int
) -> None:
    try:
        older = previous.extract(tmp_path / "previous")
    except previous.Absent as absent:
        pytest.skip(str(absent))
    steps = (
        Step("upgrade", "upgrade", (str(helm.CHART),), {"image": {"tag": "next"}}, OPERATOR_FOLDER),
        Step("back", "rollback", ("1",), {}, older.code),
    )
    but = f" but of {' and '.join(sorted(announced()))}" if announced() else ""
    async with releases(tmp_path, newest) as release:
        observers = await serving(release, older, count)
        for step in steps:
            measured = await changes(release, step)
            for observer in observers:
                await observer.look()
                observer.assert_closed()
            results.row(
                "upgrade",
                {
                    "Step": step.name,
                    "Sandboxes": f"{count}: {', '.join(SHAPES)}",
                    "Outcome": f"no pod{but} replaced or restarted, Ready throughout{' or rolling' if but else ''}, "
                    "closed at every write, nothing written at Linode",
                    "Measured": measured,
                },
            )
