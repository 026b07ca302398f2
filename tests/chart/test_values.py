"""Bad values are refused before anything is installed, and the message names the key."""

from __future__ import annotations

from typing import Any

import pytest

from chart import helm


def nested(path: str, value: Any) -> dict[str, Any]:
    """Values with one key set."""
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


BAD: list[tuple[str, Any]] = [
    ("replica", 2),
    ("replicas", "two"),
    ("replicas", -1),
    ("replicas", 6),
    ("replicas", 1.5),
    ("nameOverride", "Upper"),
    ("fullnameOverride", "a" * 51),
    ("fullnameOverride", "1digit"),
    ("crds.enabled", "yes"),
    ("crds.install", True),
    ("crds.annotations", {"a": 1}),
    ("watch.namespaces", "team"),
    ("watch.namespaces", ["Team"]),
    ("watch.namespaces", ["a", "a"]),
    ("rbac.create", "no"),
    ("rbac.wildcard", True),
    ("serviceAccount.name", "no spaces"),
    ("serviceAccount.annotations", ["a"]),
    ("image.repository", ""),
    ("image.repository", "Upper/Case"),
    ("image.tag", "a b"),
    ("image.digest", "sha256:abc"),
    ("image.digest", "0" * 64),
    ("image.pullPolicy", "Sometimes"),
    ("imagePullSecrets", ["registry"]),
    ("images.engine", "vllm --privileged"),
    ("images.other", "x"),
    ("linode.token", "secret"),
    ("linode.tokenSecretRef", "linode-token"),
    ("linode.tokenSecretRef.name", "Not_A_Name"),
    ("linode.tokenSecretRef.key", ""),
    ("linode.url", "api.linode.com"),
    ("linode.url", "https://user:password@api.linode.com/v4"),
    ("linode.clusterID", "two words"),
    ("linode.checkIntervalSeconds", 0),
    ("linode.nodeBalancerRanges", []),
    ("linode.nodeBalancerRanges", ["192.168.255.0"]),
    ("hub.endpoint", "hub.example.com"),
    ("hub.endpoint", "https://hub.example.com/?token=x"),
    ("hub.networks", ["10.0.8.0"]),
    ("hub.networks", "10.0.8.0/24"),
    ("cluster.storageClass", ""),
    ("cluster.podRanges", ["anywhere"]),
    ("cluster.dnsNetworks", ["169.254.20.10"]),
    ("operator.workers", 0),
    ("operator.resyncIntervalSeconds", 1),
    ("operator.engineUpdatePatienceSeconds", "10m"),
    ("log.level", "trace"),
    ("log.format", "xml"),
    ("resources.limits", {"nvidia.com/gpu": 1}),
    ("resources.request", {"cpu": "1"}),
    ("nodeSelector", {"gpu": True}),
    ("tolerations", ["all"]),
    ("podLabels", {"a": 1}),
    ("podDisruptionBudget.enabled", 1),
    ("networkPolicy.metricsFrom", [{}]),
    ("networkPolicy.metricsFrom", [{"cidr": "10.0.0.0/8"}]),
    ("networkPolicy.apiServerPorts", [0]),
    ("networkPolicy.apiServerPorts", []),
    ("networkPolicy.extraEgress", [{}]),
    ("monitoring.serviceMonitor.interval", "often"),
    ("monitoring.serviceMonitor.enabled", "true"),
    ("monitoring.rules.labels", {"a": 1}),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=[f"{path}={value!r:.30}" for path, value in BAD])
def test_a_bad_value_is_refused_by_the_name_of_its_key(newest: helm.Helm, path: str, value: Any) -> None:
    with pytest.raises(helm.Refused) as refused:
        newest.template(nested(path, value))
    message = str(refused.value)
    assert "don't meet the specifications of the schema" in message
    named = (f"'/{path.replace('.', '/')}", f"additional properties '{path.rpartition('.')[2]}'")
    assert any(name in message for name in named), message


def test_both_helms_refuse_the_same_way(either: helm.Helm) -> None:
    with pytest.raises(helm.Refused, match="'/replicas'"):
        either.template({"replicas": "two"})
    with pytest.raises(helm.Refused, match="additional properties 'replica'"):
        either.template({"replica": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"watch": {"namespaces": ["team"]}, "rbac": {"clusterRole": False}},
            r"linode\.clusterID must be given",
        ),
        ({"rbac": {"clusterRole": False}}, r"rbac\.clusterRole must be true"),
        (
            {"podLabels": {"app.kubernetes.io/name": "mine"}},
            r"podLabels must not set app\.kubernetes\.io/name",
        ),
        (
            {"crds": {"annotations": {"helm.sh/resource-policy": "keep"}}},
            r"crds\.annotations must not set helm\.sh/resource-policy: set crds\.keep",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    either: helm.Helm, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.Refused, match=message):
        either.template(values)
