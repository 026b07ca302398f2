"""The states of a sandbox that a person can meet, brought about on a running operator and written down.

`record` gives each as the API server returned it, without what differs from run to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ai_sandbox_operator.api import kinds
from controlplane import steps
from lab.cluster.nodes.behaviour import Behaviour
from lab.hub import Repository, small_model
from lab.linode import Fault
from lab.world import World
from manifests.documents import Manifest

#: Short graces, as in the other tests on the lab; `patience` is for an engine that does not start.
FLAGS = ("--no-leader-elect", "--engine-update-patience", "3", *steps.FLAGS)
_MISSING = "registry.example/engine:missing"
_NAMESPACE, _TIME, _UID = "team-a", "2026-01-01T00:00:00Z", "11111111-2222-3333-4444-555555555555"
_UUIDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Recorder:
    """Brings the states about, one after the other; the world has one GPU and its operator does not run yet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: dict[str, Manifest] = {}

    async def record(self) -> dict[str, Manifest]:
        """All states by name."""
        await self._start()
        await self._serving()
        await self._engine_updates()
        await self._generations()
        await self._sleep()
        await self._refused()
        await self._public()
        return self.seen

    async def _take(self, state: str, name: str) -> None:
        self.seen[state] = plain(await self.world.sandbox(name), self.world.namespace)

    async def _start(self) -> None:
        world = self.world
        await world.apply("demo", {})
        await self._take("new", "demo")
        rule = world.lab.nodes.behave("slow", component="fetch", seconds=60.0)
        await world.operator.start()
        await world.until("demo", "ModelCached", "False", reason="Fetching")
        await world.until("demo", "Reconciling", "True")
        await self._take("downloading", "demo")
        world.lab.nodes.forget(rule)

    async def _serving(self) -> None:
        world = self.world
        await world.until("demo", "Ready", timeout=90)
        await world.quiet()
        await self._take("ready", "demo")
        rule = world.lab.nodes.behave("crash", component="engine", exit_code=3, message="CUDA error")
        (pod,) = await world.pods("demo", "engine")
        await world.api.delete(
            kinds.POD, world.namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"]
        )
        await world.until("demo", "EngineReady", "False", reason="CrashLoop")
        await world.until("demo", "Ready", "False", reason="CrashLoop")
        await self._take("engine-crashes", "demo")
        world.lab.nodes.forget(rule)
        await world.until("demo", "Ready", timeout=60)
        await world.quiet()

    async def _engine_updates(self) -> None:
        world = self.world
        lacking = Behaviour("image-pull", message=f"manifest for {_MISSING} not found")
        rule = world.lab.nodes.behave(lacking, component="engine", runs=_MISSING)
        await world.apply("demo", {"engine": {"image": _MISSING}})
        await world.until("demo", "EngineReady", "False", reason="ImageNotFound")
        await self._take("engine-update-fails", "demo")
        await world.until("demo", "Stalled", "True", reason="RolledBack", timeout=60)
        await self._take("rolled-back", "demo")
        await world.apply("demo", {})
        await world.until("demo", "Ready")
        world.lab.nodes.forget(rule)

    async def _generations(self) -> None:
        world = self.world
        await world.operator.stop()
        await world.edit("demo", {"chat": {"enabled": False}})
        await self._take("edited-while-ready", "demo")
        await world.operator.start()
        await world.until("demo", "Ready")

    async def _sleep(self) -> None:
        world = self.world
        await world.apply("demo", {"lifecycle": {"state": "Suspended"}})
        await world.until("demo", "Ready", "False", reason="Suspended")
        await world.until("demo", "Reconciling", "False", reason="Settled")
        await self._take("suspended", "demo")
        rule = world.lab.nodes.behave("slow", component="engine", seconds=60.0)
        await world.apply("demo", {"lifecycle": {"state": "Running"}})
        await world.until("demo", "Reconciling", "True")
        await self._take("resuming", "demo")
        world.lab.nodes.forget(rule)
        await world.delete("demo")
        await world.gone("demo")

    async def _refused(self) -> None:
        world = self.world
        await world.apply("demo-secret", {"access": {"tls": {"mode": "Secret", "secretName": "absent"}}})
        await world.until("demo-secret", "SpecValid", "False", reason="SecretNotFound")
        await self._take("secret-missing", "demo-secret")
        world.hub.repositories["acme/huge"] = Repository(files=small_model(1000))
        world.hub.declared["acme/huge"] = {
            path: 60 * 2**30 for path in small_model(1000) if path.endswith(".safetensors")
        }
        await world.apply("demo-huge", {"model": {"id": "acme/huge"}, "gpu": {"plan": "g2-gpu-rtx4000a1-m"}})
        await world.until("demo-huge", "SpecValid", "False", reason="ModelTooLarge")
        await self._take("model-too-large", "demo-huge")
        for name in ("demo-secret", "demo-huge"):
            await world.delete(name)
            await world.gone(name)

    async def _public(self) -> None:
        world = self.world
        down = Fault("status", status=503, token="operator", times=None)
        world.linode.faults.add(down)
        await world.apply("demo-public", steps.public())
        await world.until("demo-public", "NetworkProtected", "False", reason="LinodeUnavailable")
        await self._take("linode-unavailable", "demo-public")
        world.linode.faults.clear()
        await steps.placed(world, "demo-public")
        await world.until("demo-public", "Reconciling", "False")
        await self._take("suspended-public", "demo-public")
        await world.apply("demo-public", steps.public(lifecycle={"state": "Running"}))
        await world.until("demo-public", "Ready", timeout=90)
        await self._take("ready-public", "demo-public")
        await world.operator.stop()
        await world.delete("demo-public")
        await self._take("deleting", "demo-public")
        world.linode.faults.add(down)
        await world.operator.start()
        await world.until("demo-public", "Ready", "False", reason="DeletionBlocked")
        await self._take("deletion-blocked", "demo-public")
        world.linode.faults.clear()
        await world.gone("demo-public", timeout=60)


def plain(body: Mapping[str, Any], namespace: str) -> Manifest:
    """The object without what only this run has: managed fields, times, identities, the namespace's name."""
    kept = {key: value for key, value in body.items() if key in ("apiVersion", "kind", "spec", "status")}
    metadata = {
        key: body["metadata"][key]
        for key in (
            "name",
            "namespace",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "finalizers",
            "uid",
        )
        if key in body["metadata"]
    }
    text = json.dumps({**kept, "metadata": metadata}).replace(namespace, _NAMESPACE)
    found: Manifest = json.loads(_TIMES.sub(_TIME, _UUIDS.sub(_UID, text)))
    return found
