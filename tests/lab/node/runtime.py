"""Configuration of containerd, CNI, kubelet and kube-proxy for one node in the run's namespace.

Sources: containerd docs/cri/config.md (1.6), kubelet.config.k8s.io/v1beta1, CNI bridge and host-local plugins.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from collections.abc import Sequence

from lab.node import images, space

NODE = "lab"
#: The first part of the chart's default `cluster.podRanges`.
POD_RANGE = "10.2.0.0/24"
CLUSTER_RANGE = "10.2.0.0/16"
DNS_ADDRESS = "10.128.0.10"

_CONTAINERD = """version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a lower score is refused, and the container dies at its start.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{folder}/cni"
"""


def containerd(folder: pathlib.Path) -> list[str]:
    """Write the configuration of containerd and CNI; the command."""
    text = _CONTAINERD.format(folder=folder, pause=images.reference(images.PAUSE))
    (folder / "containerd.toml").write_text(text)
    plugins = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    (folder / "cni").mkdir()
    network = {"cniVersion": "0.4.0", "name": "lab", "plugins": plugins}
    (folder / "cni" / "10-lab.conflist").write_text(json.dumps(network))
    return ["containerd", "--config", str(folder / "containerd.toml")]


def load(folder: pathlib.Path, found: Sequence[images.Image]) -> None:
    """Give containerd the images, unpacked.

    Raises:
        RuntimeError: containerd did not come up, or refused them.
    """
    control = ["ctr", "--address", str(folder / "containerd.sock"), "--namespace", "k8s.io"]
    deadline = time.monotonic() + 20
    while subprocess.run([*control, "version"], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError("containerd did not come up in 20 s")
        time.sleep(0.1)
    with subprocess.Popen(
        [*control, "images", "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        images.archive(found, process.stdin)
        process.stdin.close()
        said = process.stdout.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"containerd refused the images: {said[-1000:]}")


def kubelet(
    folder: pathlib.Path, program: pathlib.Path, kubeconfig: pathlib.Path, ca: pathlib.Path
) -> list[str]:
    """Write the kubelet's configuration; the command."""
    (folder / "resolv.conf").write_text("")
    configuration = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{space.control_group(folder)}",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "resolvConf": str(folder / "resolv.conf"),
        "syncFrequency": "10s",
        "volumePluginDir": str(folder / "volume-plugins"),
    }
    (folder / "kubelet.json").write_text(json.dumps(configuration))
    return [
        str(program),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={folder / 'kubelet'}",
        f"--node-ip={space.ADDRESS}",
        f"--hostname-override={NODE}",
        "--node-labels=node.kubernetes.io/instance-type=g2-gpu-rtx4000a1-m",
    ]


def proxy(program: pathlib.Path, kubeconfig: pathlib.Path) -> list[str]:
    """The command of kube-proxy; the kernel's connection tracking is left as it is."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={CLUSTER_RANGE}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]
