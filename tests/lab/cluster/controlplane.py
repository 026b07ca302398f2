"""A real Kubernetes control plane on 127.0.0.1: etcd, API server, controller manager, scheduler.

Ready in a few seconds, several at a time, each with its own ports and folder. Everything it starts
belongs to `keeper.py`, so nothing is left behind when the test run is killed.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from lab.cluster import binaries, certificates

#: As on LKE.
SERVICE_RANGE = "10.128.0.0/16"
#: Of the Service `kubernetes`.
SERVICE_ADDRESS = "10.128.0.1"
LOOPBACK = "127.0.0.1"
START_TIMEOUT = 60.0
_TESTS = pathlib.Path(__file__).resolve().parents[2]


class StartError(Exception):
    """A component did not come up; the message ends with its last log lines."""


class ControlPlane:
    """One control plane.

    Args:
        controllers: start the controller manager.
        scheduler: start the scheduler.
        crds: folder of CustomResourceDefinitions that are there before the controllers are: the garbage
            collector learns of later ones within half a minute, and until then deletes no child of theirs.
        emulate: minor version, such as "1.34", whose APIs and features all components offer (KEP 4330).
        address: where the API server listens. Another than 127.0.0.1 is announced to pods, which then reach it by
            the Service `kubernetes`; logs then come from the node's address.
    """

    def __init__(
        self,
        *,
        controllers: bool = True,
        scheduler: bool = True,
        crds: pathlib.Path | None = None,
        emulate: str = "",
        address: str = LOOPBACK,
    ) -> None:
        self._crds = crds
        self._emulate = emulate
        self._address = address
        self._controllers = controllers
        self._scheduler = scheduler
        self._keeper: subprocess.Popen[str] | None = None
        self.folder = pathlib.Path()
        self.server = ""
        self.kubeconfig = pathlib.Path()
        self._bin = pathlib.Path()
        self._authority: certificates.Authority

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until the API server is ready.

        Raises:
            StartError: a component ended or did not become ready in time.
            binaries.BuildError: the programs could not be built.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._bin = binaries.ensure()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ai-sandbox-lab-"))
        self._authority = certificates.Authority(self.folder)
        self._authority.issue(
            "apiserver", common_name="kube-apiserver", addresses=(self._address, SERVICE_ADDRESS)
        )
        certificates.service_account_key(self.folder / "service-account.key")
        self._start_keeper()
        client_port, peer_port, api_port = free_ports(3)
        self.server = f"https://{self._address}:{api_port}"
        self.kubeconfig = self.kubeconfig_for("admin", groups=["system:masters"])
        etcd = f"http://127.0.0.1:{client_port}"
        self._run("etcd", *_etcd_flags(self.folder, etcd, peer_port))
        emulated = [f"--emulated-version={self._emulate}"] if self._emulate else []
        flags = _apiserver_flags(self.folder, etcd, self._address, api_port, self._controllers)
        self._run("kube-apiserver", *flags, *emulated)
        self._wait("kube-apiserver", "/readyz")
        if self._crds is not None:
            self.kubectl("apply", "--server-side", "-f", str(self._crds))
            # Named by a path, because `kubectl wait` fails on a status that has no conditions yet.
            established = '--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True'
            self.kubectl("wait", established, "--timeout=30s", "-f", str(self._crds))
        if self._controllers:
            kubeconfig = self.kubeconfig_for("controller-manager", groups=["system:masters"])
            self._run("kube-controller-manager", *_controller_flags(self.folder, kubeconfig), *emulated)
        if self._scheduler:
            kubeconfig = self.kubeconfig_for("scheduler", groups=["system:masters"])
            self._run("kube-scheduler", *_scheduler_flags(kubeconfig), *emulated)

    def stop(self) -> None:
        """End everything and remove the folder."""
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=30)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()
        self._keeper = None

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator; its standard output.

        Raises:
            RuntimeError: it failed; the message is its standard error.
        """
        result = self.kubectl_result(*arguments, stdin=stdin)
        if check and result.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def kubectl_result(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; everything it said."""
        return subprocess.run(
            [str(self._bin / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.folder)},
        )

    def kubeconfig_for(self, user: str, *, groups: Sequence[str] = ()) -> pathlib.Path:
        """A kubeconfig with a client certificate of that user."""
        certificate, key = self._authority.issue(f"user-{user}", common_name=user, groups=groups)
        path = self.folder / f"{user}.kubeconfig"
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "lab",
                    "cluster": {"server": self.server, "certificate-authority": str(self._authority.path)},
                }
            ],
            "users": [
                {"name": user, "user": {"client-certificate": str(certificate), "client-key": str(key)}}
            ],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "current-context": "lab",
        }
        path.write_text(json.dumps(config))
        return path

    def tls_context(self) -> ssl.SSLContext:
        """TLS with the administrator's certificate, for tests that speak HTTP themselves."""
        context = ssl.create_default_context(cafile=str(self._authority.path))
        context.load_cert_chain(self.folder / "user-admin.crt", self.folder / "user-admin.key")
        return context

    def pids(self) -> dict[str, int | None]:
        """Exit codes of the components; None while one runs."""
        return dict(self._order({}))

    def start_process(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> int:
        """Run a further program that ends with this control plane; its process id.

        Its log is `<name>.log` in the folder.
        """
        return int(self._order({"start": name, "argv": list(argv), "env": env or {}}))

    def stop_process(self, name: str) -> None:
        """End a program that `start_process` started."""
        self._order({"stop": name})

    def log(self, name: str, lines: int = 20) -> str:
        """Last lines of a component's log."""
        path = self.folder / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _run(self, name: str, *flags: str) -> None:
        self.start_process(name, [str(self._bin / name), *flags])

    def _start_keeper(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "lab.cluster.keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
        )

    def _order(self, order: dict[str, Any]) -> Any:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        return json.loads(self._keeper.stdout.readline())

    def _wait(self, name: str, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        context = self.tls_context()
        host, port = self.server.removeprefix("https://").split(":")
        while time.monotonic() < deadline:
            if (code := self._order({}).get(name)) is not None:
                raise StartError(f"{name} ended with code {code}:\n{self.log(name)}")
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=2)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise StartError(f"{name} was not ready in {START_TIMEOUT:.0f} s:\n{self.log(name)}")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _etcd_flags(folder: pathlib.Path, url: str, peer_port: int) -> list[str]:
    return [
        "--unsafe-no-fsync",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        "--log-level=warn",
    ]


def _apiserver_flags(
    folder: pathlib.Path, etcd: str, address: str, port: int, controllers: bool
) -> list[str]:
    fake = address == LOOPBACK
    return [
        f"--etcd-servers={etcd}",
        f"--secure-port={port}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--endpoint-reconciler-type={'none' if fake else 'lease'}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={folder / 'ca.crt'}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'service-account.key'}",
        f"--service-account-signing-key-file={folder / 'service-account.key'}",
        # Fake nodes serve logs on 127.0.0.1; their InternalIP is what a NodeBalancer would use.
        f"--kubelet-preferred-address-types={'Hostname' if fake else 'InternalIP'}",
        f"--kubelet-client-certificate={folder / 'apiserver.crt'}",
        f"--kubelet-client-key={folder / 'apiserver.key'}",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        *([] if controllers else ["--disable-admission-plugins=ServiceAccount"]),
    ]


def _controller_flags(folder: pathlib.Path, kubeconfig: pathlib.Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={folder / 'service-account.key'}",
        f"--root-ca-file={folder / 'ca.crt'}",
        "--use-service-account-credentials=false",
        "--leader-elect=false",
        "--secure-port=0",
        "--controllers=*,-node-lifecycle-controller,-persistentvolume-attach-detach-controller",
        f"--cluster-signing-cert-file={folder / 'ca.crt'}",
        f"--cluster-signing-key-file={folder / 'ca.key'}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _scheduler_flags(kubeconfig: pathlib.Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
