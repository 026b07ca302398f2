"""The operator of every other test has the rights of the chart, and what it is refused is found."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from ai_sandbox_operator.api import kinds
from chart import helm
from lab import rights
from lab.cluster.lab import Lab
from lab.world import World

_GIVING = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def comparable(manifests: list[dict[str, Any]]) -> list[str]:
    """What gives the operator rights; labels aside, and the roles that are for people."""
    found = []
    for manifest in manifests:
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "labels"}
        if manifest["kind"] in _GIVING and not metadata["name"].endswith(("-view", "-edit")):
            found.append(repr(sorted({**manifest, "metadata": metadata}.items())))
    return sorted(found)


@pytest.mark.parametrize("served", [(), ("team-a", "team-b")], ids=["whole cluster", "two namespaces"])
def test_the_lab_gives_the_operator_exactly_what_the_chart_gives(
    newest: helm.Helm, served: tuple[str, ...]
) -> None:
    values = {"fullnameOverride": rights.NAME, "watch": {"namespaces": list(served)}}
    assert comparable(rights.objects(helm.NAMESPACE, served)) == comparable(newest.template(values))


@pytest.mark.parametrize("through_proxy", [True, False], ids=["through the proxy", "past it"])
async def test_a_world_whose_operator_lacks_a_right_ends_with_its_name(
    lab: Lab, tmp_path: pathlib.Path, through_proxy: bool
) -> None:
    world = World(lab, tmp_path, granted=without_lists, through_proxy=through_proxy)
    with pytest.raises(AssertionError, match=r"lacks rights[\s\S]*cannot list resource \S*deployments"):
        await refused(world)


def without_lists(namespace: str) -> list[dict[str, Any]]:
    """The operator's rights, but for the one to list Deployments."""
    manifests = rights.objects(namespace, (namespace,))
    for manifest in manifests:
        for rule in manifest.get("rules", ()):
            if rule["resources"] == [kinds.DEPLOYMENT.plural]:
                rule["verbs"] = ["get"]
    return manifests


async def refused(world: World) -> None:
    """The life of a world until the first refusal."""

    async def seen() -> bool:
        return bool(world.refusals())

    async with world:
        await world.operator.start(wait=False)
        await world.eventually(seen, what="a refusal")
