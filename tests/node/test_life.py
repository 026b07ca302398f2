"""A sandbox's life on a real node: first start, updates, the operator's end and upgrade, suspension."""

from __future__ import annotations

import hashlib
import json
import time

from chart import helm
from lab.node import NodeLab, images
from lab.node.sandbox import PROBE, Sandbox
from results import Results

WORKLOADS = ("engine", "gateway", "chat")
#: Until a standby may take over a Lease that its holder gave up, or kept, in seconds.
TAKEOVER = 60.0


def told(results: Results, step: str, outcome: str, measured: str = "") -> None:
    """A row of the table in the docs."""
    results.row("node-life", {"Step": step, "Outcome": outcome, "Measured": measured})


def test_the_first_start_ends_ready_with_every_condition_true(sandbox: Sandbox, results: Results) -> None:
    conditions = sandbox.conditions()
    assert {kind for kind, status in conditions.items() if status != "True"} == {"Reconciling", "Stalled"}
    parts = ("NetworkProtected", "ModelCached", "EngineReady", "ChatReady", "Exposed", "Ready")
    told(
        results,
        "kubectl apply of a sandbox behind a NodeBalancer, small model from the hub's simulator",
        "Ready, every condition true: files fetched by the Job, engine, chat and two Envoys in containers",
        ", ".join(
            f"{kind} {sandbox.reached[kind]:.0f} s" for kind in sorted(parts, key=sandbox.reached.__getitem__)
        ),
    )


def test_every_pod_of_a_sandbox_runs_without_root_and_capabilities(
    sandbox: Sandbox, results: Results
) -> None:
    found = {kind: json.loads(sandbox.run(kind, "python3", "-c", PROBE)) for kind in WORKLOADS}
    assert {kind: said["uid"] for kind, said in found.items()} == {
        "engine": 2000,
        "gateway": 101,
        "chat": 1000,
    }
    assert {said["capabilities"] for said in found.values()} == {0}
    assert found["gateway"]["sealed"]
    assert found["chat"]["sealed"]
    (fetch,) = sandbox.pods("fetch")
    assert fetch["status"]["phase"] == "Succeeded"
    told(
        results,
        "exec into each pod",
        "no process is root or has a capability; the roots of gateway and chat are read-only",
    )


def test_the_engine_has_exactly_the_files_that_the_hub_has_and_cannot_change_them(sandbox: Sandbox) -> None:
    folder = sandbox.pods("engine")[-1]["spec"]["containers"][0]["args"][0]
    script = (
        "import hashlib, json, os, pathlib, sys\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "files = [p for p in root.rglob('*') if p.is_file() and p.suffix == '.safetensors']\n"
        "sealed = bool(os.statvfs(root).f_flag & os.ST_RDONLY)\n"
        "print(json.dumps([sealed, {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}]))"
    )
    sealed, got = json.loads(sandbox.run("engine", "python3", "-c", script, folder))
    live = sandbox.get()
    repository = sandbox.node.hub.find(live["spec"]["model"]["id"])
    assert repository is not None
    wanted = {
        path: hashlib.sha256(b"".join(blob.read(0, blob.size))).hexdigest()
        for path, blob in repository.at(live["status"]["model"]["revision"]).items()
        if path.endswith(".safetensors")
    }
    assert wanted
    assert got == wanted
    assert sealed


def test_the_chat_gets_the_model_list_from_the_engine_with_the_internal_key(sandbox: Sandbox) -> None:
    assert sandbox.chat()["models"] == [sandbox.get()["spec"]["model"]["id"]]


def test_a_standby_takes_over_when_the_leader_is_deleted_and_no_pod_of_the_sandbox_notices(
    node: NodeLab, sandbox: Sandbox, results: Results
) -> None:
    before = sandbox.lives(*WORKLOADS)
    old = holder(node)
    (leader,) = [pod for pod in node.operators() if old.startswith(pod["metadata"]["name"])]
    began = time.monotonic()
    node.kubectl("delete", "pod", "-n", helm.NAMESPACE, leader["metadata"]["name"], "--wait=false")
    node.until("another leader", lambda: holder(node) not in ("", old), timeout=TAKEOVER)
    took = time.monotonic() - began
    seconds = sandbox.edit({"access": {"apiKeys": [{"name": "default"}, {"name": "second"}]}})
    assert "second" in node.get("secret", f"{sandbox.name}-api-keys", "-n", sandbox.namespace)["data"]
    assert sandbox.lives(*WORKLOADS) == before
    told(
        results,
        "kubectl delete pod of the leading operator",
        "the standby leads and works; no pod of the sandbox is touched",
        f"leads after {took:.1f} s, Ready with a new key {seconds:.1f} s after it was asked for",
    )


