"""The calls of Linode's API that the operator makes.

An own client, because the official one has no time-outs, blocks, and repeats POST (linode_api4 5.48:
`LinodeClient(retry=...)`). How a call is made, and what is never repeated, stands in `transport.py`.
Collections are filtered with X-Filter; the API ignores query filters and would answer everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ai_sandbox_operator.linode import answers, errors, models, transport
from ai_sandbox_operator.linode.transport import M

DEFAULT_BASE_URL = "https://api.linode.com/v4"
REQUIRED_SCOPES = ("firewall:read_write", "nodebalancers:read_write")
FIREWALLS = "/networking/firewalls"
FIREWALL = "/networking/firewalls/{id}"
RULES = "/networking/firewalls/{id}/rules"
DEVICES = "/networking/firewalls/{id}/devices"
NODEBALANCERS = "/nodebalancers"
NODEBALANCER = "/nodebalancers/{id}"
NODEBALANCER_FIREWALLS = "/nodebalancers/{id}/firewalls"
PROFILE = "/profile"
GRANTS = "/profile/grants"

Call = transport.Call
Policy = transport.Policy


class LinodeClient(transport.Transport):
    """Asynchronous client; close it, or use it as a context manager."""

    # Firewalls

    async def list_firewalls(
        self, *, label: str | None = None, tag: str | None = None
    ) -> list[models.Firewall]:
        """Firewalls with this label or this tag; without either, all that the token's user may see."""
        return await self._collect(models.Firewall, FIREWALLS, filter_=_any_of(label=label, tags=tag))

    async def get_firewall(self, firewall_id: int) -> models.Firewall | None:
        """The firewall with rules, status and assignments; None if it does not exist."""
        return await self._find(models.Firewall, FIREWALL, firewall_id)

    async def create_firewall(
        self, *, label: str, tags: Iterable[str], rules: models.FirewallRules
    ) -> models.Firewall:
        """A new firewall, its rules in place from the start.

        Raises:
            Ambiguous: it may exist; look it up by label.
            Invalid: also for a label that is taken; see `is_duplicate_label`.
        """
        body = {"label": label, "tags": list(tags), "rules": rules.to_wire()}
        return self._parse(models.Firewall, await self._call("POST", FIREWALLS, body=body))

    async def update_firewall(
        self, firewall_id: int, *, status: str | None = None, tags: Iterable[str] | None = None
    ) -> models.Firewall:
        """Change status or tags; absent ones stay."""
        body: dict[str, Any] = {} if status is None else {"status": status}
        if tags is not None:
            body["tags"] = list(tags)
        return self._parse(models.Firewall, await self._call("PUT", FIREWALL, firewall_id, body=body))

    async def get_rules(self, firewall_id: int) -> models.LiveRules:
        """The rules alone."""
        return self._parse(models.LiveRules, await self._call("GET", RULES, firewall_id))

    async def replace_rules(self, firewall_id: int, rules: models.FirewallRules) -> models.LiveRules:
        """Replace the whole set; the answer is what the API now holds. Never repeated."""
        answer = await self._call("PUT", RULES, firewall_id, body=rules.to_wire(), repeat=False)
        return self._parse(models.LiveRules, answer)

    async def delete_firewall(self, firewall_id: int) -> None:
        """Delete it; done if it does not exist. The API allows this while it is assigned: check first."""
        await self._remove(FIREWALL, firewall_id)

    async def firewall_devices(self, firewall_id: int) -> list[models.FirewallDevice]:
        """Assignments of the firewall."""
        return await self._collect(models.FirewallDevice, DEVICES, firewall_id)

    async def attach_firewall(self, firewall_id: int, *, nodebalancer_id: int) -> models.FirewallDevice:
        """Assign the firewall to a NodeBalancer that has none. Prefer set_nodebalancer_firewalls,
        which can be repeated."""
        body = {"id": nodebalancer_id, "type": "nodebalancer"}
        answer = await self._call("POST", DEVICES, firewall_id, body=body)
        return self._parse(models.FirewallDevice, answer)

    # NodeBalancers

    async def get_nodebalancer(self, nodebalancer_id: int) -> models.NodeBalancer | None:
        """The NodeBalancer; None if it does not exist."""
        return await self._find(models.NodeBalancer, NODEBALANCER, nodebalancer_id)

    async def find_nodebalancers(
        self, *, ipv4: str | None = None, tag: str | None = None
    ) -> list[models.NodeBalancer]:
        """NodeBalancers with this address or this tag."""
        if ipv4 is None and tag is None:
            raise ValueError("an address or a tag is needed")
        return await self._collect(models.NodeBalancer, NODEBALANCERS, filter_=_any_of(ipv4=ipv4, tags=tag))

    async def nodebalancer_firewalls(self, nodebalancer_id: int) -> list[models.Firewall]:
        """Firewalls assigned to the NodeBalancer."""
        return await self._collect(models.Firewall, NODEBALANCER_FIREWALLS, nodebalancer_id)

    async def set_nodebalancer_firewalls(
        self, nodebalancer_id: int, firewall_ids: Iterable[int]
    ) -> list[models.Firewall]:
        """Replace the assignment; the answer is what the API now holds."""
        body = {"firewall_ids": list(firewall_ids)}
        answer = await self._call("PUT", NODEBALANCER_FIREWALLS, nodebalancer_id, body=body)
        page = self._parse(answers.Page, answer)
        return [self._model(models.Firewall, item, answer) for item in page.data]

    async def delete_nodebalancer(self, nodebalancer_id: int) -> None:
        """Delete it; done if it does not exist."""
        await self._remove(NODEBALANCER, nodebalancer_id)

    # Preflight

    async def profile(self) -> models.Profile:
        """The token's user, and the token's scopes."""
        answer = await self._call("GET", PROFILE)
        profile = self._parse(models.Profile, answer)
        return profile.model_copy(update={"scopes": answers.scopes(answer.headers.get("X-OAuth-Scopes"))})

    async def grants(self) -> models.Grants | None:
        """Grants of a restricted user; None for an unrestricted one."""
        answer = await self._call("GET", GRANTS)
        return None if answer.status == 204 else self._parse(models.Grants, answer)

    # Shapes of calls

    async def _find(self, model: type[M], route: str, ident: int) -> M | None:
        try:
            return self._parse(model, await self._call("GET", route, ident))
        except errors.NotFound:
            return None

    async def _remove(self, route: str, ident: int) -> None:
        try:
            await self._call("DELETE", route, ident)
        except errors.NotFound:
            return

    async def _collect(
        self,
        model: type[M],
        route: str,
        ident: int | None = None,
        *,
        filter_: Mapping[str, Any] | None = None,
    ) -> list[M]:
        """All pages. An object that moves between pages while we read is reported once."""
        found: dict[Any, M] = {}
        number = 1
        while True:
            try:
                answer = await self._call("GET", route, ident, page=number, filter_=filter_)
            except errors.NotFound:
                if number == 1:
                    raise
                return list(found.values())  # the list became shorter than the page we asked for
            page = self._parse(answers.Page, answer)
            for item in page.data:
                found.setdefault(item.get("id"), self._model(model, item, answer))
            if number >= page.pages:
                return list(found.values())
            number += 1


def is_duplicate_label(error: errors.Invalid) -> bool:
    """Whether a creation was refused because the label is taken (text as reported from the live API)."""
    return error.says("label must be unique")


def _any_of(**wanted: str | None) -> dict[str, Any] | None:
    """An X-Filter that admits objects with any of the attributes."""
    parts = [{name: value} for name, value in wanted.items() if value is not None]
    if len(parts) > 1:
        return {"+or": parts}
    return parts[0] if parts else None
