"""Fake nodes: any number of LKE nodes, their kubelets and block storage in one process.

Pods are scheduled by the real scheduler and owned by the real controllers; only what a node would do is
made up here, so that a test can have GPUs, crashes and slow starts without any.
"""

from lab.cluster.nodes.behaviour import Behaviour, Behaviours, Selector
from lab.cluster.nodes.client import ControlError, NodesClient
from lab.cluster.nodes.lifecycle import Times
from lab.cluster.nodes.server import FakeNodes

__all__ = ["Behaviour", "Behaviours", "ControlError", "FakeNodes", "NodesClient", "Selector", "Times"]
