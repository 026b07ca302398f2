"""What is not known about the live API, as switches: a test chooses, the simulator does not guess silently.

Each field names an open question of the project's list of Linode facts; the defaults are the strictest
reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lab.linode.errors import ApiError


@dataclass
class Reply:
    """A refusal whose exact status and text are not known."""

    status: int
    reason: str
    field: str | None = None

    def error(self) -> ApiError:
        return ApiError(self.status, self.reason, self.field)


@dataclass
class Behaviour:
    # A second firewall on a NodeBalancer: "refuse" with the reply below, or "replace" the first silently.
    second_firewall: Literal["refuse", "replace"] = "refuse"
    second_firewall_reply: Reply = field(
        default_factory=lambda: Reply(400, "Only one firewall can be assigned to a service", "id")
    )
    # The same device twice: "refuse", or answer with the device that is there ("same").
    same_device: Literal["refuse", "same"] = "refuse"
    same_device_reply: Reply = field(
        default_factory=lambda: Reply(400, "The service is already assigned to this firewall", "id")
    )
    # POST /nodebalancers with a firewall_id that does not exist: refused, or taken and ignored ("accept").
    unknown_firewall_at_birth: Literal["refuse", "accept"] = "refuse"
    unknown_firewall_reply: Reply = field(default_factory=lambda: Reply(403, "Unauthorized"))
    # Whether host bits and IPv6 spellings are rewritten when rules are stored.
    canonical_addresses: bool = False
    # Firewalls per account: a limit exists, its value is not published.
    max_firewalls: int | None = None
    max_firewalls_reply: Reply = field(
        default_factory=lambda: Reply(400, "The firewall limit of this account is reached")
    )
