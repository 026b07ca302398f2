"""Everything that can go wrong with Linode, in one tree.

LinodeError
├── Unavailable        5xx, time-outs, connection errors: try again later
│   ├── RateLimited    429, or our own budget is spent
│   └── Busy           400 "Linode busy.": the object is being changed by something else
├── Ambiguous          the reply to a creation was lost: look before creating again
├── NoToken            the operator has no usable token
├── Unauthorized       401: the token is wrong, expired or revoked
├── Forbidden          403: the token lacks a scope, or its user a grant
├── NotFound           404: no such object, or not visible to the token's user
├── Invalid            other 4xx: the request can never succeed as it is
├── Superseded         what was to be written is no longer wanted
├── ForeignFirewall    a firewall has our label but not our tags: never touched
└── TooManyNetworks    the allowlist does not fit into one Cloud Firewall

`str()` of each is fit for a condition's message: what happened and what to do, never the token (I6).
Source of statuses and texts: Linode API description, `components/responses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Reason:
    """One entry of the API's `errors` list; `field` is empty if the error names none."""

    text: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.text.rstrip('.')} (field {self.field})" if self.field else self.text.rstrip(".")


class LinodeError(Exception):
    """Base of the tree.

    Attributes:
        retry_after: seconds after which another try makes sense; None if a person must act first.
    """

    retry_after: float | None = None


class Unavailable(LinodeError):
    """Linode cannot answer now.

    Attributes:
        repeat: whether a repetition within seconds makes sense; not during maintenance.
    """

    repeat = True

    def __init__(self, what: str, *, retry_after: float = 5.0, repeat: bool = True) -> None:
        self.repeat = repeat
        super().__init__(
            f"Linode's API is not available: {what}. The operator tries again in {seconds(retry_after)}; "
            "nothing needs to be done unless this lasts (see status.linode.com)."
        )
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """Too many requests, counted by Linode or by our own budget."""

    def __init__(self, *, retry_after: float) -> None:
        LinodeError.__init__(
            self,
            "The request budget of the Linode user is spent. The operator tries again in "
            f"{seconds(retry_after)}; if this lasts, give the operator a Linode user of its own, "
            "because all tokens of a user share one budget.",
        )
        self.retry_after = retry_after


class Busy(Unavailable):
    """The object is locked by another change."""

    def __init__(self, route: str) -> None:
        super().__init__(f"{route} found the object busy with another change", retry_after=2.0)


class Ambiguous(LinodeError):
    """Something may have been created, but the reply was lost. Never repeat blindly."""

    def __init__(self, route: str, what: str) -> None:
        super().__init__(
            f"The reply to {route} was lost ({what}), so it is not known whether it took effect. "
            "The operator looks before it tries again; nothing needs to be done."
        )
        self.retry_after = 5.0


class NoToken(LinodeError):
    """There is no token to send."""

    def __init__(self, what: str = "there is none") -> None:
        super().__init__(
            f"The operator has no usable Linode API token: {what}. Give it one with the scopes "
            "firewall:read_write and nodebalancers:read_write, or use exposure ClusterIP."
        )


class Unauthorized(LinodeError):
    """The API does not know the token."""

    def __init__(self, route: str) -> None:
        super().__init__(
            f"Linode refused the operator's API token ({route}: 401). It is wrong, expired or revoked: "
            "create a new token and put it into the operator's token Secret; no restart is needed."
        )


class Forbidden(LinodeError):
    """The token or its user may not do this.

    Attributes:
        needed: scopes that the API says the call needs.
        held: scopes that the API says the token has.
    """

    def __init__(self, route: str, *, needed: Iterable[str] = (), held: Iterable[str] = ()) -> None:
        self.needed = tuple(needed)
        self.held = tuple(held)
        lacking = missing_scopes(self.needed, self.held)
        if lacking:
            remedy = (
                f"The operator's token lacks the scope {' and '.join(lacking)}: create a token that has it."
            )
        else:
            remedy = (
                "The user of the operator's token lacks a grant: give it read_write on this firewall or "
                "NodeBalancer and, for new firewalls, the global grant add_firewalls; or use an "
                "unrestricted user."
            )
        super().__init__(f"Linode does not allow {route} (403). {remedy}")


class NotFound(LinodeError):
    """No such object, or one that the token's user cannot see."""

    def __init__(self, route: str) -> None:
        super().__init__(
            f"Linode has no object for {route} (404). It was deleted, or the token's user may not see it; "
            "the operator makes a new one if the sandbox needs it."
        )
        self.retry_after = 5.0


class Invalid(LinodeError):
    """The API can never accept this request.

    Attributes:
        status: HTTP status.
        reasons: what the API said.
    """

    def __init__(self, route: str, *, status: int, reasons: Iterable[Reason] = ()) -> None:
        self.status = status
        self.reasons = tuple(reasons)
        said = "; ".join(str(reason) for reason in self.reasons) or "no reason given"
        super().__init__(
            f"Linode refused {route} ({status}): {said}. Correct what it names; if the spec does not "
            "name it, report a bug of the operator."
        )

    def says(self, text: str) -> bool:
        """Whether a reason holds the text, whatever the case."""
        return any(text.lower() in reason.text.lower() for reason in self.reasons)


class Superseded(LinodeError):
    """The sandbox's spec changed before a write; its new one says what is wanted."""

    def __init__(self) -> None:
        super().__init__("The sandbox changed meanwhile; its new spec is acted on next.")


class ForeignFirewall(LinodeError):
    """A firewall of somebody else is in the way. It is reported, never changed (I2)."""

    def __init__(self, *, label: str, firewall_id: int | None) -> None:
        self.label = label
        self.firewall_id = firewall_id
        which = "not visible to the token's user" if firewall_id is None else f"id {firewall_id}"
        super().__init__(
            f"The Cloud Firewall {label} ({which}) has the label that this sandbox needs, but "
            "not the tags of this cluster and sandbox, so the operator does not touch it. Rename or "
            "delete it."
        )


class TooManyNetworks(LinodeError):
    """The allowlist does not fit into one Cloud Firewall.

    Attributes:
        networks: networks left after joining neighbours.
        rules: rules they would need.
    """

    def __init__(self, *, networks: int, rules: int, limit_rules: int, limit_addresses: int) -> None:
        self.networks = networks
        self.rules = rules
        super().__init__(
            f"The allowlist needs {networks} networks in {rules} firewall rules after joining neighbours; "
            f"a Cloud Firewall holds {limit_rules} rules of {limit_addresses} networks. Use fewer or larger "
            "networks, or give all of them the same targets."
        )


def missing_scopes(needed: Iterable[str], held: Iterable[str]) -> tuple[str, ...]:
    """Scopes that are needed but not held; read_write covers read_only, `*` covers all."""
    have = set(held)
    if "*" in have:
        return ()
    return tuple(
        scope
        for scope in needed
        if scope not in have and f"{scope.removesuffix(':read_only')}:read_write" not in have
    )


def seconds(value: float) -> str:
    """A waiting time for people."""
    whole = max(1, round(value))
    return f"{whole} second" if whole == 1 else f"{whole} seconds"
