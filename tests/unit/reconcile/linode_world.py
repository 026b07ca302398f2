"""A keeper before the simulated API, and what it asks of whoever stands around it."""

from __future__ import annotations

import asyncio
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.linode import client as api
from ai_sandbox_operator.linode import firewall, transport
from ai_sandbox_operator.linode.ownership import Owner
from ai_sandbox_operator.reconcile import keeper
from lab.linode import LinodeSimulator

INTERVAL = 180.0
KEY = ("team-a", "demo")
UID = "6f1d0c5e-3c5b-4f0e-9a51-0d6a4c1f2b3a"
OWNER = Owner(cluster_id="lke7", uid=UID)
FIREWALLS = "/networking/firewalls"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A keeper, and what was asked of whoever stands around it."""

    def __init__(self, sim: LinodeSimulator, **options: Any) -> None:
        self.sim = sim
        self.clock = Clock()
        self.token: str | None = "operator-token"
        self.added: list[keeper.Key] = []
        self.repaired: list[str] = []
        self.confirmed = 0
        self.answer: bool | Exception = True
        self.client = api.LinodeClient(
            sim.url,
            token_provider=lambda: self.token,
            policy=transport.Policy(tries=1, total=5.0),
            clock=self.clock,
            wall=self.clock,
        )
        self.keeper = keeper.Keeper(
            self.client,
            add=self.added.append,
            check_interval=INTERVAL,
            repaired=lambda _key, what: self.repaired.extend(what),
            clock=self.clock,
            **options,
        )

    async def confirm(self) -> bool:
        self.confirmed += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def pursue(
        self, goal: keeper.Goal, uid: str = UID, known: keeper.Known | None = None
    ) -> tuple[keeper.Result | None, float]:
        return self.keeper.pursue(
            (KEY[0], uid[:8]), uid, goal, known=known or keeper.Known(), confirm=self.confirm
        )

    async def quiet(self) -> None:
        """Until no work is under way."""
        tasks = [entry.task for entry in self.keeper._entries.values() if entry.task is not None]
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    async def settle(self, goal: keeper.Goal, known: keeper.Known | None = None) -> keeper.Result:
        """Ask, let it work, ask again."""
        self.pursue(goal, known=known)
        await self.quiet()
        result, _ = self.pursue(goal, known=known)
        assert result is not None
        return result

    def writes(self) -> list[str]:
        return [f"{entry.method} {entry.template}" for entry in self.sim.journal.writes()]

    async def close(self) -> None:
        await self.keeper.close()
        await self.client.close()


def protect(*cidrs: str, owner: Owner = OWNER, **service: str) -> keeper.Protect:
    entries = [v1alpha1.AllowlistEntry(cidr=cidr) for cidr in cidrs]
    rules = firewall.rules_for(entries, ports={"API": 8000})
    return keeper.Protect(
        owner=owner,
        rules=rules,
        annotation=service.get("annotation", ""),
        address=service.get("address", ""),
        hostname=service.get("hostname", ""),
        has_service=bool(service),
    )


WIDE, NARROW = protect("192.0.2.0/24", "198.51.100.0/24"), protect("192.0.2.0/24")
RELEASE = keeper.Release(owner=OWNER)
