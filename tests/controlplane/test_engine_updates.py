"""Every change of the engine on one GPU ends ready or rolled back (I2, I4, I5, I8), also with the operator killed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from controlplane import drift, steps
from lab.cluster.lab import Lab
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.engine_observer import EngineObserver
from lab.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = "u"
#: Seconds for an image that cannot be pulled and for a pod that no node takes; ten minutes in a cluster.
PATIENCE = 3.0
FLAGS = ("--no-leader-elect", "--engine-update-patience", str(PATIENCE))
RELEASE = "vllm/vllm-openai:v0.33.0"
Spec = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One change and how it ends.

    Attributes:
        spec: what the user applies over the empty spec.
        runs: image or argument of the pods that misbehave.
        does: and how.
        reason: of EngineReady at the end; its status is True only for EngineServing.
        says: what its message names.
    """

    spec: Spec
    runs: str = ""
    does: Behaviour = NORMAL
    reason: str
    says: str = ""


REFUSES = "usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --no-such-flag"
TOO_BIG = (
    "(EngineCore pid=211) ERROR core.py:1102] ValueError: No available memory for the cache blocks. Try "
    "increasing `gpu_memory_utilization` when initializing the engine."
)
OUTCOMES: dict[str, Case] = {
    "another image": Case(spec={"engine": {"image": "registry.example/engine:2"}}, reason="EngineServing"),
    "other arguments": Case(spec={"engine": {"extraArgs": ["--seed", "7"]}}, reason="EngineServing"),
    "another model": Case(spec={"model": {"id": "example/other"}}, reason="EngineServing"),
    "an image that does not exist": Case(
        spec={"engine": {"image": "registry.example/engine:missing"}},
        runs="registry.example/engine:missing",
        does=Behaviour("image-pull", message="manifest for registry.example/engine:missing not found"),
        reason="RolledBack",
        says="registry.example/engine:missing",
    ),
    "an argument that the engine does not know": Case(
        spec={"engine": {"extraArgs": ["--no-such-flag"]}},
        runs="--no-such-flag",
        does=Behaviour("crash", seconds=0.3, exit_code=2, log=REFUSES),
        reason="RolledBack",
        says="--no-such-flag",
    ),
    "a model that does not fit": Case(
        spec={"model": {"id": "example/huge"}},
        runs="example/huge",
        does=Behaviour("crash", seconds=0.3, exit_code=1, log=TOO_BIG),
        reason="RolledBack",
        says="No available memory",
    ),
    "an engine that ends for unknown reasons": Case(
        spec={"engine": {"extraArgs": ["--seed", "8"]}},
        runs="8",
        does=Behaviour("crash", seconds=0.2, exit_code=1, log="something nobody has seen before"),
        reason="RolledBack",
        says="something nobody has seen before",
    ),
    "nodes that do not exist": Case(
        spec={"gpu": {"nodeSelector": {"pool": "nowhere"}}}, reason="RolledBack", says="node"
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One sandbox that is ready, on a pool with one GPU."""
    lab.nodes.forget()
    folder = tmp_path_factory.mktemp("engine-updates")
    async with World(lab, folder, operator={"flags": FLAGS}) as made:
        await made.operator.start()
        yield made
        assert made.linode.violations == []
        assert made.proxy.errors == []


@pytest_asyncio.fixture(loop_scope="module")
async def observer(world: World) -> AsyncIterator[EngineObserver]:
    """The sandbox as it is before each test, and an independent look at all that follows (I8)."""
    world.lab.nodes.forget()
    if not world.operator.running:
        await world.operator.start()
    await world.apply(NAME, {})
    await serving(world)
    made = EngineObserver(world, NAME)
    async with made.watching():
        yield made
    print(f"Ready was told for at most {made.longest:.2f} s after the engine's pod had ended")
    made.assert_truthful()


async def serving(world: World, timeout: float = 60.0) -> None:
    """Wait until the spec's engine serves and is kept as the good one."""
    await world.until(NAME, "Ready", timeout=timeout)
    await world.quiet()
    held = await memory(world)
    assert (
        f'"rendered":"{held[f"{names.GROUP}/engine-template"]}"' in held[f"{names.GROUP}/last-good-template"]
    )


async def memory(world: World) -> dict[str, str]:
    live = await world.api.get(kinds.DEPLOYMENT, world.namespace, f"{NAME}-engine")
    found: dict[str, str] = live["metadata"]["annotations"]
    return found


async def running(world: World) -> tuple[str, tuple[str, ...]]:
    """Image and arguments of the one engine pod."""
    (pod,) = await world.pods(NAME, "engine")
    container = pod["spec"]["containers"][0]
    return container["image"], tuple(container["args"])


async def taken_over(world: World, image: str) -> None:
    """Wait until the one engine pod runs the image, and is told as ready."""

    async def runs() -> bool:
        pods = await world.pods(NAME, "engine")
        return [pod["spec"]["containers"][0]["image"] for pod in pods] == [image]

    await world.eventually(runs, timeout=60, what=f"a pod of {image}")
    await world.until(NAME, "Ready", timeout=60)


async def silent(world: World) -> None:
    """I4: neither further passes nor a new process write anything."""
    await world.quiet()
    mark = len(world.proxy.journal)
    assert await world.operator.stop() == 0
    await world.operator.start()
    await world.quiet()
    assert [f"{e} {e.body}" for e in world.proxy.attempts(mark)] == []


@pytest.mark.parametrize("what", OUTCOMES)
async def test_a_change_ends_as_the_table_says(world: World, observer: EngineObserver, what: str) -> None:
    case = OUTCOMES[what]
    before = await running(world)
    if case.runs:
        world.lab.nodes.behave(case.does, component="engine", runs=case.runs)
    began = time.monotonic()
    await world.apply(NAME, case.spec)
    status = "True" if case.reason == "EngineServing" else "False"
    if status == "False":
        told = await world.until(NAME, "Stalled", "True", reason=case.reason, timeout=60)
        assert case.says in told["message"]
        told = await world.condition(NAME, "EngineReady")
        assert told["reason"] == case.reason
        assert "the engine serves the last good configuration" in told["message"]
    else:
        await world.until(NAME, "EngineReady", status, reason=case.reason, timeout=60)
    print(f"\n{what}: {case.reason} after {time.monotonic() - began:.1f} s")
    after = await running(world)
    assert (after == before) == (status == "False")
    # One change was tried (other nodes leave image and arguments), and there was none beside it.
    tried = {*observer.images} - {before}
    assert len(tried) == (0 if case.spec.keys() == {"gpu"} else 1), observer.images
    assert tried == {after} or status == "False"
    if case.does.kind == "image-pull":
        await silent(world)
        assert await running(world) == after


async def test_while_it_is_replaced_the_status_names_the_strategy(
    world: World, observer: EngineObserver
) -> None:
    world.lab.nodes.behave("slow", component="engine", seconds=8.0)
    await world.apply(NAME, {"engine": {"extraArgs": ["--seed", "9"]}})

    async def told() -> bool:
        condition = await world.condition(NAME, "EngineReady")
        return condition["status"] == "False" and "the old pod ends first" in condition["message"]

    await world.eventually(told, what="the strategy in words", timeout=10)
    world.lab.nodes.forget()
    await world.until(NAME, "Ready")


KILLS = [
    pytest.param("other arguments", "after", marks=pytest.mark.slow),
    pytest.param("other arguments", "before", marks=pytest.mark.slow),
    pytest.param("an argument that the engine does not know", "before", marks=pytest.mark.slow),
    ("an argument that the engine does not know", "after"),
]


@pytest.mark.parametrize(("what", "moment"), KILLS)
async def test_a_kill_around_each_write_to_the_engine_changes_no_outcome(
    world: World, observer: EngineObserver, what: str, moment: str
) -> None:
    case = OUTCOMES[what]
    if case.runs:
        world.lab.nodes.behave(case.does, component="engine", runs=case.runs)
    await world.apply(NAME, case.spec)
    deadline, seen = time.monotonic() + 60, 0
    while time.monotonic() < deadline:
        # Let it live until its next write to the engine, then kill it: before the next thing, or at once.
        written = [e for e in world.proxy.attempts(0) if e.path.endswith(f"/deployments/{NAME}-engine")]
        if len(written) > seen:
            seen = len(written)
            if moment == "after":
                await asyncio.sleep(0.3)
            world.operator.kill()
            await world.operator.wait()
            await world.operator.start()
        engine_ready = await world.condition(NAME, "EngineReady")
        if engine_ready["reason"] == case.reason:
            break
        await asyncio.sleep(0.02)
    await world.until(
        NAME, "EngineReady", "True" if case.reason == "EngineServing" else "False", reason=case.reason
    )
    await silent(world)


async def test_what_failed_is_tried_again_when_the_user_says_so(
    world: World, observer: EngineObserver
) -> None:
    case = OUTCOMES["an image that does not exist"]
    rule = world.lab.nodes.behave(case.does, component="engine", runs=case.runs)
    await world.apply(NAME, case.spec)
    await world.until(NAME, "Stalled", "True", reason="RolledBack", timeout=60)
    world.lab.nodes.forget(rule)  # somebody has pushed the image
    await world.edit(NAME, {"chat": {"enabled": False}})
    await world.quiet()
    assert (await world.condition(NAME, "EngineReady"))["reason"] == "RolledBack", "an edit of something else"
    await steps.annotate(world, kinds.SANDBOX, NAME, {names.ANNOTATION_RETRY_ENGINE: "once more"})
    await world.until(NAME, "Ready", timeout=60)
    assert (await running(world))[0] == case.runs
    await silent(world)


async def test_taking_a_failed_change_back_is_quiet_and_lets_it_be_tried_anew(
    world: World, observer: EngineObserver
) -> None:
    case = OUTCOMES["an engine that ends for unknown reasons"]
    rule = world.lab.nodes.behave(case.does, component="engine", runs=case.runs)
    await world.apply(NAME, case.spec)
    await world.until(NAME, "Stalled", "True", reason="RolledBack", timeout=60)
    (pod,) = await world.pods(NAME, "engine")
    await world.apply(NAME, {})
    await world.until(NAME, "Ready")
    assert [one["metadata"]["uid"] for one in await world.pods(NAME, "engine")] == [pod["metadata"]["uid"]]
    await world.quiet()
    assert "sandbox.linode.com/failed-engine-update" not in await memory(world)
    world.lab.nodes.forget(rule)
    await world.apply(NAME, case.spec)
    await world.until(NAME, "Ready", timeout=60)


async def test_an_old_pod_that_does_not_end_is_named_and_nothing_is_rolled_back(
    world: World, observer: EngineObserver
) -> None:
    (pod,) = await world.pods(NAME, "engine")
    holds = {"metadata": {"finalizers": ["test.example/holds"]}}
    await world.api.merge_patch(kinds.POD, world.namespace, pod["metadata"]["name"], holds)
    spec = {"engine": {"extraArgs": ["--seed", "10"]}}
    await world.apply(NAME, spec)
    told = await world.until(NAME, "EngineReady", "False", reason="OldPodStuck", timeout=60)
    assert pod["metadata"]["name"] in told["message"]
    assert pod["spec"]["nodeName"] in told["message"]
    assert (await world.condition(NAME, "Stalled"))["status"] == "False", (
        "it goes on by itself once the node is gone"
    )
    lets_go = {"metadata": {"finalizers": None}}
    await world.api.merge_patch(kinds.POD, world.namespace, pod["metadata"]["name"], lets_go)
    await world.until(NAME, "Ready", timeout=60)
    assert "10" in (await running(world))[1]


async def test_a_release_s_engine_is_offered_and_taken_over_by_annotation_alone(
    world: World, observer: EngineObserver
) -> None:
    newer, broken = "vllm/vllm-openai:v0.34.0", "vllm/vllm-openai:broken"
    before = await running(world)
    world.operator.upgrade("--engine-image", newer)
    assert await world.operator.stop() == 0
    await world.operator.start()
    told = await world.until(NAME, "UpdateAvailable", reason="EngineUpdateAvailable")
    assert f"image {RELEASE} becomes {newer}" in told["message"]
    assert (await world.condition(NAME, "Ready"))["status"] == "True"
    await silent(world)
    assert await running(world) == before

    await steps.annotate(world, kinds.SANDBOX, NAME, {names.ANNOTATION_UPDATE_ENGINE: "1"})
    await world.until(NAME, "UpdateAvailable", "Unknown")
    await taken_over(world, newer)
    await world.quiet()

    world.lab.nodes.behave(OUTCOMES["an image that does not exist"].does, component="engine", runs=broken)
    world.operator.upgrade("--engine-image", broken)
    assert await world.operator.stop() == 0
    await world.operator.start()
    await world.until(NAME, "UpdateAvailable", reason="EngineUpdateAvailable")
    await world.quiet()
    assert (await running(world))[0] == newer, "the word that was used up is not used again"
    await steps.annotate(world, kinds.SANDBOX, NAME, {names.ANNOTATION_UPDATE_ENGINE: "2"})
    await world.until(NAME, "UpdateAvailable", reason="EngineUpdateFailed", timeout=60)
    await taken_over(world, newer)
    await silent(world)
    world.operator.upgrade("--engine-image", RELEASE)
    await world.operator.stop()
    await world.operator.start()
    await steps.annotate(world, kinds.SANDBOX, NAME, {names.ANNOTATION_UPDATE_ENGINE: "3"})
    await world.eventually(lambda: runs(world, RELEASE), what="the first release again")


async def runs(world: World, image: str) -> bool:
    pods = await world.pods(NAME, "engine")
    return [pod["spec"]["containers"][0]["image"] for pod in pods] == [image]


async def test_drift_and_rollback_do_not_fight(world: World, observer: EngineObserver) -> None:
    case = OUTCOMES["an argument that the engine does not know"]
    world.lab.nodes.behave(case.does, component="engine", runs=case.runs)
    before = await running(world)
    await world.apply(NAME, case.spec)
    await world.until(NAME, "Stalled", "True", reason="RolledBack", timeout=60)
    path = kinds.DEPLOYMENT.path(world.namespace, f"{NAME}-engine")
    live = await world.api.get(kinds.DEPLOYMENT, world.namespace, f"{NAME}-engine")
    drift.container("image", "somebody:1")(live)
    edited = await world.api._request(
        "edit", kinds.DEPLOYMENT, "PUT", path, body=live, query={"fieldManager": "kubectl-edit"}
    )

    async def restored() -> bool:
        now = await world.api.get(kinds.DEPLOYMENT, world.namespace, f"{NAME}-engine")
        image = now["spec"]["template"]["spec"]["containers"][0]["image"]
        return bool(now["metadata"]["generation"] > edited["metadata"]["generation"] and image == before[0])

    await world.eventually(restored, what="the last good template")
    await world.eventually(lambda: runs(world, before[0]), what="the last good engine")
    await world.until(NAME, "Stalled", "True", reason="RolledBack", timeout=60)
    await silent(world)
    assert await running(world) == before
