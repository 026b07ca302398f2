"""When changed Secrets reach the pods that mount them."""

from __future__ import annotations

import asyncio
import base64
import copy
import time
from typing import Any

import pytest

from lab.cluster.nodes import mounts
from lab.cluster.nodes.mounts import Mounts, Volume
from unit.lab_nodes.factory import pod

NEVER = 3600.0
PATH = "/api/v1/namespaces/team/secrets/demo-gateway"
VOLUME = Volume("demo-gateway", "/etc/envoy")


class Kubelet:
    """One pod, one Secret."""

    def __init__(self, period: float) -> None:
        self.pod = pod(component="gateway")
        self.version = 1
        self.there = True
        self.held = False
        self.reads = 0
        self.mounted: list[str] = []
        self.mounts = Mounts(self.read, lambda _pod: self.held)
        self.mounts.period = period

    async def read(self, path: str) -> dict[str, Any] | None:
        assert path == PATH
        self.reads += 1
        data = {"file": base64.b64encode(f"v{self.version}".encode()).decode()}
        return {"metadata": {"resourceVersion": str(self.version)}, "data": data} if self.there else None

    async def start(self) -> None:
        async def apply(path: str, files: mounts.Files) -> None:
            assert path == "/etc/envoy"
            self.mounted.append(files["file"])

        await self.mounts.add(self.pod, (VOLUME,), apply)

    def change_secret(self) -> None:
        self.version += 1
        self.tell("MODIFIED")

    def tell(self, event: str, name: str = "demo-gateway") -> None:
        meta = {"namespace": "team", "name": name, "resourceVersion": str(self.version)}
        self.mounts.on_secret(event, {"metadata": meta})

    def change_pod(self) -> None:
        self.pod = copy.deepcopy(self.pod)
        self.mounts.changed(self.pod)

    async def comes(self, text: str) -> None:
        async with asyncio.timeout(2):
            while self.mounted[-1] != text:
                await asyncio.sleep(0.005)


async def settle() -> None:
    await asyncio.sleep(0.05)


async def test_a_pod_starts_with_what_is_there() -> None:
    one = Kubelet(NEVER)
    await one.start()
    assert one.mounted == ["v1"]


async def test_a_changed_secret_waits_for_the_next_sync() -> None:
    one = Kubelet(NEVER)
    await one.start()
    one.change_secret()
    await settle()
    assert one.mounted == ["v1"]


async def test_the_sync_comes_after_a_period_and_at_most_half_more() -> None:
    one = Kubelet(0.2)
    await one.start()
    began = time.monotonic()
    one.change_secret()
    await one.comes("v2")
    assert 0.19 <= time.monotonic() - began < 0.4


async def test_a_changed_pod_is_synced_at_once() -> None:
    one = Kubelet(NEVER)
    await one.start()
    one.change_secret()
    one.change_pod()
    await one.comes("v2")


async def test_a_shorter_period_counts_at_once() -> None:
    one = Kubelet(NEVER)
    await one.start()
    one.change_secret()
    one.mounts.period = 0.01
    await one.comes("v2")


async def test_nothing_is_read_while_nothing_changes() -> None:
    one = Kubelet(0.01)
    await one.start()
    one.tell("ADDED")
    one.tell("MODIFIED", name="another")
    await settle()
    assert one.reads == 1


async def test_a_secret_that_is_gone_stays_mounted(caplog: pytest.LogCaptureFixture) -> None:
    one = Kubelet(0.01)
    await one.start()
    one.there = False
    one.tell("DELETED")
    one.change_pod()
    await settle()
    assert one.mounted == ["v1"]
    assert caplog.records == []


async def test_a_pod_that_is_held_catches_up_when_it_is_released() -> None:
    one = Kubelet(0.01)
    await one.start()
    one.held = True
    one.change_secret()
    one.change_pod()
    await settle()
    assert one.mounted == ["v1"]
    one.held = False
    one.mounts.release()
    await one.comes("v2")


async def test_a_pod_that_is_gone_gets_nothing() -> None:
    one = Kubelet(0.01)
    await one.start()
    one.change_secret()
    one.mounts.remove(one.pod["metadata"]["uid"])
    one.change_secret()
    one.change_pod()
    await settle()
    assert one.mounted == ["v1"]


@pytest.mark.parametrize(
    ("part", "same"),
    [
        ({"metadata": {"annotations": {"a": "b"}}}, False),
        ({"metadata": {"labels": {"a": "b"}}}, False),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
        ({"spec": {"activeDeadlineSeconds": 1}}, False),
        ({"metadata": {"resourceVersion": "2", "managedFields": [{}]}}, True),
        ({"status": {"phase": "Running"}}, True),
    ],
)
def test_what_a_kubelet_takes_for_a_change(part: dict[str, Any], same: bool) -> None:
    old, new = pod(), pod()
    for key, values in part.items():
        new[key] = {**new.get(key, {}), **values}
    assert mounts.same(old, new) is same


def test_secrets_that_are_mounted_as_directories_are_found() -> None:
    made = pod(
        volumes=[
            {"name": "config", "secret": {"secretName": "demo-gateway"}},
            {"name": "unused", "secret": {"secretName": "other"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        containers=[
            {
                "name": "gateway",
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/envoy"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
    )
    assert mounts.volumes(made) == (VOLUME,)
    assert mounts.volumes(pod()) == ()
