"""The end of a sandbox: retract, release, let go.

The external Service goes first, so that the cloud controller manager takes the NodeBalancer away while
its firewall still stands; the GPU is freed at once, whatever Linode's API does; the finalizer goes last
and only after live reads have shown that nothing is left (I2, I7), no pod included: with the owner the
garbage collector takes the NetworkPolicies, and a pod that is still in its grace period would be open to the
whole cluster (I1).
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import ConditionType, Reason, Verdict
from ai_sandbox_operator.desired import common
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen

from . import tell

log = logging.getLogger(__name__)


#: Pods that a message names.
_NAMED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """What a deletion waits for.

    Attributes:
        text: what is still there, in words.
        overdue: whether it is a matter for a person by now.
        remedy: what that person may do besides abandoning, as a sentence; empty if nothing.
        unguarded: whether abandoning leaves pods without policies, rather than objects at Linode.
    """

    text: str
    overdue: bool = False
    remedy: str = ""
    unguarded: bool = False


class Deletion:
    """Finalizer and retraction."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        *,
        remember: Callable[[kinds.Kind, Mapping[str, Any]], object],
    ) -> None:
        self._client = client
        self._remember = remember

    async def hold(self, sandbox: v1alpha1.AISandbox, body: Mapping[str, Any]) -> None:
        """Put the finalizer on.

        Raises:
            errors.Conflict: the object was written in between; the next pass tries again.
            errors.KubeError: it is not on; nothing may be created at Linode.
        """
        value: Any = names.FINALIZER if sandbox.metadata.finalizers else [names.FINALIZER]
        path = "/metadata/finalizers/-" if sandbox.metadata.finalizers else "/metadata/finalizers"
        answer = await self._client.json_patch(
            kinds.SANDBOX,
            *sandbox.key,
            [
                {"op": "test", "path": "/metadata/uid", "value": sandbox.metadata.uid},
                {
                    "op": "test",
                    "path": "/metadata/resourceVersion",
                    "value": body["metadata"]["resourceVersion"],
                },
                {"op": "add", "path": path, "value": value},
            ],
        )
        self._remember(kinds.SANDBOX, answer)

    async def let_go(self, sandbox: v1alpha1.AISandbox) -> None:
        """Take the finalizer off; absence of the object or of the finalizer is success."""
        try:
            live = await self._client.get(kinds.SANDBOX, *sandbox.key)
        except errors.NotFound:
            return
        held = live["metadata"].get("finalizers") or []
        if live["metadata"]["uid"] != sandbox.metadata.uid or names.FINALIZER not in held:
            return
        index = held.index(names.FINALIZER)
        path = f"/metadata/finalizers/{index}"
        try:
            await self._client.json_patch(
                kinds.SANDBOX,
                *sandbox.key,
                [{"op": "test", "path": path, "value": names.FINALIZER}, {"op": "remove", "path": path}],
            )
        except errors.NotFound:
            return

    async def retract(
        self, sandbox: v1alpha1.AISandbox, children: Mapping[tuple[str, str], seen.Seen]
    ) -> str:
        """Delete the external Service and everything that runs; what is still there, in words, or empty.

        NetworkPolicies and Secrets stay until the owner is gone: nothing may run without its policies.
        """
        uid = sandbox.metadata.uid
        mine = [r for r in children.values() if r.owner_uid == uid and not r.deleting]
        services = [r for r in mine if r.kind == "Service" and r.facts["type"] == "LoadBalancer"]
        for service in services:
            if service.facts["firewall_acl"]:
                # With this annotation the cloud controller manager would delete the firewall first.
                await self._client.merge_patch(
                    kinds.SERVICE,
                    service.namespace,
                    service.name,
                    {"metadata": {"annotations": {names.ANNOTATION_FIREWALL_ACL: None}}},
                )
            await self._client.delete(kinds.SERVICE, service.namespace, service.name, uid=service.uid)
        for record in mine:
            if record.kind in ("Deployment", "Job"):
                await self._client.delete(
                    kinds.BY_NAME[record.kind], record.namespace, record.name, uid=record.uid
                )
        return await self.withdraw(sandbox)

    async def withdraw(self, sandbox: v1alpha1.AISandbox) -> str:
        """Delete the external Service as it is found by live read; that it is still there, in words, or empty.

        One that has lost its labels is out of the watch's sight, and would keep the NodeBalancer for ever.
        """
        live = await self._service(sandbox)
        if live is None:
            return ""
        if "deletionTimestamp" not in live["metadata"]:
            await self._client.delete(kinds.SERVICE, *sandbox.key, uid=live["metadata"]["uid"])
        return f"Service {sandbox.metadata.name} is being removed; the cloud controller ends its NodeBalancer first"

    async def pods_ending(
        self, sandbox: v1alpha1.AISandbox, *, now: datetime.datetime, grace: float
    ) -> Wait | None:
        """What runs behind policies that the end of their owner would take away, by live read; None if nothing.

        With foreground deletion the garbage collector has taken the policies before, and with orphaned
        children they stay: then waiting would keep nothing closed.

        Args:
            now: the time by which pods should have ended.
            grace: seconds beyond that before a person is told.
        """
        pods = await self._client.list_all(
            kinds.POD,
            sandbox.metadata.namespace,
            label_selector=common.label_selector(sandbox),
            metadata_only=True,
        )
        if not pods or not await self._holds_policies(sandbox):
            return None
        listed = sorted((pod["metadata"] for pod in pods), key=lambda metadata: str(metadata["name"]))
        since = datetime.datetime.fromisoformat(sandbox.metadata.deletion_timestamp or "")
        late = [
            str(metadata["name"])
            for metadata in listed
            if (now - max(since, _due(metadata, since))).total_seconds() > grace
        ]
        ending = _pods([str(metadata["name"]) for metadata in listed])
        text = f"{ending} ending, and the NetworkPolicies stay until then"
        if not late:
            return Wait(text=text, unguarded=True)
        remedy = (
            f"{_pods(late)} overdue. A pod whose node is lost ends with the Node object, once that machine is off; "
            "anything else that has these labels is for you to delete"
        )
        return Wait(text=text, overdue=True, remedy=remedy, unguarded=True)

    async def _holds_policies(self, sandbox: v1alpha1.AISandbox) -> bool:
        """Whether a NetworkPolicy goes with the sandbox."""
        policies = await self._client.list_all(
            kinds.NETWORK_POLICY,
            sandbox.metadata.namespace,
            label_selector=f"{names.LABEL_SANDBOX}={sandbox.metadata.name}",
            metadata_only=True,
        )
        return any(seen.owner_uid(policy["metadata"]) == sandbox.metadata.uid for policy in policies)

    def service_gone(self, sandbox: v1alpha1.AISandbox) -> Callable[[], Awaitable[bool]]:
        """A check, by live read, that no Service keeps the NodeBalancer."""

        async def gone() -> bool:
            return await self._service(sandbox) is None

        return gone

    def abandoned(self, sandbox: v1alpha1.AISandbox) -> bool:
        """Whether a person chose to leave the Linode objects behind."""
        return sandbox.metadata.annotations.get(names.ANNOTATION_ABANDON) == "true"

    async def _service(self, sandbox: v1alpha1.AISandbox) -> dict[str, Any] | None:
        """The live external Service; a foreign one that took the name keeps nothing of ours."""
        try:
            live = await self._client.get(kinds.SERVICE, *sandbox.key)
        except errors.NotFound:
            return None
        return live if seen.owner_uid(live["metadata"]) == sandbox.metadata.uid else None


