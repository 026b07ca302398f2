"""What the README promises, with kubectl, through pytest-kind.

One story in order, on one cluster: install, apply, look, open, refuse, suspend, delete.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from lab import rights
from lab.linode import LinodeSimulatorThread
from lab.proxy import REFUSED
from lab.samples import SAMPLES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUBLIC = "mistral"
PRIVATE = "smallest"


@pytest.fixture(scope="module")
def operator(
    cluster: Any,
    linode: LinodeSimulatorThread,
    pod_proxy: str,
    hub: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[pathlib.Path]:
    """The operator, with the chart's rights, and Linode's cloud controller manager; gives the operator's log."""
    kubeconfig = str(pathlib.Path(cluster.kubeconfig_path).resolve())
    folder = tmp_path_factory.mktemp("operator")
    account = _account(cluster, folder)
    python = [sys.executable, "-m"]
    commands = {
        "operator": [
            *python, "ai_sandbox_operator", "run", "--kubeconfig", account, "--linode-url", linode.url,
            "--health-host", "127.0.0.1", "--health-port", "0", "--linode-check-interval", "5",
            "--pod-proxy", pod_proxy, "--hub-endpoint", hub,
        ],
        "ccm": [*python, "lab.linode", "ccm", "--kubeconfig", kubeconfig, "--linode-url", linode.url],
    }  # fmt: skip
    env = {
        **os.environ,
        "LINODE_TOKEN": "operator-token",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT / "tests")]),
    }
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context(open(folder / f"{name}.log", "wb"))
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            stack.callback(_end, process)
        yield folder / "operator.log"
        assert REFUSED not in (folder / "operator.log").read_text(), "the operator lacks rights"


def _account(cluster: Any, folder: pathlib.Path) -> str:
    """A kubeconfig of the operator's account, which serves the whole cluster."""
    manifests = folder / "rights.json"
    items = rights.objects("default")
    manifests.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    cluster.kubectl("apply", "--server-side", "-f", str(manifests))
    token = cluster.kubectl("create", "token", rights.NAME).strip()
    config = yaml.safe_load(pathlib.Path(cluster.kubeconfig_path).read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "account.kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


def test_a_private_sandbox_is_protected_before_it_is_ready(cluster: Any, operator: pathlib.Path) -> None:
    cluster.kubectl("apply", "-f", str(SAMPLES / "smallest.yaml"))
    cluster.kubectl("wait", f"aisb/{PRIVATE}", "--for=condition=NetworkProtected", "--timeout=60s")
    services = json.loads(cluster.kubectl("get", "services", "-o", "json"))["items"]
    assert [s["metadata"]["name"] for s in services if s["spec"]["type"] == "LoadBalancer"] == []
    policies = cluster.kubectl("get", "networkpolicies", "-o", "name").split()
    assert f"networkpolicy.networking.k8s.io/{PRIVATE}-default-deny" in policies


def test_it_becomes_ready(cluster: Any, operator: pathlib.Path, on_fake_nodes: bool) -> None:
    if not on_fake_nodes:
        pytest.skip("a kind node has no GPU and cannot run the engine")
    cluster.kubectl("wait", f"aisb/{PRIVATE}", "--for=condition=Ready", "--timeout=60s")
    header, row = cluster.kubectl("get", "aisb", PRIVATE).splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "MODEL", "GPU", "ENDPOINT", "AGE"]
    assert row.split()[:3] == [PRIVATE, "True", "AllReady"]


def test_a_bad_spec_is_refused_with_its_field_and_the_remedy(cluster: Any, operator: pathlib.Path) -> None:
    patch = json.dumps({"spec": {"access": {"allowlist": [{"cidr": "203.0.113.4/24"}]}}})
    with pytest.raises(subprocess.CalledProcessError) as failure:
        cluster.kubectl("patch", "aisb", PRIVATE, "--type=merge", "-p", patch, stderr=subprocess.PIPE)
    assert "spec.access.allowlist[0].cidr" in failure.value.stderr
    assert "must" in failure.value.stderr


def test_a_public_sandbox_gets_its_firewall_first(
    cluster: Any, linode: LinodeSimulatorThread, operator: pathlib.Path
) -> None:
    cluster.kubectl("apply", "-f", str(SAMPLES / "mistral.yaml"))
    cluster.kubectl("wait", f"aisb/{PUBLIC}", "--for=condition=Exposed", "--timeout=90s")
    cluster.kubectl("wait", f"aisb/{PUBLIC}", "--for=condition=NetworkProtected", "--timeout=60s")
    made = [e.path for e in linode.sim.journal if e.method == "POST" and e.wrote]
    assert made == ["/networking/firewalls", "/nodebalancers"]
    status = json.loads(cluster.kubectl("get", "aisb", PUBLIC, "-o", "json"))["status"]["linode"]
    snapshot = linode.sim.state.snapshot()
    assert snapshot.admits(status["nodeBalancerID"], "203.0.113.4", 8000)
    assert not snapshot.admits(status["nodeBalancerID"], "203.0.113.5", 8000)


def test_suspending_keeps_the_address(cluster: Any, operator: pathlib.Path) -> None:
    before = json.loads(cluster.kubectl("get", "aisb", PUBLIC, "-o", "json"))["status"]["endpoints"]
    patch = json.dumps({"spec": {"lifecycle": {"state": "Suspended"}}})
    cluster.kubectl("patch", "aisb", PUBLIC, "--type=merge", "-p", patch)

    def suspended() -> bool:
        deployment = json.loads(cluster.kubectl("get", "deployment", f"{PUBLIC}-engine", "-o", "json"))
        live = json.loads(cluster.kubectl("get", "aisb", PUBLIC, "-o", "json"))
        ready = next(c for c in live["status"]["conditions"] if c["type"] == "Ready")
        return bool(deployment["spec"]["replicas"] == 0 and ready["reason"] == "Suspended")

    _eventually(suspended)
    after = json.loads(cluster.kubectl("get", "aisb", PUBLIC, "-o", "json"))["status"]["endpoints"]
    assert after == before


def test_deleting_leaves_only_the_chats(
    cluster: Any, linode: LinodeSimulatorThread, operator: pathlib.Path
) -> None:
    cluster.kubectl("delete", "aisb", "--all", "--timeout=90s")
    snapshot = linode.sim.state.snapshot()
    assert not snapshot.nodebalancers
    assert not snapshot.firewalls

    def swept() -> bool:
        kinds = (
            "deployments,jobs,services,secrets,networkpolicies,poddisruptionbudgets,persistentvolumeclaims"
        )
        left = cluster.kubectl(
            "get", kinds, "-l", "app.kubernetes.io/managed-by=ai-sandbox-operator", "-o", "name"
        )
        return sorted(left.split()) == [f"persistentvolumeclaim/{name}-chat" for name in (PUBLIC, PRIVATE)]

    _eventually(swept)
    assert linode.sim.violations == []


def test_the_operator_says_nothing_secret_and_ends_without_complaint(
    cluster: Any, operator: pathlib.Path
) -> None:
    text = operator.read_text()
    assert "operator-token" not in text
    assert "Traceback" not in text


def _eventually(probe: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, probe.__name__
        time.sleep(0.3)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
