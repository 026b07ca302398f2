"""The lab itself: it starts in seconds, several at a time, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from lab.cluster import binaries
from lab.cluster.controlplane import ControlPlane, StartError
from lab.cluster.lab import Lab

TESTS = pathlib.Path(__file__).resolve().parents[1]
KIND = TESTS / "lab" / "kind"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "containers": [
            {"name": "main", "image": "example/main:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        ]
    },
}


def test_two_control_planes_run_side_by_side() -> None:
    with ControlPlane(controllers=False, scheduler=False) as one:
        with ControlPlane(controllers=False, scheduler=False) as other:
            one.kubectl("create", "namespace", "only-here")
            assert "only-here" not in other.kubectl("get", "namespaces")
        assert "only-here" in one.kubectl("get", "namespaces")


def test_a_component_that_cannot_start_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cluster.controlplane.SERVICE_RANGE", "not-a-network")
    plane = ControlPlane(controllers=False, scheduler=False)
    try:
        with pytest.raises(StartError, match=r"kube-apiserver ended with code 1[\s\S]*not a valid cidr"):
            plane.start()
    finally:
        plane.stop()


def test_nothing_stays_behind_when_the_owner_is_killed() -> None:
    script = (
        "import time\n"
        "from lab.cluster.controlplane import ControlPlane\n"
        "plane = ControlPlane(); plane.start()\n"
        "print(plane.folder, flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert owner.stdout is not None
    folder = owner.stdout.readline().strip()
    assert _mentioning(folder)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    _eventually(lambda: not _mentioning(folder) and not pathlib.Path(folder).exists())


def test_the_real_scheduler_gives_one_gpu_to_one_pod(lab: Lab) -> None:
    lab.plane.kubectl("create", "namespace", "gpus")
    try:
        for name in ("first", "second"):
            manifest = {**POD, "metadata": {"name": name, "namespace": "gpus"}}
            lab.plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
            if name == "first":
                lab.plane.kubectl("wait", "pod/first", "-n", "gpus", "--for=condition=Ready", "--timeout=20s")

        def refused() -> bool:
            path = "{.status.conditions[?(@.type=='PodScheduled')].message}"
            return "Insufficient nvidia.com/gpu" in lab.plane.kubectl(
                "get", "pod", "second", "-n", "gpus", "-o", f"jsonpath={path}"
            )

        _eventually(refused)
    finally:
        lab.plane.kubectl("delete", "namespace", "gpus", "--wait=false")


def test_logs_of_a_crashing_container_can_be_read(lab: Lab) -> None:
    lab.plane.kubectl("create", "namespace", "logs")
    words = "RuntimeError: the cause"
    rule = lab.nodes.behave("crash", namespace="logs", exit_code=3, previous_log=words, seconds=0.1)
    try:
        manifest = {
            **POD,
            "metadata": {"name": "unlucky", "namespace": "logs"},
            "spec": {"containers": [{"name": "main", "image": "example/main:1"}]},
        }
        lab.plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

        def readable() -> bool:
            answer = lab.plane.kubectl_result("logs", "unlucky", "-n", "logs", "--previous")
            return words in answer.stdout

        _eventually(readable)
    finally:
        lab.nodes.forget(rule)
        lab.plane.kubectl("delete", "namespace", "logs", "--wait=false")


def test_the_stand_in_for_kind_obeys_pytest_kind(tmp_path: pathlib.Path) -> None:
    name, kubeconfig = f"lab-test-{os.getpid()}", tmp_path / "kubeconfig"
    try:
        _kind("create", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}", "--image=kindest/node:v1")
        assert name in _kind("get", "clusters").split()
        kubectl = str(binaries.ensure() / "kubectl")
        nodes = subprocess.run(
            [
                kubectl,
                "--kubeconfig",
                str(kubeconfig),
                "--context",
                f"kind-{name}",
                "get",
                "nodes",
                "-o",
                "name",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert nodes.stdout.count("node/lke") == 3
        _kind("load", "docker-image", "--name", name, "example/image:1")
    finally:
        _kind("delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}")
    assert name not in _kind("get", "clusters").split()


def test_a_cluster_of_the_stand_in_ends_with_the_program_that_asked_for_it(tmp_path: pathlib.Path) -> None:
    name, kubeconfig = f"lab-orphan-{os.getpid()}", tmp_path / "kubeconfig"
    script = f"{KIND} create cluster --name={name} --kubeconfig={kubeconfig}; kill -9 $$"
    subprocess.run(["bash", "-c", script], check=False)
    _eventually(lambda: name not in _kind("get", "clusters").split())


def _kind(*arguments: str) -> str:
    answer = subprocess.run([str(KIND), *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _mentioning(text: str) -> list[str]:
    """Processes whose command line holds `text`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def _eventually(probe: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
