"""The fetch Job: the only component with a way to the internet and with the hub token.

The Job's name is derived from what it fetches, so a changed model is a new Job and a finished Job
is the record that the model is cached. The token is not part of the name: taking it away after the
download must not stop the engine. A Job that failed is replaced by whoever diagnoses the failure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_sandbox_operator.api import names, v1alpha1

from . import common, models, plans, storage
from .facts import Child, Facts, Manifest, Stage

#: Exit code of `fetch` for what no repetition mends: no such model, no access, no space.
EXIT_PERMANENT = 78
_USER = 65532


def job_name(sandbox: v1alpha1.AISandbox, commit: str) -> str:
    """Name of the Job that fetches the model of the current spec at a commit."""
    model = sandbox.spec.model
    what = {"id": model.id, "target": target(model, commit)}
    return common.child_name(sandbox, f"fetch-{common.fingerprint(what, 8)}")


def sweep_name(sandbox: v1alpha1.AISandbox, commit: str) -> str:
    """Name of the Job that removes every other model once this one serves."""
    return common.child_name(sandbox, f"sweep-{common.fingerprint(target(sandbox.spec.model, commit), 8)}")


def target(model: v1alpha1.ModelSpec, commit: str) -> str:
    """Path of the model, as the fetch Job and the engine see it."""
    return f"{common.MODELS_PATH}/{models.model_directory(model, commit)}"


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """The Jobs, once it is known what to fetch and what to keep."""
    if not facts.commit:
        return []
    model = sandbox.spec.model
    path = target(model, facts.commit)
    arguments = [
        "--model",
        model.id,
        "--revision",
        model.revision,
        "--commit",
        facts.commit,
        "--target",
        path,
    ]
    jobs = [_job(sandbox, facts, job_name(sandbox, facts.commit), arguments, token=True)]
    if facts.sweep:
        kept = models.model_directory(model, facts.commit)
        arguments = ["--sweep", "--models-directory", common.MODELS_PATH, "--keep", kept]
        jobs.append(_job(sandbox, facts, sweep_name(sandbox, facts.commit), arguments, token=False))
    return [Child(stage=Stage.WORKLOAD, manifest=job) for job in jobs]


def _job(
    sandbox: v1alpha1.AISandbox, facts: Facts, name: str, arguments: Sequence[str], *, token: bool
) -> Manifest:
    pod: Manifest = {
        # Never: each attempt leaves a pod whose log says why it failed, and the failure policy
        # below is only allowed with it. OnFailure would delete the pod together with its log.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        # fsGroup 0 is the engine's too, so nobody changes the volume's ownership back and forth.
        "securityContext": common.pod_security(user=_USER, group=_USER, volume_group=0),
        **_placement(sandbox, facts),
        "containers": [_container(sandbox, facts, arguments, token=token)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": storage.model_claim_name(sandbox)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": common.metadata(sandbox, name, common.FETCH),
        "spec": {
            # About an hour of growing pauses. No deadline: a large model may take that long as well.
            "backoffLimit": 10,
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {
                "rules": [
                    # A drained node or a preempted pod is nobody's failure.
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": common.FETCH,
                            "operator": "In",
                            "values": [EXIT_PERMANENT],
                        },
                    },
                ]
            },
            "template": common.template(sandbox, common.FETCH, pod),
        },
    }


def _container(
    sandbox: v1alpha1.AISandbox, facts: Facts, arguments: Sequence[str], *, token: bool
) -> Manifest:
    environment = common.env(
        {
            "HOME": "/tmp",  # noqa: S108 - an emptyDir of the pod
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "30",
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            # The xet client holds whole chunks in memory and has ended pods by it.
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONUNBUFFERED": "1",
            "HF_ENDPOINT": facts.hub_endpoint,
        }
    )
    if token and (ref := sandbox.spec.model.token_secret_ref) is not None:
        environment.append(common.env_secret("HF_TOKEN", ref.name, ref.key))
    return {
        "name": common.FETCH,
        "image": facts.release.operator_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["fetch", *arguments],
        "env": environment,
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": common.container_security(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "models", "mountPath": common.MODELS_PATH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
        ],
    }


def _placement(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    """Where the pod runs: with the engine while there is one, since the volume is attached to that node only."""
    if not facts.engine_running:
        return {"affinity": _away_from_gpus()}
    selector = {names.LABEL_SANDBOX: sandbox.metadata.name, names.LABEL_COMPONENT: common.ENGINE}
    term = {"labelSelector": {"matchLabels": selector}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }


def _away_from_gpus() -> Manifest:
    # A preference: a cluster may consist of GPU nodes only. The volume follows to any node.
    term = {
        "matchExpressions": [{"key": names.LABEL_PLAN, "operator": "NotIn", "values": list(plans.GPU_PLANS)}]
    }
    return {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]
        }
    }
