"""The end: of a sandbox, and of the operator. Last of all files here, by its name."""

from __future__ import annotations

import time

from ai_sandbox_operator.api import names
from chart import helm
from lab.node import NodeLab
from lab.node.sandbox import Sandbox
from results import Results

KINDS = (
    "pods,services,secrets,configmaps,persistentvolumeclaims,deployments,replicasets,jobs,networkpolicies,"
    "poddisruptionbudgets,endpointslices,leases"
)


def left(node: NodeLab, namespace: str) -> set[str]:
    """What there is in a namespace, by kind and name."""
    items = node.get(KINDS, "-n", namespace)["items"]
    return {f"{one['kind']}/{one['metadata']['name']}" for one in items}


def test_the_end_of_a_sandbox_leaves_the_chats_and_nothing_else_here_or_at_linode(
    node: NodeLab, sandbox: Sandbox, results: Results
) -> None:
    own = sandbox.get()["status"]["linode"]
    assert own["firewallID"] in firewalls(node)
    began = time.monotonic()
    node.kubectl("delete", "aisandbox", sandbox.name, "-n", sandbox.namespace, "--timeout=120s")
    took = time.monotonic() - began
    assert own["firewallID"] not in firewalls(node)
    assert own["nodeBalancerID"] not in node.linode.edit(lambda state: set(state.nodebalancers))
    wanted = {"ConfigMap/kube-root-ca.crt", f"PersistentVolumeClaim/{sandbox.name}-chat"}
    node.until("an empty namespace", lambda: left(node, sandbox.namespace) == wanted, timeout=330)
    results.row(
        "node-life",
        {
            "Step": "kubectl delete of the sandbox",
            "Outcome": "NodeBalancer, firewall, pods and all other objects are gone; the chats' volume stays",
            "Measured": f"the object is gone after {took:.0f} s",
        },
    )


def firewalls(node: NodeLab) -> set[int]:
    """Ids of the Cloud Firewalls of the account."""
    return node.linode.edit(lambda state: set(state.firewalls))


def test_uninstall_leaves_the_definition_and_what_the_chart_did_not_make(
    node: NodeLab, results: Results
) -> None:
    sandboxes = node.get("aisandboxes", "-A")["items"]
    assert not sandboxes
    node.helm.run("uninstall", helm.RELEASE, "--namespace", helm.NAMESPACE, "--wait", "--timeout", "90s")
    wanted = {"ConfigMap/kube-root-ca.crt", "Secret/linode-token", "Lease/sandbox-ai-sandbox"}
    node.until("an empty namespace", lambda: left(node, helm.NAMESPACE) == wanted)
    assert node.get("crd", f"{names.PLURAL}.{names.GROUP}")
    selector = "app.kubernetes.io/managed-by=Helm"
    cluster = node.get("clusterroles,clusterrolebindings", "-l", selector)["items"]
    assert cluster == []
    results.row(
        "node-life",
        {
            "Step": "helm uninstall",
            "Outcome": "left are the CRD, the namespace, the token's Secret and the operators' Lease",
            "Measured": "",
        },
    )
