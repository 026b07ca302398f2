"""The GPUs of the cluster's nodes, for a sandbox that names no plan."""

from __future__ import annotations

from typing import Any

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.desired import plans
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.reconcile import pool

SMALL, LARGE = "g2-gpu-rtx4000a1-m", "g3-gpu-rtxpro6000-blackwell-1"


class Client:
    """Some nodes."""

    def __init__(self, *nodes: dict[str, str]) -> None:
        self.nodes = nodes
        self.refusal: errors.KubeError | None = None
        self.lists = 0

    async def list_all(self, kind: kinds.Kind, namespace: str | None, *, metadata_only: bool) -> Any:
        assert (kind, namespace, metadata_only) == (kinds.NODE, None, True)
        self.lists += 1
        if self.refusal:
            raise self.refusal
        return [{"metadata": {"labels": labels}} for labels in self.nodes] + [{"metadata": {}}]


def node(plan: str, **labels: str) -> dict[str, str]:
    return {names.LABEL_PLAN: plan, **labels}


async def test_the_largest_cards_that_the_labels_allow_count() -> None:
    client = Client(node("g6-standard-4"), node(SMALL, zone="a"), node(LARGE, zone="b"))
    one = pool.Pool(client, clock=lambda: 0.0)  # type: ignore[arg-type]
    assert await one.cards({}) == plans.cards(LARGE)
    assert await one.cards({"zone": "a"}) == plans.cards(SMALL)
    assert await one.cards({"zone": "c"}) is None
    assert await one.cards({names.LABEL_PLAN: "g6-standard-4"}) is None
    assert client.lists == 1


async def test_the_list_is_read_again_after_a_while_and_a_refusal_is_remembered_longer() -> None:
    client, now = Client(node(SMALL)), [0.0]
    one = pool.Pool(client, clock=lambda: now[0])  # type: ignore[arg-type]
    assert await one.cards({}) == plans.cards(SMALL)
    client.nodes = (node(LARGE),)
    now[0] = pool.FRESH
    assert await one.cards({}) == plans.cards(LARGE)
    now[0], client.refusal = 2 * pool.FRESH, errors.Forbidden("nodes")
    assert await one.cards({}) is None
    now[0] += pool.REFUSED - 1
    client.refusal = None
    assert await one.cards({}) is None
    now[0] += 1
    assert await one.cards({}) == plans.cards(LARGE)
    assert client.lists == 4
