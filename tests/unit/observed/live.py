"""Rendered objects as an API server hands them out: with defaults, allocations and managed fields.

Defaults as of k8s.io/kubernetes v1.37, pkg/apis/{core,apps,networking,policy,batch}/v1/defaults.go.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.observed import seen

Json = Any
_uids = itertools.count(1)


def live(
    manifest: Mapping[str, Json], *, uid: str = "", version: int = 100, deleting: bool = False
) -> dict[str, Json]:
    """What a GET answers after `manifest` was written."""
    body: dict[str, Json] = copy.deepcopy(dict(manifest))
    metadata = body["metadata"]
    metadata.update(
        uid=uid or f"uid-{next(_uids)}",
        resourceVersion=str(version),
        generation=1,
        creationTimestamp="2026-01-01T00:00:00Z",
        managedFields=[{"manager": "ai-sandbox-operator", "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
    )
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    if (default := _DEFAULTS.get(body["kind"])) is not None:
        default(body)
    return body


def _service(body: dict[str, Json]) -> None:
    spec = body["spec"]
    for field, value in {
        "clusterIP": "10.128.0.7",
        "clusterIPs": ["10.128.0.7"],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
    }.items():
        spec.setdefault(field, value)
    if spec["type"] == "LoadBalancer":
        spec["healthCheckNodePort"] = 31234
        for number, port in enumerate(spec["ports"]):
            port["nodePort"] = 30000 + number
    body["status"] = {"loadBalancer": {}}


def _deployment(body: dict[str, Json]) -> None:
    body["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "1"
    template = body["spec"]["template"]
    template["metadata"]["creationTimestamp"] = None
    pod = template["spec"]
    for field, value in {
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }.items():
        pod.setdefault(field, value)
    for container in pod["containers"]:
        for field, value in {
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        }.items():
            container.setdefault(field, value)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                for field, value in {
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                }.items():
                    container[probe].setdefault(field, value)
    for volume in pod.get("volumes", ()):
        if "secret" in volume:
            volume["secret"].setdefault("defaultMode", 420)
    body["status"] = {"observedGeneration": 1}


def _job(body: dict[str, Json]) -> None:
    body["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": "x"}}
    body["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] = body["metadata"]["name"]
    body["spec"].update(suspend=False, completionMode="NonIndexed")


def _claim(body: dict[str, Json]) -> None:
    body["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
    body["spec"]["volumeName"] = "pvc-1"
    body["status"] = {"phase": "Bound"}


_DEFAULTS = {
    "Service": _service,
    "Deployment": _deployment,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
}


def observed(children: Iterable[facts.Child]) -> dict[tuple[str, str], seen.Seen]:
    """The records of children that stand exactly as they were written."""
    return {(child.kind, child.name): seen.observe(child.kind, live(child.manifest)) for child in children}


def patched(document: Json, operations: Iterable[Mapping[str, Json]]) -> Json:
    """RFC 6902, the operations that the operator uses; a failed `test` raises."""
    result = copy.deepcopy(document)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        target = result
        for part in parents:
            target = target[int(part) if isinstance(target, list) else part]
        key = int(last) if isinstance(target, list) and last != "-" else last
        match operation["op"]:
            case "test":
                assert target[key] == operation["value"], f"test of {operation['path']}"
            case "remove":
                del target[key]
            case "replace":
                assert key in target if isinstance(target, dict) else key < len(target)
                target[key] = operation["value"]
            case "add" if isinstance(target, list):
                target.insert(len(target) if key == "-" else key, operation["value"])
            case _:
                target[key] = operation["value"]
    return result
