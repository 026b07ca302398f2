"""A stand-in for Linode's cloud controller manager: the second actor on the account.

Watches Services of type LoadBalancer and acts on the API as CCM v0.9.8 does, hazards included. Compared
with `data/ccm-recordings.jsonl` (the real one's requests) by a test.
"""

from lab.linode.ccm.balancer import Options
from lab.linode.ccm.controller import REAL_RETRY_MAX, REAL_RETRY_MIN
from lab.linode.ccm.manager import CloudControllerManager

__all__ = ["REAL_RETRY_MAX", "REAL_RETRY_MIN", "CloudControllerManager", "Options"]
