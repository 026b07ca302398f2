"""The Linode side of one sandbox: goals for the keeper, and checks by live read before they are acted on."""

from __future__ import annotations

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.linode import errors as linode_errors
from ai_sandbox_operator.linode import firewall
from ai_sandbox_operator.linode.ownership import Owner
from ai_sandbox_operator.observed import seen

from . import deletion, keeper, views


class Exposure:
    """States goals; never waits for Linode."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        linode: keeper.Keeper,
        ending: deletion.Deletion,
        *,
        cluster_id: str,
    ) -> None:
        self._client = client
        self._linode = linode
        self._deletion = ending
        self._cluster_id = cluster_id

    @property
    def leak_grace(self) -> float:
        """Seconds after which a deletion that still waits is a matter for a person."""
        return self._linode.leak_grace

    def protect(
        self, sandbox: v1alpha1.AISandbox, service: seen.Seen | None
    ) -> tuple[views.LinodeView, float | None]:
        """Keep firewall and NodeBalancer as the spec says; what is known, and when to ask again."""
        ports: dict[v1alpha1.Target, int] = {"API": names.PORT_API}
        if sandbox.spec.chat.enabled:
            ports["Chat"] = names.PORT_CHAT
        try:
            rules = firewall.rules_for(sandbox.spec.access.allowlist, ports=ports)
        except linode_errors.TooManyNetworks as error:
            problem = views.Problem(reason=Reason.TooManyNetworks, message=str(error))
            return views.LinodeView(problem=problem), None
        goal = keeper.Protect(
            owner=self._owner(sandbox),
            rules=rules,
            annotation=service.facts["firewall_id"] if service else "",
            address=service.facts["address"] if service else "",
            hostname=service.facts["hostname"] if service else "",
            has_service=service is not None,
        )
        result, again = self._linode.pursue(
            sandbox.key,
            sandbox.metadata.uid,
            goal,
            known=_known(sandbox),
            confirm=lambda: self.unchanged(sandbox),
        )
        return (result.view if result else views.LinodeView(unseen=True)), again

    def release(
        self, sandbox: v1alpha1.AISandbox, *, confirm: keeper.Confirm | None = None
    ) -> tuple[keeper.Result | None, float]:
        """Let everything go; the Service must be gone."""
        return self._linode.pursue(
            sandbox.key,
            sandbox.metadata.uid,
            keeper.Release(owner=self._owner(sandbox)),
            known=_known(sandbox),
            confirm=confirm or self._deletion.service_gone(sandbox),
        )

    async def leave(self, sandbox: v1alpha1.AISandbox) -> tuple[bool, float | None]:
        """The spec no longer wants a NodeBalancer: release, then drop the finalizer.

        Returns:
            Whether nothing is left, and when to ask again.
        """
        if await self._deletion.withdraw(sandbox):
            return False, None
        gone = self._deletion.service_gone(sandbox)

        async def confirm() -> bool:
            # Whoever wants the NodeBalancer again must not meet a firewall that is about to go.
            return await gone() and await self.unchanged(sandbox)

        result, again = self.release(sandbox, confirm=confirm)
        if result is None or not result.released:
            return False, again
        await self.forget(sandbox)
        return True, None

    async def forget(self, sandbox: v1alpha1.AISandbox) -> None:
        """Nothing is left at Linode: drop the finalizer."""
        await self._deletion.let_go(sandbox)
        self._linode.forget(sandbox.metadata.uid)

    def drop(self, uid: str) -> None:
        """Forget what is known of a sandbox that is gone."""
        self._linode.forget(uid)

    def _owner(self, sandbox: v1alpha1.AISandbox) -> Owner:
        return Owner(cluster_id=self._cluster_id, uid=sandbox.metadata.uid)

    async def unchanged(self, sandbox: v1alpha1.AISandbox) -> bool:
        """Whether the spec still stands, by live read: a stale view must not reopen what the user has
        closed, nor give up an address that the user wants again."""
        try:
            live = await self._client.get(kinds.SANDBOX, *sandbox.key)
        except errors.NotFound:
            return False
        metadata = live["metadata"]
        same = (metadata["uid"], metadata["generation"]) == (
            sandbox.metadata.uid,
            sandbox.metadata.generation,
        )
        return same and "deletionTimestamp" not in metadata


def _known(sandbox: v1alpha1.AISandbox) -> keeper.Known:
    held = sandbox.status.linode or v1alpha1.LinodeStatus()
    return keeper.Known(firewall_id=held.firewall_id, nodebalancer_id=held.node_balancer_id)