def _due(metadata: Mapping[str, Any], otherwise: datetime.datetime) -> datetime.datetime:
    """When a pod's grace period is over: that, not the request, is the time in a pod's `deletionTimestamp`."""
    stamp = metadata.get("deletionTimestamp")
    return datetime.datetime.fromisoformat(stamp) if stamp else otherwise


def _pods(listed: list[str]) -> str:
    """Number, some names and the verb, such as `2 pods (a, b) are`."""
    more = ", ..." if len(listed) > _NAMED else ""
    count = "1 pod" if len(listed) == 1 else f"{len(listed)} pods"
    return f"{count} ({', '.join(listed[:_NAMED])}{more}) {'is' if len(listed) == 1 else 'are'}"


def status_of(sandbox: v1alpha1.AISandbox, wait: Wait, *, now: datetime.datetime) -> dict[str, Any]:
    """Status of a sandbox that is being deleted: what it waits for, what blocks, and how to abandon."""
    held = sandbox.status.linode or v1alpha1.LinodeStatus()
    left = ", ".join(
        text
        for text, ident in (
            (f"NodeBalancer {held.node_balancer_id}", held.node_balancer_id),
            (f"Cloud Firewall {held.firewall_id}", held.firewall_id),
        )
        if ident is not None
    )
    if wait.overdue:
        reason = Reason.DeletionBlocked
        behind = "these pods without NetworkPolicies" if wait.unguarded else left or "the Linode objects"
        told = ". ".join(text.rstrip(".") for text in (wait.text, wait.remedy) if text)
        message = (
            f"deletion waits: {told}. To end it now and leave {behind} behind: "
            f"kubectl annotate {names.PLURAL}.{names.GROUP} {sandbox.metadata.name} "
            f"-n {sandbox.metadata.namespace} {names.ANNOTATION_ABANDON}=true"
        )
    else:
        reason, message = Reason.Deleting, wait.text
    kept = [
        Verdict(type=ConditionType(c.type), status=c.status, reason=Reason[c.reason], message=c.message)
        for c in sandbox.status.conditions
        if c.type in set(ConditionType) - {ConditionType.READY, ConditionType.RECONCILING}
        and c.reason in Reason.__members__
    ]
    verdicts = [
        Verdict(type=ConditionType.READY, status="False", reason=reason, message=message),
        Verdict(type=ConditionType.RECONCILING, status="True", reason=reason, message=message),
        *kept,
    ]
    linode = {"firewallID": held.firewall_id, "nodeBalancerID": held.node_balancer_id}
    status = tell.build_status(
        sandbox,
        verdicts,
        now=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        endpoints={},
        linode={k: v for k, v in linode.items() if v is not None},
        applied={},
        model={},
    )
    judged = {c.type: c.observed_generation for c in sandbox.status.conditions}
    for condition in status["conditions"][2:]:
        # Kept, not judged anew: what it was observed for stays beside it.
        condition["observedGeneration"] = judged[condition["type"]]
    return status
