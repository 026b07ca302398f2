"""Every sample, applied as Argo CD does: no tool finds a difference, and the operator leaves the object alone."""

from __future__ import annotations

import asyncio
import copy
import pathlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ai_sandbox_operator.api import kinds, names
from gitops import hands
from gitops.hands import ARGO_CD, FLUX
from lab import cert_manager
from lab.cluster.lab import Lab
from lab.hub import Generous, Hub
from lab.world import World
from results import Results

pytestmark = pytest.mark.asyncio(loop_scope="module")
SAMPLES = {name: hands.tracked(manifest) for name, manifest in hands.samples().items()}
#: Comparisons with the API server and checks of the firewall that else take minutes.
RESYNC = 5
FLAGS = ("--no-leader-elect", "--resync-interval", str(RESYNC), "--linode-check-interval", "2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """All samples in one namespace, settled."""
    lab.nodes.forget()
    folder: pathlib.Path = tmp_path_factory.mktemp("samples")
    hub = Hub(generous=Generous(), tokens={hands.TOKEN})
    async with World(lab, folder, operator={"flags": FLAGS}, hub=hub) as made:
        await cert_manager.install(made.api)
        try:
            await made.operator.start()
            for manifest in SAMPLES.values():
                await hands.secrets_for(made, manifest)
                await hands.apply(made, manifest, ARGO_CD, "--force-conflicts")
            issuing = asyncio.create_task(_issue(made))
            try:
                for name, manifest in SAMPLES.items():
                    running = manifest["spec"].get("lifecycle", {}).get("state", "Running") == "Running"
                    expected = ("True", None) if running else ("False", "Suspended")
                    await made.until(name, "Ready", expected[0], reason=expected[1], timeout=120)
            finally:
                issuing.cancel()
                await asyncio.gather(issuing, return_exceptions=True)
            await made.quiet()
            yield made
        finally:
            await cert_manager.uninstall(made.api)


async def _issue(world: World) -> None:
    """What cert-manager would do."""
    done: set[str] = set()
    while True:
        for certificate in await world.api.list_all(kinds.CERTIFICATE, world.namespace):
            if certificate["metadata"]["name"] not in done:
                await cert_manager.issue(world.api, certificate)
                done.add(certificate["metadata"]["name"])
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("manager", [ARGO_CD, FLUX])
async def test_a_dry_run_of_the_manifest_equals_the_live_object(
    world: World, manager: str, results: Results
) -> None:
    found = {name: await hands.differences(world, SAMPLES[name], manager) for name in SAMPLES}
    assert found == {name: [] for name in SAMPLES}
    changed = hands.tracked(hands.samples()["smallest"])
    changed["spec"]["model"]["revision"] = "other"
    assert await hands.differences(world, changed, manager) != []
    results.row(
        "gitops",
        {
            "Check": "server-side dry run of each sample against the live object",
            "As": manager,
            "Outcome": "no difference",
        },
    )


async def test_the_client_side_comparison_of_an_untouched_object_is_empty_too(
    world: World, results: Results
) -> None:
    """Argo CD's own comparison lays lists over as a whole, so a default within one would differ for ever."""
    for name, manifest in SAMPLES.items():
        live = await world.sandbox(name)
        assert hands.legacy_differences(manifest, live) == [], name
        other = copy.deepcopy(live)
        other["spec"].setdefault("gpu", {})["tolerations"] = [{"key": "edited"}]
        assert hands.legacy_differences({**manifest, "spec": other["spec"]}, live) != [], name
    results.row(
        "gitops",
        {
            "Check": "client-side comparison of each sample with the live object (Argo CD's default)",
            "As": ARGO_CD,
            "Outcome": "no difference",
        },
    )


async def test_kubectl_diff_of_every_sample_is_empty(world: World, results: Results) -> None:
    for manifest in SAMPLES.values():
        flags = ("--server-side", "--force-conflicts", f"--field-manager={ARGO_CD}")
        assert await hands.kubectl(world, "diff", *flags, manifest=manifest) == ""
    results.row(
        "gitops",
        {"Check": "`kubectl diff --server-side` of each sample", "As": ARGO_CD, "Outcome": "empty"},
    )


async def test_operator_and_tool_own_different_fields(world: World, results: Results) -> None:
    for name in SAMPLES:
        live = await world.sandbox(name)
        mine, theirs = hands.owned(live, names.FIELD_MANAGER), hands.owned(live, ARGO_CD)
        assert any(path.startswith("/f:spec/") for path in theirs), name
        assert mine & theirs == set(), name
        assert {path.split("/")[1] for path in mine} <= {"f:status", "f:metadata"}, name
        assert {path for path in mine if path.startswith("/f:metadata")} <= {
            f'/f:metadata/f:finalizers/v:"{names.FINALIZER}"'
        }, name
    results.row(
        "gitops",
        {
            "Check": "field owners of each sample",
            "As": ARGO_CD,
            "Outcome": "the operator owns status and its finalizer, and no field of the tool",
        },
    )


async def test_no_mark_of_a_tool_reaches_a_child(world: World, results: Results) -> None:
    seen = 0
    for name in SAMPLES:
        assert hands.marks(await world.sandbox(name)) != [], name
        pods = await world.api.list_all(
            kinds.POD, world.namespace, label_selector=f"{names.LABEL_SANDBOX}={name}"
        )
        for child in (*(await world.children(name)).values(), *pods):
            assert hands.marks(child) == [], child["metadata"]["name"]
            seen += 1
    assert seen > 10 * len(SAMPLES)
    results.row(
        "gitops",
        {
            "Check": "tracking label and annotation of Argo CD on each sample",
            "As": ARGO_CD,
            "Outcome": "on no child, pod or pod template",
        },
    )


async def test_nothing_is_written_over_comparisons_syncs_and_a_restart(
    world: World, results: Results
) -> None:
    await world.quiet()
    before, mark = await hands.versions(world), len(world.proxy.journal)
    assert len(before) > 15 * len(SAMPLES)
    await asyncio.sleep(2 * RESYNC + 2)
    for manifest in SAMPLES.values():
        await hands.apply(world, manifest, ARGO_CD, "--force-conflicts")
    world.operator.kill()
    await world.operator.wait()
    await world.operator.start()
    await asyncio.sleep(RESYNC)
    assert [str(e) for e in world.proxy.attempts(mark)] == []
    assert await hands.versions(world) == before
    results.row(
        "gitops",
        {
            "Check": "resourceVersion of each sample and of its children over two resyncs, a sync without change, "
            "and a restart of the operator",
            "As": ARGO_CD,
            "Outcome": "all the same",
        },
    )
