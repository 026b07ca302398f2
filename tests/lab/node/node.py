"""The node lab: control plane, one real node, DNS, volumes, a GPU that the node claims to have, both simulators."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from chart.helm import CHART, HELM_4, NAMESPACE, RELEASE, Helm
from chart.helm import ensure as helm_program
from lab.cluster.controlplane import ControlPlane, StartError
from lab.hub import Generous, Hub, HubServer
from lab.linode import LinodeSimulatorThread, RateLimits
from lab.linode.ccm import CloudControllerManager
from lab.node import images, manifests, runtime, space, tools
from lab.node.storage import Provisioner

TOKEN = "operator-token"
#: What the node claims to have; no container gets a device.
GPUS = "4"
OPERATORS = "app.kubernetes.io/name=ai-sandbox-operator"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
Object = dict[str, Any]


class NodeLab:
    """A cluster of one real node. Made inside `space` only; one at a time.

    Attributes:
        address: the node's, where all servers of the lab listen.
        plane: the control plane; `kubeconfig` is the administrator's.
        linode: the simulator of Linode's API, with a thread of its own: `linode.sim`, `linode.edit(...)`.
        hub, hub_url: the simulator of the model hub; any small model exists.
        ccm: the cloud controller manager; it lives in the simulator's loop: `linode.run(ccm.restart())`.
        helm: Helm 4 against this cluster.
        namespace_pid: a process in the namespace, for `ip link set VETH netns PID`.
        timings: seconds that each part of the start took.
    """

    address = space.ADDRESS

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        own = space.folder()
        assert own is not None, "a node needs a namespace of its own: python -m lab.node run ..."
        self.folder = own
        self.namespace_pid = os.getpid()
        self.timings: dict[str, float] = {}
        self._say = say
        self._stack = contextlib.ExitStack()
        self.plane = ControlPlane(address=space.ADDRESS)
        self.linode: LinodeSimulatorThread
        self.hub = Hub(generous=Generous())
        self.hub_url = ""
        self.ccm: CloudControllerManager
        self.helm: Helm

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.plane.kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator; its standard output.

        Raises:
            RuntimeError: it failed; the message is its standard error.
        """
        return self.plane.kubectl(*arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """`kubectl get` as a value."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Server-side apply."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=json.dumps(body))

    def until(
        self, what: str, found: Callable[[], Any], *, timeout: float = 60.0, period: float = 0.5
    ) -> Any:
        """Poll until something true comes; that.

        Raises:
            AssertionError: it did not come in time; with the pods and their last words.
        """
        deadline = time.monotonic() + timeout
        while True:
            if value := found():
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come in {timeout:.0f} s\n{self.describe()}")
            time.sleep(period)

    def values(self, values: Mapping[str, Any] | None = None) -> Object:
        """The chart's values for this cluster, with others on top, section by section."""
        own: Object = {
            "linode": {
                "url": self.linode.url,
                "tokenSecretRef": {"name": "linode-token"},
                "checkIntervalSeconds": 15,
            },
            "hub": {"endpoint": self.hub_url},
        }
        for key, value in (values or {}).items():
            own[key] = {**own.get(key, {}), **value} if isinstance(value, Mapping) else value
        return own

    def install_operator(self, values: Mapping[str, Any] | None = None, *, timeout: str = "120s") -> str:
        """Install the chart, or upgrade the release, and wait until the operator's pods are ready.

        Args:
            values: besides those that lead to the simulators.
            timeout: of Helm.

        Raises:
            helm.Refused: Helm ended with an error.
        """
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": RESTRICTED},
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "linode-token", "namespace": NAMESPACE},
            "stringData": {"token": TOKEN},
        }
        self.apply(namespace)
        self.apply(secret)
        flags = ["--install", "--namespace", NAMESPACE, "--wait", "--timeout", timeout]
        return self.helm.run("upgrade", RELEASE, str(CHART), *flags, values=self.values(values))

    def operators(self) -> list[Object]:
        """The operator's pods that are not about to end."""
        items = self.get("pods", "-n", NAMESPACE, "-l", OPERATORS)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def describe(self) -> str:
        """Pods, sandboxes, events and the last lines of the operator, for failed assertions."""
        commands = (
            ["get", "pods", "-A", "-o", "wide"],
            ["get", "aisandboxes", "-A", "-o", "wide"],
            ["get", "events", "-A", "--sort-by=.lastTimestamp"],
            ["logs", "-n", NAMESPACE, "-l", OPERATORS, "--tail=15", "--prefix"],
        )
        results = [self.plane.kubectl_result(*command) for command in commands]
        parts = ["\n".join((r.stdout + r.stderr).splitlines()[-40:]) for r in results]
        return "\n\n".join([*parts, self.plane.log("kubelet", 10)])

    def _start(self) -> None:
        programs = tools.ensure()
        with self._part("images"):
            found = images.ensure(programs["coredns"], self._say)
        with self._part("containerd"):
            self._stack.callback(self.plane.stop)
            self.plane.start()
            self.plane.start_process("containerd", runtime.containerd(self.folder))
            runtime.load(self.folder, found)
        with self._part("node"):
            kubeconfig = self.plane.kubeconfig_for("node", groups=["system:masters"])
            ca = self.plane.folder / "ca.crt"
            self.plane.start_process(
                "kubelet", runtime.kubelet(self.folder, programs["kubelet"], kubeconfig, ca)
            )
            self.plane.start_process("kube-proxy", runtime.proxy(programs["kube-proxy"], kubeconfig))
            self._wait_for_node()
        with self._part("cluster"):
            self._serve_simulators()
            self.apply(*manifests.storage_classes(), *manifests.dns())
            provisioner = Provisioner(self.plane.kubectl, self.folder / "volumes", runtime.NODE)
            provisioner.start()
            self._stack.callback(provisioner.stop)
            home = self.folder / "helm"
            home.mkdir()
            self.helm = Helm(HELM_4, helm_program(HELM_4), home, self.kubeconfig)
            self.kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=60s")

    def _wait_for_node(self) -> None:
        self.until("the node", self._nodes)
        gpus = {"status": {"capacity": {"nvidia.com/gpu": GPUS}, "allocatable": {"nvidia.com/gpu": GPUS}}}
        self.kubectl("patch", "node", runtime.NODE, "--subresource=status", "-p", json.dumps(gpus))
        self.kubectl("wait", "--for=condition=Ready", f"node/{runtime.NODE}", "--timeout=60s")
        # The controller that would lift the taint of a new node does not run in the lab.
        self.kubectl("patch", "node", runtime.NODE, "--type=merge", "-p", '{"spec": {"taints": null}}')
        self.until(
            "its GPU", lambda: self.get("node", runtime.NODE)["status"]["allocatable"].get("nvidia.com/gpu")
        )

    def _nodes(self) -> Any:
        """Raises: StartError, if a program has ended."""
        for name, code in self.plane.pids().items():
            if code is not None:
                raise StartError(f"{name} ended with code {code}:\n{self.plane.log(name)}")
        return self.get("nodes")["items"]

    def _serve_simulators(self) -> None:
        self.linode = self._stack.enter_context(
            LinodeSimulatorThread(host=self.address, limits=RateLimits.off())
        )
        self.hub_url = self._stack.enter_context(HubServer(self.hub, host=self.address))
        self.ccm = CloudControllerManager(kubeconfig=self.kubeconfig, linode_url=self.linode.url)
        self.linode.run(self.ccm.__aenter__())
        self._stack.callback(lambda: self.linode.run(self.ccm.__aexit__(None, None, None)))

    @contextlib.contextmanager
    def _part(self, name: str) -> Any:
        began = time.monotonic()
        yield
        self.timings[name] = time.monotonic() - began
        self._say(f"{name}: {self.timings[name]:.1f} s")
