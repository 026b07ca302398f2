"""The lab: a control plane with fake nodes on it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from lab.cluster.controlplane import ControlPlane, StartError
from lab.cluster.nodes.client import NodesClient

CRDS = pathlib.Path(__file__).resolve().parents[3] / "crds"
_TESTS = pathlib.Path(__file__).resolve().parents[2]
#: One GPU node and two for the rest, as a small LKE cluster has them.
DEFAULT_POOLS = {"g2-gpu-rtx4000a1-m": 1, "g6-standard-8": 2}


class Lab:
    """A control plane, the CRD, and nodes whose pods behave as told.

    Args:
        pools: nodes by plan.
        envoy: whether the pods of gateways run the real Envoy, on the addresses that `loopback` gives.
        emulate: see ControlPlane.

    Attributes:
        plane: the control plane.
        nodes: steers nodes and the behaviour of their pods.
        pod_proxy: URL of the HTTP proxy that reaches the pods.
        loopback_prefix: first two numbers of the loopback addresses where real Envoys listen; no other
            lab on this machine uses them. Empty without real Envoys.
    """

    def __init__(
        self, *, pools: Mapping[str, int] | None = None, envoy: bool = False, emulate: str = ""
    ) -> None:
        self.plane = ControlPlane(crds=CRDS, emulate=emulate)
        self._envoy = envoy
        self._pools = dict(DEFAULT_POOLS if pools is None else pools)
        self._kubelet: subprocess.Popen[str] | None = None
        self.nodes: NodesClient
        self.pod_proxy = ""
        self.loopback_prefix = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; pods can be scheduled when this returns.

        Raises:
            StartError: a part did not come up.
        """
        self.plane.start()
        try:
            self._start_nodes()
            self._wait_for_service_account()
        except BaseException:
            self.stop()
            raise

    def loopback(self, pod_ip: str) -> str:
        """Where the real Envoy of a pod listens, with the ports of its manifest."""
        assert self.loopback_prefix, "gateways do not run for real"
        return f"{self.loopback_prefix}.{pod_ip.split('.', 2)[2]}"

    def stop(self) -> None:
        """End everything."""
        if self._kubelet is not None:
            assert self._kubelet.stdin is not None
            self._kubelet.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._kubelet.wait(timeout=5)
            self._kubelet.kill()
            self._kubelet.wait()
            if self._kubelet.stdout is not None:
                self._kubelet.stdout.close()
            self._kubelet = None
        self.plane.stop()

    def _start_nodes(self) -> None:
        kubeconfig = self.plane.kubeconfig_for("nodes", groups=["system:masters"])
        pools = [
            argument for plan, count in self._pools.items() for argument in ("--pool", f"{plan}={count}")
        ]
        options = ["--envoy-folder", str(self.plane.folder / "envoy")] if self._envoy else []
        with open(self.plane.folder / "nodes.log", "w") as log:
            self._kubelet = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "lab.cluster.nodes",
                    *("--kubeconfig", str(kubeconfig)),
                    *pools,
                    *options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(_TESTS)},
            )
        assert self._kubelet.stdout is not None
        line = self._kubelet.stdout.readline()
        if not line:
            raise StartError(f"the fake nodes did not come up:\n{self.plane.log('nodes')}")
        said = json.loads(line)
        self.nodes = NodesClient(said["control"])
        self.pod_proxy = said["podProxy"]
        self.loopback_prefix = said["loopback"]

    def _wait_for_service_account(self) -> None:
        """Pods are refused until the controller manager has made the namespace's service account."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.plane.kubectl_result("get", "serviceaccount", "default").returncode == 0:
                return
            time.sleep(0.1)
        raise StartError(f"no service account was made:\n{self.plane.log('kube-controller-manager')}")
