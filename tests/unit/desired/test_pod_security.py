"""Every pod meets the restricted Pod Security Standard and the rules of this project.

The checker follows the text of the standard (kubernetes.io "Pod Security Standards"), not the
renderers.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from ai_sandbox_operator.desired import facts
from unit.desired import samples

Pod = dict[str, Any]
VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def containers(pod: Pod) -> Iterator[Pod]:
    return itertools.chain(
        pod.get("initContainers", []), pod["containers"], pod.get("ephemeralContainers", [])
    )


def violations(pod: Pod) -> list[str]:
    """What the restricted standard forbids, by the names of its controls."""
    found = []
    shared = pod.get("securityContext", {})
    if any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host namespaces")
    if any(len(v) != 2 or not (set(v) - {"name"}) <= VOLUME_TYPES for v in pod.get("volumes", [])):
        found.append("volume types")
    if shared.get("sysctls") or shared.get("seLinuxOptions") or shared.get("windowsOptions"):
        found.append("sysctls, SELinux or host process")
    for container in containers(pod):
        own = container.get("securityContext", {})
        effective = {**shared, **own}
        if own.get("privileged"):
            found.append("privileged containers")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("privilege escalation")
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            found.append("running as non-root")
        if effective.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append("seccomp")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            found.append("capabilities")
        if own.get("procMount", "Default") != "Default":
            found.append("/proc mount type")
        if any(port.get("hostPort") for port in container.get("ports", [])):
            found.append("host ports")
    return found


def pods(children: tuple[facts.Child, ...]) -> dict[str, Pod]:
    """Pod specs by component."""
    return {
        child.manifest["metadata"]["labels"]["app.kubernetes.io/component"]: child.manifest["spec"][
            "template"
        ]["spec"]
        for child in children
        if child.kind in {"Deployment", "Job"}
    }


@hypothesis.given(samples.specs, samples.known)
def test_all_pods_are_restricted(spec: dict[str, Any], known: facts.Facts) -> None:
    found = pods(samples.rendered(spec, known))
    assert found.keys() - {"chat"} == {"fetch", "engine", "gateway"}
    for component, pod in found.items():
        assert violations(pod) == [], component


@hypothesis.given(samples.specs, samples.known)
def test_house_rules(spec: dict[str, Any], known: facts.Facts) -> None:
    for component, pod in pods(samples.rendered(spec, known)).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert "serviceAccountName" not in pod
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert all("subPath" not in mount for mount in container["volumeMounts"])
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            # The NVIDIA toolkit writes to the engine's root file system.
            assert container["securityContext"].get("readOnlyRootFilesystem", False) == (
                component != "engine"
            )
            paths = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {entry["value"] for entry in container.get("env", []) if entry["name"] == "HOME"} <= paths
            for entry in container.get("env", []):
                assert ("value" in entry) != ("valueFrom" in entry)
            environment = [entry["name"] for entry in container.get("env", [])]
            assert len(environment) == len(set(environment))


@pytest.mark.parametrize(
    ("change", "control"),
    [
        (lambda pod: pod.update(hostNetwork=True), "host namespaces"),
        (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume types"),
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "running as non-root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda pod: pod["containers"][0].pop("securityContext"), "privilege escalation"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"), "capabilities"),
        (
            lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
            "privileged containers",
        ),
        (lambda pod: pod["containers"][0]["ports"][0].update(hostPort=1), "host ports"),
    ],
)
def test_the_checker_finds_what_it_looks_for(change: Any, control: str) -> None:
    pod = copy.deepcopy(pods(samples.rendered())["gateway"])
    change(pod)
    assert control in violations(pod)
