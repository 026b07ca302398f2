"""One control plane for all tests of this worker, with room for every sample at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from gitops.hands import samples
from lab.cluster.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A control plane with fake nodes: one node for each sample's plan, and one of each to spare."""
    wanted = Counter(str(s["spec"].get("gpu", {}).get("plan", "")) for s in samples().values())
    pools = {plan: count + 1 for plan, count in wanted.items() if plan}
    with Lab(pools={**pools, "g6-standard-8": 3}) as running:
        yield running
