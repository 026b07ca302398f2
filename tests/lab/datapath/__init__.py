"""The way of a request outside the cluster: clients, the internet, Cloud Firewall and NodeBalancer.

`Internet` builds it around a node from what the Linode simulator's account says and keeps to the account's
changes. Everything is in network namespaces of their own; no packet leaves the machine.
"""

from lab.datapath.asking import Client, Request, Result, Traffic
from lab.datapath.namespace import Namespace, Place, missing
from lab.datapath.network import NODEBALANCER_SOURCE, Internet, Node

__all__ = [
    "NODEBALANCER_SOURCE",
    "Client",
    "Internet",
    "Namespace",
    "Node",
    "Place",
    "Request",
    "Result",
    "Traffic",
    "missing",
]
