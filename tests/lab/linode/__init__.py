"""A simulator of the part of Linode's API that the operator and the cloud controller manager use.

`LinodeSimulator` (in the test's loop), `LinodeSimulatorThread` (for synchronous tests), `python -m
lab.linode` (a process). `CloudControllerManager` in `lab.linode.ccm` is the second actor on the account.
"""

from lab.linode.behaviour import Behaviour, Reply
from lab.linode.errors import ApiError
from lab.linode.faults import Fault
from lab.linode.journal import Entry
from lab.linode.model import Snapshot, Token, User
from lab.linode.ratelimit import RateLimits
from lab.linode.server import LinodeSimulator, LinodeSimulatorThread, Write
from lab.linode.state import State

__all__ = [
    "ApiError",
    "Behaviour",
    "Entry",
    "Fault",
    "LinodeSimulator",
    "LinodeSimulatorThread",
    "RateLimits",
    "Reply",
    "Snapshot",
    "State",
    "Token",
    "User",
    "Write",
]
