"""The engine and the fetch Job, as tables."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import engine, fetch, models, plans, quantity
from unit.desired import samples

Spec = dict[str, Any]


def argument(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_arguments_of_the_default_sandbox() -> None:
    assert engine.arguments(v1alpha1.AISandboxSpec(), samples.COMMIT) == [
        "/models/mistralai-mistral-7b-instruct-v0.3-"
        + models.model_directory(v1alpha1.ModelSpec(), samples.COMMIT)[-12:],
        *("--served-model-name", "mistralai/Mistral-7B-Instruct-v0.3"),
        *("--host", "0.0.0.0"),
        *("--port", "8000"),
        *("--max-model-len", "auto"),
        *("--gpu-memory-utilization", "0.92"),
        *("--tensor-parallel-size", "1"),
        "--disable-fastapi-docs",
        *("--shutdown-timeout", "60"),
        *("--disable-access-log-for-endpoints", "/health,/metrics,/ping"),
        *("--max-num-seqs", "64"),
        *("--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "mistral"),
    ]


def test_own_arguments_come_last_and_win() -> None:
    spec = samples.sandbox({"engine": {"extraArgs": ["--max-num-seqs", "8"]}}).spec
    assert engine.arguments(spec, samples.COMMIT)[-2:] == ["--max-num-seqs", "8"]


@pytest.mark.parametrize(
    ("percent", "written"), [(92, "0.92"), (90, "0.9"), (10, "0.1"), (99, "0.99"), (50, "0.5")]
)
def test_memory_share(percent: int, written: str) -> None:
    spec = samples.sandbox({"engine": {"gpuMemoryUtilizationPercent": percent}}).spec
    assert argument(engine.arguments(spec, samples.COMMIT), "--gpu-memory-utilization") == written


@pytest.mark.parametrize(
    ("cached", "state", "replicas"),
    [(False, "Running", 0), (True, "Running", 1), (True, "Suspended", 0), (False, "Suspended", 0)],
)
def test_replicas(cached: bool, state: str, replicas: int) -> None:
    known = dataclasses.replace(samples.FACTS, model_cached=cached)
    deployment = samples.child(
        samples.rendered({"lifecycle": {"state": state}}, known), "Deployment", "demo-engine"
    )
    assert deployment["spec"]["replicas"] == replicas
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def container(spec: Spec) -> dict[str, Any]:
    template = engine.pod_template(samples.sandbox(spec), samples.FACTS)
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("spec", "requests", "limits"),
    [
        # a1-s leaves 3.9 CPU and 12.9 GiB: the default must fit it.
        ({}, {"cpu": "3", "memory": "10Gi", "nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}),
        (
            {"gpu": {"count": 2}},
            {"cpu": "6", "memory": "20Gi", "nvidia.com/gpu": "2"},
            {"nvidia.com/gpu": "2"},
        ),
        (
            {"engine": {"resources": {"requests": {"cpu": "2000m"}, "limits": {"memory": "12288Mi"}}}},
            {"cpu": "2", "memory": "10Gi", "nvidia.com/gpu": "1"},
            {"memory": "12Gi", "nvidia.com/gpu": "1"},
        ),
        # A default request above the user's limit would be refused by the server.
        (
            {"engine": {"resources": {"limits": {"memory": "8Gi", "cpu": "1"}}}},
            {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"},
            {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"},
        ),
    ],
)
def test_resources(spec: Spec, requests: dict[str, str], limits: dict[str, str]) -> None:
    assert container(spec)["resources"] == {"requests": requests, "limits": limits}


@pytest.mark.parametrize("plan", plans.GPU_PLANS)
def test_requests_of_every_plan_fit_the_plan(plan: str) -> None:
    cpus_and_gigabytes = {
        "g2-gpu-rtx4000a1-s": (4, 16),
        "g2-gpu-rtx4000a1-m": (8, 32),
        "g2-gpu-rtx4000a1-l": (16, 64),
        "g2-gpu-rtx4000a1-xl": (32, 128),
        "g2-gpu-rtx4000a2-s": (8, 32),
        "g2-gpu-rtx4000a2-m": (16, 64),
        "g2-gpu-rtx4000a2-hs": (16, 64),
        "g2-gpu-rtx4000a4-s": (32, 128),
        "g2-gpu-rtx4000a4-m": (48, 196),
        "g3-gpu-rtxpro6000-blackwell-1": (16, 172),
        "g3-gpu-rtxpro6000-blackwell-2": (16, 172),
        "g3-gpu-rtxpro6000-blackwell-4": (16, 172),
    }
    cpus, gigabytes = cpus_and_gigabytes[plan]
    wanted = plans.requests(plan, 1)
    assert int(wanted.cpu) <= 0.8 * cpus
    assert quantity.value(wanted.memory) <= int(0.8 * gigabytes * 10**9)


def test_volumes_of_the_engine() -> None:
    for count, size in ((1, "2Gi"), (2, "8Gi")):
        pod = engine.pod_template(samples.sandbox({"gpu": {"count": count}}), samples.FACTS)["spec"]
        shared = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
        assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
        mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "models")
        assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_probes_outlast_start_and_shutdown_ends_in_time() -> None:
    for gib in (1, 700):
        known = dataclasses.replace(samples.FACTS, model_bytes=gib * 2**30)
        pod = engine.pod_template(samples.sandbox({}), known)["spec"]
        engine_container = pod["containers"][0]
        probe = engine_container["startupProbe"]
        budget = probe["periodSeconds"] * probe["failureThreshold"]
        assert budget == models.startup_seconds("", gib * 2**30) >= 1800
        environment = {entry["name"]: entry.get("value") for entry in engine_container["env"]}
        assert environment["VLLM_ENGINE_READY_TIMEOUT_S"] == str(budget)
        deployment = samples.child(samples.rendered({}, known), "Deployment", "demo-engine")
        assert deployment["spec"]["progressDeadlineSeconds"] > budget
        shutdown = int(argument(engine_container["args"], "--shutdown-timeout"))
        sleep = engine_container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert shutdown < pod["terminationGracePeriodSeconds"] - sleep - 10


def test_the_engine_is_offline_and_has_no_hub_token() -> None:
    spec = {"model": {"tokenSecretRef": {"name": "hf", "key": "token"}}}
    environment = {entry["name"]: entry.get("value") for entry in container(spec)["env"]}
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in environment
    assert not {"VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"} & environment.keys()


def job(spec: Spec) -> dict[str, Any]:
    sandbox = samples.sandbox(spec)
    return samples.child(samples.rendered(spec), "Job", fetch.job_name(sandbox, samples.COMMIT))


def test_the_job_fetches_to_where_the_engine_reads() -> None:
    for spec in ({}, {"model": {"id": "a/b.C_d", "revision": "refs/pr/1"}}):
        arguments = job(spec)["spec"]["template"]["spec"]["containers"][0]["args"]
        model = samples.sandbox(spec).spec.model
        target = engine.arguments(samples.sandbox(spec).spec, samples.COMMIT)[0]
        assert (
            arguments
            == (
                f"fetch --model {model.id} --revision {model.revision} --commit {samples.COMMIT} --target {target}"
            ).split()
        )
        assert target.startswith("/models/")
        assert ".." not in target


def test_the_jobs_name_is_what_it_fetches() -> None:
    def name(spec: Spec, commit: str = samples.COMMIT) -> str:
        return fetch.job_name(samples.sandbox({"model": spec}), commit)

    assert name({}) == name({"servedName": "x", "maxContextTokens": 512})
    # Taking the token away after the download must not fetch again.
    assert name({}) == name({"tokenSecretRef": {"name": "hf", "key": "token"}})
    # A branch and its commit are the same files.
    assert name({}) == name({"revision": samples.COMMIT})
    assert len({name({}), name({}, "f" * 40), name({"id": "a/b"})}) == 3


def test_nothing_is_fetched_before_the_commit_is_known() -> None:
    unknown = dataclasses.replace(samples.FACTS, commit="", model_bytes=None)
    assert not [child for child in samples.rendered({}, unknown) if child.kind == "Job"]


def test_only_the_job_has_the_hub_token() -> None:
    spec: Spec = {"model": {"tokenSecretRef": {"name": "hf", "key": "my-token"}}}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "my-token"}}}
    for child in samples.rendered(spec):
        if child.kind in {"Deployment", "Job"}:
            environment = child.manifest["spec"]["template"]["spec"]["containers"][0].get("env", [])
            assert (token in environment) == (child.kind == "Job")


def test_the_job_keeps_the_log_of_each_attempt() -> None:
    spec = job({})["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec
    assert "activeDeadlineSeconds" not in spec


def test_a_mirror_of_the_hub() -> None:
    known = dataclasses.replace(samples.FACTS, hub_endpoint="https://hub.example.com")
    for facts, expected in ((samples.FACTS, []), (known, ["https://hub.example.com"])):
        children = samples.rendered({}, facts)
        environment = next(c for c in children if c.kind == "Job").manifest["spec"]["template"]["spec"][
            "containers"
        ]
        found = [entry["value"] for entry in environment[0]["env"] if entry["name"] == "HF_ENDPOINT"]
        assert found == expected


def test_arguments_are_taken_literally() -> None:
    """The kubelet would replace `$(VLLM_API_KEY)` by the key."""
    spec: Spec = {"engine": {"extraArgs": ["--chat-template=$(VLLM_API_KEY)"]}}
    assert container(spec)["args"][-1] == "--chat-template=$$(VLLM_API_KEY)"


def test_a_sweep_keeps_the_model_that_serves_and_has_no_token() -> None:
    spec = {"model": {"tokenSecretRef": {"name": "hf", "key": "token"}}}
    known = dataclasses.replace(samples.FACTS, sweep=True, engine_running=True)
    sandbox = samples.sandbox(spec)
    sweep = samples.child(samples.rendered(spec, known), "Job", fetch.sweep_name(sandbox, samples.COMMIT))
    pod = sweep["spec"]["template"]["spec"]
    kept = engine.arguments(sandbox.spec, samples.COMMIT)[0].removeprefix("/models/")
    assert pod["containers"][0]["args"] == [
        "fetch",
        "--sweep",
        "--models-directory",
        "/models",
        "--keep",
        kept,
    ]
    assert "HF_TOKEN" not in {entry["name"] for entry in pod["containers"][0]["env"]}
    # The volume is attached to the engine's node only.
    assert "podAffinity" in pod["affinity"]
