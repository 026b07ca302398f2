"""Who may call what: tokens, scopes, expiry, and grants of restricted users. Pure.

401 for a missing, wrong or expired token; 403 for a missing scope and for a missing grant (CCM issue 392
reports 403 for an object that another user made). Source: Linode API description (`x-oauth-scope` of each
operation, "Profile grants").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from lab.linode.errors import ApiError, Json, forbidden, unauthenticated
from lab.linode.model import Token, User
from lab.linode.spec import Operation

ANY_SCOPE = "(any)"
# Path parameter -> kind of grant.
GRANT_KINDS = {"firewallId": "firewall", "nodeBalancerId": "nodebalancer", "linodeId": "linode"}
ADDITIONS = {"post-firewalls": "add_firewalls", "post-node-balancer": "add_nodebalancers"}


def bearer(header: str | None, tokens: Mapping[str, Token], now: datetime) -> Token:
    """The token of an Authorization header; raises 401."""
    kind, _, value = (header or "").partition(" ")
    token = tokens.get(value.strip())
    if kind.lower() != "bearer" or token is None:
        raise unauthenticated()
    if token.expires is not None and token.expires <= now:
        raise unauthenticated()
    return token


def holds(scopes: Sequence[str], needed: str | None) -> bool:
    """Whether scopes cover the needed one; read_write covers read_only, `*` covers all."""
    if needed is None or needed == ANY_SCOPE or "*" in scopes:
        return True
    area, _, level = needed.partition(":")
    return f"{area}:read_write" in scopes or (level == "read_only" and f"{area}:read_only" in scopes)


def granted(user: User, kind: str, ident: int, write: bool) -> bool:
    if not user.restricted:
        return True
    permission = user.grants.get(kind, {}).get(ident)
    return permission == "read_write" or (permission == "read_only" and not write)


def grant_error(
    operation: Operation, parameters: Mapping[str, Json], body: Json, user: User
) -> ApiError | None:
    """Why a restricted user may not call this; assigning a firewall needs both ends."""
    if not user.restricted:
        return None
    write = operation.method != "GET"
    needed = [(GRANT_KINDS[name], value) for name, value in parameters.items() if name in GRANT_KINDS]
    given = body if isinstance(body, dict) else {}
    if operation.id == "post-firewall-device":
        needed.append((given["type"], given["id"]))
    if operation.id == "put-nodebalancers-nodebalancerid-firewalls":
        needed += [("firewall", ident) for ident in given["firewall_ids"]]
    if operation.id == "post-node-balancer" and given.get("firewall_id") is not None:
        needed.append(("firewall", given["firewall_id"]))
    addition = ADDITIONS.get(operation.id)
    if addition is not None and addition not in user.add:
        return forbidden()
    if all(granted(user, kind, ident, write) for kind, ident in needed):
        return None
    return forbidden()


def visible(user: User, item: str | None, items: Sequence[Json]) -> list[Json]:
    """The part of a collection that a restricted user sees."""
    kind = {"Firewall": "firewall", "NodeBalancer": "nodebalancer", "Linode": "linode"}.get(item or "")
    if kind is None or not user.restricted:
        return list(items)
    return [one for one in items if granted(user, kind, one["id"], write=False)]
