"""The engine: vLLM on GPUs, offline, from a read-only local directory.

Its pod template is a function of the user's engine inputs and of the release, of nothing else (I5):
no key, allowlist entry, chat setting or address may appear here, because each change of the
template stops a GPU pod for minutes.
Sources: vLLM docs/usage/security.md, docs/deployment/docker.md, docs/serving/openai_compatible_server.md.
"""

from __future__ import annotations

from decimal import Decimal

from ai_sandbox_operator.api import names, v1alpha1

from . import access, common, fetch, models, plans, quantity, storage
from .facts import Child, Facts, Manifest, Stage

#: The image allows arbitrary users only in group 0.
_USER, _GROUP = 2000, 0
_HOME = "/home/engine"
#: A stream that is open at termination may finish: preStop 10 s, shutdown 60 s, 50 s of reserve.
_GRACE_SECONDS, _PRESTOP_SECONDS, _SHUTDOWN_SECONDS = 120, 10, 60
#: Sequences at once on 20 GB cards, where vLLM's default of 256 takes memory that the cache needs, and on
#: larger ones, where its default of 1024 is more than the states that hybrid models find room for.
_SMALL_CARD_SEQUENCES, _SEQUENCES = 64, 256


def engine_inputs(sandbox: v1alpha1.AISandbox, commit: str) -> str:
    """Fingerprint of what the user asked of the engine and of the model's commit, whatever the release.

    Only values that differ from their defaults count: a field that a later release adds leaves the
    fingerprint of existing sandboxes as it was.
    """
    spec = sandbox.spec
    model = spec.model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for irrelevant in ("tokenSecretRef", "revision"):  # the commit is what counts
        model.pop(irrelevant, None)
    return common.fingerprint(
        {
            "model": model,
            "commit": commit,
            "engine": spec.engine.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "gpu": spec.gpu.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
    )


def model_source(sandbox: v1alpha1.AISandbox) -> str:
    """What a commit is resolved from."""
    return f"{sandbox.spec.model.id}@{sandbox.spec.model.revision}"


def service_name(sandbox: v1alpha1.AISandbox) -> str:
    """Service of the engine; never `vllm`, which would collide with vLLM's own variables."""
    return common.child_name(sandbox, common.ENGINE)


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """Service and Deployment. No replica before the model is cached, and none while suspended."""
    running = facts.model_cached and sandbox.spec.lifecycle.state == "Running"
    deployment = common.deployment(
        sandbox,
        common.ENGINE,
        replicas=1 if running else 0,
        # A spare GPU is rare and the volume is ReadWriteOnce: the old pod goes first.
        strategy={"type": "Recreate"},
        pod_template=pod_template(sandbox, facts),
        # Beyond the startup budget, with time for an image of ten gigabytes.
        progress_deadline_seconds=models.startup_seconds(sandbox.spec.model.id, facts.model_bytes) + 1800,
        annotations={
            common.ANNOTATION_ENGINE_INPUTS: engine_inputs(sandbox, facts.commit),
            names.ANNOTATION_MODEL: f"{model_source(sandbox)} {facts.commit} {facts.model_bytes or 0}",
        },
    )
    service = common.service(
        sandbox,
        service_name(sandbox),
        common.ENGINE,
        [common.service_port("http", names.PORT_ENGINE, names.PORT_ENGINE)],
    )
    return [
        Child(stage=Stage.SERVICE, manifest=service),
        Child(stage=Stage.WORKLOAD, manifest=deployment),
    ]


def pod_template(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    """The engine's pod template."""
    gpu = sandbox.spec.gpu
    node_selector = {
        **({names.LABEL_PLAN: gpu.plan} if gpu.plan else {}),
        **gpu.node_selector,
    }
    pod: Manifest = {
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": common.pod_security(user=_USER, group=_GROUP, volume_group=_GROUP),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}, *map(_toleration, gpu.tolerations)],
        "containers": [_container(sandbox, facts)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": storage.model_claim_name(sandbox)}},
            {"name": "home", "emptyDir": {"sizeLimit": "10Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
            {
                "name": "shm",
                "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi" if gpu.count == 1 else "8Gi"},
            },
        ],
    }
    if node_selector:
        pod["nodeSelector"] = node_selector
    return common.template(sandbox, common.ENGINE, pod)


def _toleration(toleration: v1alpha1.Toleration) -> Manifest:
    """Without empty fields, which mean "any" and are not stored."""
    return {field: value for field, value in toleration.model_dump(by_alias=True).items() if value}


def arguments(spec: v1alpha1.AISandboxSpec, commit: str) -> list[str]:
    """Arguments of `vllm serve`. The user's come last: of a repeated flag the last one counts."""
    limit = spec.model.max_context_tokens
    result = [
        fetch.target(spec.model, commit),
        "--served-model-name",
        models.served_name(spec.model),
        "--host",
        "0.0.0.0",  # noqa: S104 - admitted by NetworkPolicy from gateway, chat and operator only
        "--port",
        str(names.PORT_ENGINE),
        "--max-model-len",
        "auto" if limit is None else str(limit),
        "--gpu-memory-utilization",
        str(Decimal(spec.engine.gpu_memory_utilization_percent) / 100),
        "--tensor-parallel-size",
        str(spec.gpu.count),
        "--disable-fastapi-docs",
        "--shutdown-timeout",
        str(_SHUTDOWN_SECONDS),
        "--disable-access-log-for-endpoints",
        "/health,/metrics,/ping",
        "--max-num-seqs",
        str(sequences(spec)),
    ]
    return [*result, *models.flags(spec.model.id), *spec.engine.extra_args]


def sequences(spec: v1alpha1.AISandboxSpec) -> int:
    """Requests that the engine computes at once, unless the user's arguments say otherwise."""
    return _SMALL_CARD_SEQUENCES if plans.small_memory(spec.gpu.plan) else _SEQUENCES


def _container(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    spec = sandbox.spec
    budget = models.startup_seconds(spec.model.id, facts.model_bytes)
    return {
        "name": common.ENGINE,
        "image": spec.engine.image or facts.release.engine_image,
        "imagePullPolicy": "IfNotPresent",
        # No command: the image's entrypoint is `vllm serve`; a shell would swallow SIGTERM.
        "args": [common.literal(argument) for argument in arguments(spec, facts.commit)],
        "env": [
            common.env_secret("VLLM_API_KEY", access.engine_key_name(sandbox), access.ENGINE_KEY),
            *common.env(_environment(budget)),
        ],
        "ports": [{"name": "http", "containerPort": names.PORT_ENGINE, "protocol": "TCP"}],
        "startupProbe": common.http_probe("/health", names.PORT_ENGINE, period=5, failures=budget // 5),
        "readinessProbe": common.http_probe("/health", names.PORT_ENGINE, period=5),
        "livenessProbe": common.http_probe("/health", names.PORT_ENGINE, period=30, timeout=10),
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRESTOP_SECONDS}}},
        "resources": resources(spec),
        # The root stays writable: the NVIDIA container toolkit's hooks write to it.
        "securityContext": common.container_security(read_only_root=False),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": common.MODELS_PATH, "readOnly": True},
            {"name": "home", "mountPath": _HOME},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - an emptyDir of the pod
        ],
    }


def _environment(budget: int) -> dict[str, str]:
    return {
        "HOME": _HOME,
        "USER": "engine",
        "LOGNAME": "engine",
        "VLLM_CACHE_ROOT": f"{_HOME}/.cache/vllm",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(budget),
        "VLLM_MAX_N_SEQUENCES": "64",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    }


def resources(spec: v1alpha1.AISandboxSpec) -> Manifest:
    """Requests that fit the plan, with the user's on top, and the GPUs.

    No CPU limit, because the start is CPU-bound; no memory limit unless asked for, because the page
    cache of the weights and /dev/shm count against it.
    """
    wanted = plans.requests(spec.gpu.plan, spec.gpu.count)
    gpus = {"nvidia.com/gpu": str(spec.gpu.count)}
    asked = {key: quantity.canonical(value) for key, value in sorted(spec.engine.resources.requests.items())}
    limits = {key: quantity.canonical(value) for key, value in sorted(spec.engine.resources.limits.items())}
    requests = {"cpu": wanted.cpu, "memory": wanted.memory}
    for key, value in limits.items():
        # A request above its limit is refused by the server.
        if key in requests and key not in asked and quantity.value(value) < quantity.value(requests[key]):
            requests[key] = value
    return {"requests": {**requests, **asked, **gpus}, "limits": {**limits, **gpus}}
