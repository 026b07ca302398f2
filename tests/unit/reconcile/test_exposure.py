"""What is read again before the Linode objects of an exposure that is no longer wanted are let go."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.reconcile import deletion, exposure, keeper
from unit.desired import samples
from unit.reconcile.fake_client import FakeClient


class Asked:
    """A keeper that only takes the goal."""

    goal: keeper.Goal
    confirm: keeper.Confirm

    def pursue(self, _key: Any, _uid: str, goal: keeper.Goal, **rest: Any) -> tuple[None, float]:
        self.goal, self.confirm = goal, rest["confirm"]
        return None, 1.0


SERVICE = {
    "metadata": {
        "name": "demo",
        "namespace": "team-a",
        "uid": "u-1",
        "resourceVersion": "1",
        "ownerReferences": [{"kind": names.KIND, "uid": samples.UID, "controller": True}],
    }
}


@pytest.mark.parametrize(
    ("changes", "service", "goes"),
    [
        pytest.param({}, False, True, id="the spec still stands"),
        pytest.param({"generation": 8}, False, False, id="the spec was changed since"),
        pytest.param({"deletionTimestamp": "2030-01-01T00:00:00Z"}, False, False, id="it is being deleted"),
        pytest.param({"uid": "another"}, False, False, id="it is a namesake"),
        pytest.param({}, True, False, id="the Service is there"),
    ],
)
async def test_i1_the_firewall_goes_only_while_nobody_wants_the_exposure_again(
    changes: dict[str, Any], service: bool, goes: bool
) -> None:
    sandbox = samples.sandbox({})
    client, asked = FakeClient(), Asked()
    ending = deletion.Deletion(client, remember=lambda *_: None)
    subject = exposure.Exposure(client, cast(Any, asked), ending, cluster_id="lke1")
    await subject.leave(sandbox)
    assert isinstance(asked.goal, keeper.Release)
    metadata = {
        "name": sandbox.metadata.name,
        "namespace": sandbox.metadata.namespace,
        "uid": sandbox.metadata.uid,
        "generation": sandbox.metadata.generation,
    }
    client.objects[names.KIND, sandbox.metadata.name] = {"metadata": {**metadata, **changes}}
    if service:
        client.objects[kinds.SERVICE.kind, sandbox.metadata.name] = SERVICE
    assert await asked.confirm() is goes
