"""One real node: containerd, runc, kubelet and kube-proxy under the lab's control plane, with real images.

Everything lives in a network namespace of its own (`space`), in which the tests run as well:

    python -m lab.node run python -m pytest tests/node

Nothing in it reaches another network. `node0` is a bridge with the node's address 10.250.0.1/24; there listen the
API server, the simulators of Linode and of the model hub, and NodePorts. Pods have 10.2.0.0/24, Services
10.128.0.0/16. The bridge CNI enforces no NetworkPolicy: what policies say is proved elsewhere.
"""

from lab.node.node import NodeLab

__all__ = ["NodeLab"]
