"""Proof that the gateways serve the current allowlist and keys, beside the passes.

A pass writes the gateway's Secret and states the revision in it; whether Envoy serves that revision is
asked of every ready gateway pod, in a task per sandbox, so that a slow pod delays nobody (I9). A pod
that serves something else gets an annotation: the kubelet brings a changed Secret at once to a pod
that changes itself, and within a minute or two otherwise.
Source: kubernetes pkg/kubelet (a change of the pod marks its volumes for remount).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import common, envoy_routes
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.pods import PodUnreachable
from ai_sandbox_operator.observed import seen, served

from . import pursuit, views

log = logging.getLogger(__name__)

Key = tuple[str, str]
#: Address, port and path to a body; raises PodUnreachable.
Read = Callable[[str, int, str], Awaitable[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """What must be proven.

    Attributes:
        selector: of the gateway's pods.
        routes: the route configurations that must be served.
        versions: of the gateway's Deployment, which changes whenever a pod comes or goes, and of its
            Secret, which changes whenever somebody else's content was put right.
    """

    selector: str
    revision: str
    routes: tuple[str, ...]
    versions: tuple[str, str]

    @property
    def subject(self) -> tuple[str, tuple[str, ...]]:
        return self.revision, self.routes


class Gateways:
    """Asks the gateways of all sandboxes."""

    def __init__(self, client: kube_client.KubeClient, read: Read, *, add: Callable[[Key], None]) -> None:
        self._client = client
        self._read = read
        self._pursuits = pursuit.Pursuits(self._look, add=add)
        self.forget = self._pursuits.forget
        self.close = self._pursuits.close

    def prove(
        self,
        sandbox: v1alpha1.AISandbox,
        revision: str,
        deployment: seen.Seen | None,
        configuration: seen.Seen | None,
    ) -> views.GatewayProof:
        """What is known now; another pass is asked for when that changes.

        A proof of the same revision stands while it is looked whether new pods serve it too.
        """
        if deployment is None or configuration is None or not deployment.facts["ready"]:
            self.forget(sandbox.metadata.uid)
            return views.GatewayProof(message="no gateway pod is ready yet")
        goal = Goal(
            selector=common.label_selector(sandbox, common.GATEWAY),
            revision=revision,
            routes=tuple(entry.name for entry in envoy_routes.entries(sandbox)),
            versions=(deployment.resource_version, configuration.resource_version),
        )
        return self._pursuits.pursue(
            sandbox,
            goal,
            # Whatever was observed before this process started stands until the first look is over.
            unseen=views.GatewayProof(unseen=True, message="the gateway's pods are being asked"),
            superseded=views.GatewayProof(message="the gateway's pods are being brought up to date"),
        )

    async def _look(self, key: Key, goal: Goal) -> views.GatewayProof:
        try:
            listed = await self._client.list_all(kinds.POD, key[0], label_selector=goal.selector)
            pods = [pod for pod in listed if served.ready(pod)]
            answers = await asyncio.gather(*(self._ask(pod, goal) for pod in pods))
            late = [pod for pod, answer in zip(pods, answers, strict=True) if answer is not None]
            await asyncio.gather(*(self._hurry(pod, goal.revision) for pod in late))
        except errors.KubeError as error:
            return views.GatewayProof(message=f"the gateway's pods cannot be asked: {error}")
        except Exception:
            log.exception("gateway look failed", extra={"key": key})
            return views.GatewayProof(message="the gateway's pods cannot be asked; see the operator's log")
        if not pods:
            return views.GatewayProof(message="no gateway pod is ready")
        problems = [answer for answer in answers if answer is not None]
        if problems:
            worst = next((p for p in problems if p.reason is Reason.GatewayUnproven), problems[0])
            return dataclasses.replace(
                worst, message=f"{len(problems)} of {len(pods)} gateway pods: {worst.message}"
            )
        return views.GatewayProof(proven=True, message=f"revision {goal.revision}")

    async def _ask(self, pod: dict[str, Any], goal: Goal) -> views.GatewayProof | None:
        """None if the pod serves the goal."""
        name = pod["metadata"]["name"]
        try:
            address = (pod.get("status") or {}).get("podIP", "")
            statistics = await self._read(address, names.PORT_GATEWAY_STATUS, served.STATUS_PATH)
        except PodUnreachable as error:
            return views.GatewayProof(reason=Reason.GatewayUnproven, message=f"{name}: {error}")
        if served.serves(statistics, goal.revision, goal.routes):
            return None
        return views.GatewayProof(message=f"{name} still serves an earlier allowlist or earlier keys")

    async def _hurry(self, pod: dict[str, Any], revision: str) -> None:
        metadata = pod["metadata"]
        if (metadata.get("annotations") or {}).get(names.ANNOTATION_ACCESS_REVISION) == revision:
            return
        patch = {"metadata": {"annotations": {names.ANNOTATION_ACCESS_REVISION: revision}}}
        with contextlib.suppress(errors.NotFound):
            await self._client.merge_patch(kinds.POD, metadata["namespace"], metadata["name"], patch)
