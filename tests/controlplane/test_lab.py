"""The lab itself: what other tests rely on without looking.

A pod that fails as told is worth nothing when the lab would have failed it anyway, and a green test means
little on a control plane that outlives it. So each behaviour is shown next to its opposite, and each
clean-up next to the processes that were there before.
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
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from lab import __main__ as command_line
from lab.cluster import binaries, controlplane
from lab.cluster.controlplane import ControlPlane, StartError
from lab.cluster.lab import Lab

T = TypeVar("T")
Object = dict[str, Any]

TESTS = pathlib.Path(__file__).resolve().parents[1]
KIND = TESTS / "lab" / "kind"
GPU = {"limits": {"nvidia.com/gpu": "1"}}
#: etcd, API server, controller manager, scheduler, keeper, fake nodes.
ALL_PROCESSES = 6
PODS = "/api/v1/namespaces/{}/pods"


class Space:
    """A namespace of the lab and short words for what tests do in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.name = f"lab-{uuid.uuid4().hex[:8]}"
        self._tls = lab.plane.tls_context()

    def get(self, path: str) -> Object:
        with urllib.request.urlopen(self.lab.plane.server + path, context=self._tls, timeout=10) as answer:
            found: Object = json.load(answer)
            return found

    def create(self, kind: str, name: str, spec: Object, version: str = "v1", **metadata: Any) -> None:
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        self.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def pod(
        self, name: str, *, component: str = "engine", resources: Object | None = None, **spec: Any
    ) -> None:
        container = {"name": "main", "image": "registry.example/engine:1", "resources": resources or {}}
        labels = {"app.kubernetes.io/component": component}
        self.create("Pod", name, {"containers": [container], **spec}, labels=labels)

    def status(self, pod: str) -> Object:
        found: Object = self.get(f"{PODS.format(self.name)}/{pod}")["status"]
        return found

    def until(self, pod: str, probe: Callable[[Object], object]) -> Object:
        """The pod's status, as soon as `probe` likes it."""
        seen: Object = {}

        def look() -> object:
            seen.update(status=self.status(pod))
            return probe(seen["status"])

        eventually(look)
        status: Object = seen["status"]
        return status

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.lab.plane.kubectl("--namespace", self.name, *arguments, stdin=stdin)


@pytest.fixture
def space(lab: Lab) -> Iterator[Space]:
    lab.nodes.forget()
    made = Space(lab)
    lab.plane.kubectl("create", "namespace", made.name)
    eventually(lambda: lab.plane.kubectl_result("-n", made.name, "get", "sa", "default").returncode == 0)
    yield made
    lab.nodes.forget()
    lab.plane.kubectl("delete", "namespace", made.name, "--wait=false")


def eventually(probe: Callable[[], T], timeout: float = 20.0) -> T:
    """The first true answer of `probe`."""
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout:.0f} s"
        time.sleep(0.05)
    return answer


def condition(status: Object, kind: str) -> Object:
    return next((one for one in status.get("conditions", ()) if one["type"] == kind), {})


def is_ready(status: Object) -> bool:
    return bool(condition(status, "Ready").get("status") == "True")


def is_running(status: Object) -> bool:
    return bool(status["phase"] == "Running")


def container(status: Object) -> Object:
    return next(iter(status.get("containerStatuses", ())), {})


def waiting(status: Object) -> str:
    return str(container(status).get("state", {}).get("waiting", {}).get("reason", ""))


def refusal(status: Object) -> str:
    """Why the scheduler found no node."""
    return str(condition(status, "PodScheduled").get("message", ""))


