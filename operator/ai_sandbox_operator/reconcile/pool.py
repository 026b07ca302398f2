"""Which GPUs the cluster's nodes have, for a sandbox that names no plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.desired import plans
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors

log = logging.getLogger(__name__)

#: Seconds for which a list of nodes is good enough, and after a refusal.
FRESH, REFUSED = 60.0, 600.0


class Pool:
    """Labels of the GPU nodes, read only when somebody asks, with a short memory."""

    def __init__(self, client: kube_client.KubeClient, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._until = float("-inf")
        self._nodes: tuple[Mapping[str, str], ...] = ()

    async def cards(self, selector: Mapping[str, str]) -> plans.Cards | None:
        """The largest cards of the nodes that have these labels; None where that is not known.

        The engine may come to any of the nodes, so only what is too big for the largest is surely too big.
        """
        await self._refresh()
        found = [
            cards
            for labels in self._nodes
            if selector.items() <= labels.items()
            and (cards := plans.cards(labels[names.LABEL_PLAN])) is not None
        ]
        return max(found, key=lambda cards: cards.memory, default=None)

    async def _refresh(self) -> None:
        if self._clock() < self._until:
            return
        try:
            listed = await self._client.list_all(kinds.NODE, None, metadata_only=True)
        except errors.KubeError as error:
            # Nodes are no namespace's, so an operator of some namespaces may not be allowed to list them.
            log.info("nodes not listed", extra={"error": str(error)})
            self._nodes, self._until = (), self._clock() + REFUSED
            return
        labels = (node["metadata"].get("labels") or {} for node in listed)
        self._nodes = tuple(one for one in labels if plans.find(one.get(names.LABEL_PLAN, "")))
        self._until = self._clock() + FRESH