def holder(node: NodeLab) -> str:
    """Identity of the leading operator; empty if none leads."""
    leases = node.get("leases", "-n", helm.NAMESPACE)["items"]
    return str(leases[0]["spec"].get("holderIdentity") or "") if leases else ""


def test_an_upgrade_of_the_operator_leaves_every_pod_of_the_sandbox_untouched(
    node: NodeLab, sandbox: Sandbox, results: Results
) -> None:
    before = sandbox.lives(*WORKLOADS)
    old = {pod["metadata"]["uid"] for pod in node.operators()}
    began = time.monotonic()
    node.install_operator({"image": {"tag": images.NEXT}})
    took = time.monotonic() - began
    assert not old & {pod["metadata"]["uid"] for pod in node.operators()}
    node.until(
        "a leader of the new release", lambda: any(map(holder(node).startswith, now(node))), timeout=TAKEOVER
    )
    sandbox.edit({"access": {"apiKeys": [{"name": "default"}]}})
    assert sandbox.lives(*WORKLOADS) == before
    told(
        results,
        "helm upgrade of the operator to another image",
        "both pods are replaced; engine, gateway and chat run on, not restarted",
        f"{took:.0f} s",
    )


def now(node: NodeLab) -> list[str]:
    """Names of the operator's pods."""
    return [pod["metadata"]["name"] for pod in node.operators()]


def test_new_arguments_replace_the_engine_and_nothing_else(sandbox: Sandbox, results: Results) -> None:
    others = sandbox.lives("gateway", "chat")
    (old,) = sandbox.pods("engine")
    took = sandbox.edit({"engine": {"extraArgs": ["--max-num-seqs=32"]}})
    (new,) = sandbox.pods("engine")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert "--max-num-seqs=32" in sandbox.run("engine", "cat", "/proc/1/cmdline")
    assert sandbox.lives("gateway", "chat") == others
    told(
        results,
        "another argument of the engine",
        "the engine's pod is replaced and serves; gateway and chat are not touched",
        f"{took:.0f} s, of which 10 s are the pod's grace for open requests",
    )


def test_another_chat_image_keeps_the_chats_and_leaves_the_engine_alone(
    sandbox: Sandbox, results: Results
) -> None:
    others = sandbox.lives("gateway", "engine")
    before = sandbox.chat("a chat of before")
    took = sandbox.edit({"chat": {"image": images.NEXT_CHAT}})
    after = sandbox.chat()
    assert "a chat of before" in after["chats"]
    assert after["starts"] == before["starts"] + 1
    backups = sandbox.run("chat", "ls", "/app/backend/data/backups")
    assert ".db" in backups, "the database was not copied before another image touched it"
    assert sandbox.lives("gateway", "engine") == others
    told(
        results,
        "another image of the chat",
        "the chat's pod is replaced, its chats are there, a copy of its database was made before",
        f"{took:.0f} s",
    )


def test_suspension_ends_the_engine_only_and_its_end_fetches_nothing_anew(
    sandbox: Sandbox, results: Results
) -> None:
    others, downloads = sandbox.lives("gateway", "chat"), len(sandbox.node.hub.downloads())
    chats = sandbox.chat()["chats"]
    patch = json.dumps({"spec": {"lifecycle": {"state": "Suspended"}}})
    began = time.monotonic()
    sandbox.node.kubectl(
        "patch", "aisandbox", sandbox.name, "-n", sandbox.namespace, "--type=merge", "-p", patch
    )
    sandbox.until("without an engine", lambda: not sandbox.pods("engine"))
    freed = time.monotonic() - began
    assert sandbox.chat()["chats"] == chats
    took = sandbox.edit({"lifecycle": {"state": "Running"}})
    assert len(sandbox.pods("engine")) == 1
    assert sandbox.lives("gateway", "chat") == others
    assert len(sandbox.node.hub.downloads()) == downloads
    told(
        results,
        "suspend and resume",
        "the engine's pod goes and comes back with the files that are there; gateway and chat are not touched",
        f"asked to end after {freed:.1f} s, Ready again {took:.0f} s after resuming",
    )