def processes_of(folder: pathlib.Path | str) -> list[int]:
    """Processes that name the folder in their command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


# --- the control plane -----------------------------------------------------------------------------


def test_two_at_a_time_share_nothing_and_leave_nothing() -> None:
    with ControlPlane(controllers=False, scheduler=False) as one:
        with ControlPlane(controllers=False, scheduler=False) as two:
            one.kubectl("create", "namespace", "only-in-one")
            assert "only-in-one" in one.kubectl("get", "namespaces", "-o", "name")
            assert "only-in-one" not in two.kubectl("get", "namespaces", "-o", "name")
            assert set(two.pids().values()) == {None}
            assert len(processes_of(two.folder)) == 3
        assert processes_of(two.folder) == []
        assert not two.folder.exists()
        assert len(processes_of(one.folder)) == 3
    assert processes_of(one.folder) == []
    assert not one.folder.exists()


def test_nothing_is_left_when_the_owner_is_killed() -> None:
    program = (
        "import time; from lab.cluster.lab import Lab\n"
        "with Lab() as lab: print(lab.plane.folder, flush=True); time.sleep(600)"
    )
    with start_python("-c", program) as owner:
        assert owner.stdout is not None
        folder = pathlib.Path(owner.stdout.readline().strip())
        assert len(processes_of(folder)) == ALL_PROCESSES
        owner.kill()
        owner.wait()
        eventually(lambda: not processes_of(folder) and not folder.exists())


def test_a_failed_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlplane, "_apiserver_flags", lambda *_: ["--no-such-flag"])
    plane = ControlPlane(controllers=False, scheduler=False)
    try:
        with pytest.raises(
            StartError, match=r"kube-apiserver ended with code 1[\s\S]*unknown flag: --no-such-flag"
        ):
            plane.start()
    finally:
        plane.stop()


def test_client_certificates_carry_user_and_groups(lab: Lab, space: Space) -> None:
    jane = lab.plane.kubeconfig_for("jane", groups=["team"])
    asked = space.kubectl("--kubeconfig", str(jane), "auth", "whoami", "-o", "json")
    user = json.loads(asked)["status"]["userInfo"]
    assert user["username"] == "jane"
    assert "team" in user["groups"]
    with pytest.raises(RuntimeError, match="Forbidden"):
        space.kubectl("--kubeconfig", str(jane), "get", "secrets")


# --- nodes and scheduling --------------------------------------------------------------------------


@pytest.fixture
def gpu_node(lab: Lab) -> Iterator[Object]:
    """A smallest GPU node in a pool of its own, away from what other tests schedule."""
    (name,) = lab.nodes.add("g2-gpu-rtx4000a1-s", pool=9001)
    yield json.loads(lab.plane.kubectl("get", "node", name, "-o", "json"))
    lab.nodes.remove(name)


ONLY_THERE = {"lke.linode.com/pool-id": "9001"}


def test_nodes_look_like_those_of_lke(gpu_node: Object) -> None:
    name, labels = gpu_node["metadata"]["name"], gpu_node["metadata"]["labels"]
    assert name.startswith("lke7-9001-")
    assert labels["node.kubernetes.io/instance-type"] == "g2-gpu-rtx4000a1-s"
    assert labels["topology.kubernetes.io/region"] == labels["topology.linode.com/region"]
    assert "node.k8s.linode.com/host-uuid" in labels
    assert not any("gpu" in label for label in labels), "LKE puts no GPU label on a node"
    assert gpu_node["spec"]["providerID"].startswith("linode://")
    assert "taints" not in gpu_node["spec"]
    assert gpu_node["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    assert condition(gpu_node["status"], "Ready")["status"] == "True"


def test_one_gpu_takes_one_pod(space: Space, gpu_node: Object) -> None:
    space.pod("first", resources=GPU, nodeSelector=ONLY_THERE)
    space.until("first", is_ready)
    space.pod("second", resources=GPU, nodeSelector=ONLY_THERE)
    assert "Insufficient nvidia.com/gpu" in refusal(space.until("second", refusal))
    space.kubectl("delete", "pod", "first")
    space.until("second", is_ready)


def test_a_node_takes_what_it_leaves_for_pods_and_no_more(space: Space, gpu_node: Object) -> None:
    """The smallest GPU plan has 4 CPUs and leaves 3.9 of them."""
    space.pod("whole", resources={"requests": {"cpu": "4"}}, nodeSelector=ONLY_THERE)
    space.pod("fits", resources={"requests": {"cpu": "3900m"}}, nodeSelector=ONLY_THERE)
    space.until("fits", is_ready)
    assert "Insufficient cpu" in refusal(space.until("whole", refusal))


def test_the_taint_of_a_gpu_pool_repels(space: Space, lab: Lab) -> None:
    (name,) = lab.nodes.add("g2-gpu-rtx4000a1-s", pool=9002, gpu_taint=True)
    there = {"lke.linode.com/pool-id": "9002"}
    try:
        space.pod("repelled", nodeSelector=there)
        space.pod(
            "tolerant", nodeSelector=there, tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]
        )
        space.until("tolerant", is_ready)
        assert "untolerated taint" in refusal(space.until("repelled", refusal))
    finally:
        lab.nodes.remove(name)


# --- the life of pods ------------------------------------------------------------------------------


def test_pods_get_ready_with_addresses_of_their_own(space: Space) -> None:
    for name in ("one", "two"):
        space.pod(name, initContainers=[{"name": "before", "image": "x:1"}])
    found = [space.until(name, is_ready) for name in ("one", "two")]
    assert len({one["podIP"] for one in found}) == 2
    assert all(one["podIP"].startswith("10.2.") for one in found)
    assert found[0]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_slow(space: Space, lab: Lab) -> None:
    lab.nodes.behave("slow", prefix="slow", namespace=space.name, seconds=1.5)
    space.pod("slow")
    space.pod("quick")
    space.until("quick", is_ready)
    began = time.monotonic()
    space.until("slow", is_running)
    assert not is_ready(space.status("slow"))
    space.until("slow", is_ready)
    assert time.monotonic() - began > 0.5


def test_crash_and_recovery(space: Space, lab: Lab) -> None:
    space.pod("engine")
    space.pod("chat", component="chat")
    for name in ("engine", "chat"):
        space.until(name, is_ready)
    with lab.nodes.behaving(
        "crash", component="engine", namespace=space.name, exit_code=3, message="no CUDA"
    ):
        status = space.until("engine", lambda s: waiting(s) == "CrashLoopBackOff")
        assert not is_ready(status)
        assert container(status)["restartCount"] >= 1
        assert container(status)["lastState"]["terminated"]["exitCode"] == 3
        assert container(status)["lastState"]["terminated"]["message"] == "no CUDA"
        assert "no CUDA" in space.kubectl("logs", "engine", "--previous")
        assert is_ready(space.status("chat")), "a rule about one component leaves the others alone"
    space.until("engine", is_ready)
    assert "Application startup complete." in space.kubectl("logs", "engine")
    assert "no CUDA" in space.kubectl("logs", "engine", "--previous")


def test_out_of_memory(space: Space, lab: Lab) -> None:
    lab.nodes.behave("oom", namespace=space.name)
    space.pod("engine")
    status = space.until("engine", lambda s: container(s).get("lastState"))
    ended = container(status)["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_image_that_cannot_be_pulled(space: Space, lab: Lab) -> None:
    with lab.nodes.behaving("image-pull", namespace=space.name, message="unauthorized: no pull secret"):
        space.pod("engine")
        status = space.until("engine", lambda s: waiting(s) == "ImagePullBackOff")
        assert status["phase"] == "Pending"
        assert "unauthorized: no pull secret" in container(status)["state"]["waiting"]["message"]
        with pytest.raises(RuntimeError, match="waiting to start"):
            space.kubectl("logs", "engine")
    space.until("engine", is_ready)


def test_never_ready(space: Space, lab: Lab) -> None:
    lab.nodes.behave("never-ready", prefix="stuck", namespace=space.name)
    space.pod("stuck")
    space.until("stuck", is_running)
    # Created later and ready sooner: the first would have been ready by now.
    space.pod("other")
    space.until("other", is_ready)
    assert not is_ready(space.status("stuck"))
    log = space.kubectl("logs", "stuck")
    assert "Loading safetensors checkpoint shards" in log
    assert "Application startup complete." not in log


def job(**pod: Any) -> Object:
    template = {"containers": [{"name": "fetch", "image": "x:1"}], "restartPolicy": "Never", **pod}
    labels = {"app.kubernetes.io/component": "fetch"}
    return {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": template}}


def test_jobs_succeed_or_fail_as_told(space: Space, lab: Lab) -> None:
    lab.nodes.behave("fail", prefix="bad", namespace=space.name, exit_code=4, message="gated model")
    jobs = f"/apis/batch/v1/namespaces/{space.name}/jobs"
    for name in ("good", "bad"):
        space.create("Job", name, job(), "batch/v1")
    eventually(lambda: condition(space.get(f"{jobs}/good")["status"], "Complete").get("status") == "True")
    eventually(lambda: condition(space.get(f"{jobs}/bad")["status"], "Failed").get("status") == "True")
    (pod,) = space.get(f"{PODS.format(space.name)}?labelSelector=job-name%3Dbad")["items"]
    ended = container(pod["status"])["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (4, "gated model")


def test_logs_of_the_engine_and_logs_as_told(space: Space, lab: Lab) -> None:
    space.pod("engine")
    space.until("engine", is_ready)
    assert "Starting vLLM server" in space.kubectl("logs", "engine")
    assert len(space.kubectl("logs", "engine", "--tail=2").splitlines()) == 2
    with pytest.raises(RuntimeError, match="not found"):
        space.kubectl("logs", "engine", "--previous")
    lab.nodes.behave("normal", namespace=space.name, log="as told")
    assert space.kubectl("logs", "engine").strip() == "as told"
    lab.nodes.behave("crash", namespace=space.name, previous_log="RuntimeError: the cause")
    space.until("engine", lambda s: container(s)["restartCount"])
    assert space.kubectl("logs", "engine", "--previous").strip() == "RuntimeError: the cause"


def test_owned_objects_go_with_their_owner(space: Space) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "a", "image": "x:1"}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    space.create("Deployment", "web", spec, "apps/v1")
    pods = PODS.format(space.name)
    eventually(lambda: [is_ready(pod["status"]) for pod in space.get(pods)["items"]] == [True, True])
    space.kubectl("delete", "deployment", "web")
    eventually(lambda: not space.get(pods)["items"])


# --- storage ---------------------------------------------------------------------------------------


def claim(size: str, mode: str = "ReadWriteOnce") -> Object:
    return {"accessModes": [mode], "resources": {"requests": {"storage": size}}}


def test_claims_are_bound_and_grow(space: Space) -> None:
    path = f"/api/v1/namespaces/{space.name}/persistentvolumeclaims/cache"
    space.create("PersistentVolumeClaim", "cache", claim("1Gi"))
    eventually(lambda: space.get(path)["status"]["phase"] == "Bound")
    bound = space.get(path)
    assert bound["spec"]["storageClassName"] == "linode-block-storage-retain", "the default of LKE"
    assert bound["status"]["capacity"]["storage"] == "10Gi", "Linode's minimum"
    space.kubectl("patch", "pvc", "cache", "-p", json.dumps({"spec": claim("20Gi")}))
    eventually(lambda: space.get(path)["status"]["capacity"]["storage"] == "20Gi")
    volume = space.get(f"/api/v1/persistentvolumes/{bound['spec']['volumeName']}")
    assert volume["spec"]["capacity"]["storage"] == "20Gi"


def test_block_storage_is_not_shared(space: Space) -> None:
    space.create("PersistentVolumeClaim", "shared", claim("10Gi", "ReadWriteMany"))
    events = f"/api/v1/namespaces/{space.name}/events?fieldSelector=reason%3DProvisioningFailed"
    (event,) = eventually(lambda: space.get(events)["items"])
    assert "ReadWriteMany" in event["message"]
    path = f"/api/v1/namespaces/{space.name}/persistentvolumeclaims/shared"
    assert space.get(path)["status"]["phase"] == "Pending"


# --- the command line and the stand-in for kind ----------------------------------------------------


def test_command_line_steers_nodes_and_behaviour(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> str:
        command, *rest = words
        assert command_line.main([command, "--url", lab.nodes.url, *rest]) == 0
        return capsys.readouterr().out

    name = run("nodes", "add", "g6-standard-2").strip()
    assert f"{name}\tg6-standard-2\t" in run("nodes", "list")
    run("nodes", "remove", name)
    assert name not in run("nodes", "list")
    rule = run("behaviour", "set", "crash", "--component", "engine", "--exit-code", "3").strip()
    expected = {"id": int(rule), "component": "engine", "kind": "crash", "exit_code": 3}
    assert json.loads(run("behaviour", "list")) == expected
    run("behaviour", "forget", rule)
    assert run("behaviour", "list") == ""


def test_command_line_says_what_is_wrong(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["nodes", "--url", lab.nodes.url, "add", "g9-huge"]) == 1
    assert "unknown plan 'g9-huge'" in capsys.readouterr().err


def test_up_ends_cleanly_on_sigterm() -> None:
    with start_python("-m", "lab", "up", "--json") as up:
        assert up.stdout is not None
        facts = json.loads(up.stdout.readline())
        folder = pathlib.Path(facts["kubeconfig"]).parent
        assert len(processes_of(folder)) == ALL_PROCESSES
        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=20) == 0
    eventually(lambda: not processes_of(folder))
    assert not folder.exists()


@pytest.fixture
def own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built programs as they are, but no state or logs in the user's cache."""
    programs = binaries.ensure()
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / programs.name).symlink_to(programs)
    monkeypatch.setenv("AI_SANDBOX_LAB_CACHE", str(cache))


def kind(*arguments: str) -> str:
    answer = subprocess.run([str(KIND), *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_kind_answers_what_pytest_kind_asks(tmp_path: pathlib.Path, lab: Lab, own_cache: None) -> None:
    name, kubeconfig = f"lab-{uuid.uuid4().hex[:8]}", tmp_path / "kubeconfig"
    kubeconfig.touch()
    assert name not in kind("get", "clusters").splitlines()
    kind("create", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}", "--image=kindest/node:v1")
    try:
        assert name in kind("get", "clusters").splitlines()
        context = lab.plane.kubectl("--kubeconfig", str(kubeconfig), "config", "current-context")
        assert context.strip() == f"kind-{name}"
        nodes = lab.plane.kubectl("--kubeconfig", str(kubeconfig), "get", "nodes", "-o", "name")
        assert nodes.count("node/lke7-") == 3
        kind("load", "docker-image", "--name", name, "engine:1")
        folder = folder_of(kubeconfig)
        assert len(processes_of(folder)) == ALL_PROCESSES
    finally:
        kind("delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}")
    assert name not in kind("get", "clusters").splitlines()
    eventually(lambda: not processes_of(folder))


def test_a_kind_cluster_ends_with_its_caller(tmp_path: pathlib.Path, own_cache: None) -> None:
    name, kubeconfig = f"lab-{uuid.uuid4().hex[:8]}", tmp_path / "kubeconfig"
    create = [str(KIND), "create", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}"]
    program = f"import subprocess, time; print(subprocess.call({create!r}), flush=True); time.sleep(600)"
    with start_python("-c", program) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline().strip() == "0"
        folder = folder_of(kubeconfig)
        assert len(processes_of(folder)) == ALL_PROCESSES
        caller.kill()
        caller.wait()
        eventually(lambda: not processes_of(folder))
    eventually(lambda: name not in kind("get", "clusters").splitlines())


def folder_of(kubeconfig: pathlib.Path) -> pathlib.Path:
    """The folder of the control plane that a kubeconfig leads to."""
    cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
    return pathlib.Path(cluster["certificate-authority"]).parent


@contextlib.contextmanager
def start_python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of the project in a process of its own, killed at the end whatever happens."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()
