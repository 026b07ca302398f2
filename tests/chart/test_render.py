"""What the chart renders, over a grid of values, with both Helms."""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import re
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import names, permissions
from ai_sandbox_operator.desired import network
from ai_sandbox_operator.runtime import settings
from chart import helm

DIGEST = "sha256:" + "a" * 64
RESOLVERS = ["169.254.20.10/32", "fd00:53::/64"]

#: Values that change which objects there are; every combination is rendered.
SWITCHES: dict[str, list[dict[str, Any]]] = {
    "scope": [
        {},
        {"watch": {"namespaces": ["team-a", "team-b"]}},
        {
            "watch": {"namespaces": ["team-a"]},
            "rbac": {"clusterRole": False},
            "linode": {"clusterID": "7f3c2d1e"},
        },
    ],
    "replicas": [{}, {"replicas": 1}, {"replicas": 0}],
    "off": [
        {},
        {
            "crds": {"enabled": False},
            "serviceAccount": {"create": False, "name": "given"},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
        },
    ],
}
EVERYTHING: dict[str, Any] = {
    "fullnameOverride": "operator",
    "crds": {"annotations": {"argocd.argoproj.io/sync-options": "Prune=false"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "image": {"repository": "registry.example.com:5000/op", "digest": DIGEST, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "images": {
        "engine": "e.example/vllm:1",
        "chat": "e.example/chat:1",
        "gateway": f"e.example/envoy@{DIGEST}",
    },
    "linode": {
        "tokenSecretRef": {"name": "linode-token", "key": "api"},
        "url": "http://linode.test:8081/v4",
        "clusterID": "cluster-1",
        "nodeBalancerRanges": ["192.168.255.0/24", "10.9.0.0/16"],
    },
    "hub": {"endpoint": "https://hub.example.com:8443", "networks": ["10.0.8.0/24", "fd00:8::/64"]},
    "cluster": {"storageClass": "fast", "podRanges": ["10.2.0.0/16", "fd00::/64"], "dnsNetworks": RESOLVERS},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"team": "platform"},
    "podAnnotations": {"note": "x"},
    "networkPolicy": {
        "metricsFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 3128}]}],
    },
}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Values, the later ones over the earlier."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


MONITORED: dict[str, Any] = {
    "monitoring": {
        part: {"enabled": True, "labels": {"a": "b"}} for part in ("serviceMonitor", "rules", "dashboard")
    }
}

GRID = [merged(*choice) for choice in itertools.product(*SWITCHES.values())] + [EVERYTHING, MONITORED]


def parsed(arguments: list[str], environment: dict[str, str] | None = None) -> settings.Settings:
    """Settings that the operator's own parser makes of a container's arguments."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    settings.add_arguments(parser, environment or {})
    return settings.from_arguments(parser.parse_args(arguments))


def pod(manifests: list[helm.Manifest]) -> dict[str, Any]:
    spec: dict[str, Any] = helm.find(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def rules(manifests: list[helm.Manifest], kind: str, suffix: str = "") -> list[dict[str, Any]]:
    """Rules of the operator's roles of one kind; those for people are left out."""
    return [
        rule
        for role in helm.every(manifests, kind)
        if role["metadata"]["name"].endswith(suffix)
        and not role["metadata"]["name"].endswith(("-view", "-edit"))
        for rule in role["rules"]
    ]


def wanted(scope: permissions.Scope) -> list[dict[str, Any]]:
    """The table's rules, with the Lease's name as the chart chooses it."""
    return [
        json.loads(json.dumps(p.rule()).replace(permissions.LEASE_NAME, f"{helm.RELEASE}-ai-sandbox"))
        for p in permissions.of(scope)
    ]


def test_both_helms_lint_the_chart_without_a_warning(either: helm.Helm) -> None:
    said = either.run("lint", "--strict", str(helm.CHART))
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("values", GRID, ids=range(len(GRID)))
def test_every_combination_renders_the_same_with_both_helms(
    values: dict[str, Any], home: pathlib.Path
) -> None:
    renders = [helm.Helm(v, helm.ensure(v), home).template(values) for v in helm.VERSIONS]
    assert renders[0] == renders[1]
    assert all(m["metadata"].get("namespace") or m["kind"] in CLUSTER_KINDS for m in renders[0])
    keys = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in renders[0]]
    assert len(keys) == len(set(keys))


def test_labels_and_annotations_that_the_chart_has_too_are_taken_from_the_values(either: helm.Helm) -> None:
    part_of = {"app.kubernetes.io/part-of": "platform"}
    container = {"kubectl.kubernetes.io/default-container": "x"}
    monitoring = {part: {"enabled": True, "labels": part_of} for part in MONITORED["monitoring"]}
    values = {"podLabels": part_of, "podAnnotations": container, "monitoring": monitoring}
    manifests = either.template(values)
    template = helm.find(manifests, "Deployment")["spec"]["template"]["metadata"]
    assert template["annotations"] == container
    for metadata in (template, *(helm.find(manifests, kind)["metadata"] for kind in MONITORING_KINDS)):
        assert metadata["labels"].items() >= part_of.items()
        assert metadata["labels"]["app.kubernetes.io/name"] == "ai-sandbox-operator"


def test_a_namespace_that_yaml_takes_for_a_number_or_a_truth_stays_a_name(either: helm.Helm) -> None:
    manifests = either.template({"watch": {"namespaces": ["123", "on"]}}, "--namespace", "42")
    found = {m["metadata"].get("namespace", "") for m in manifests}
    assert found == {"", "42", "123", "on"}
    assert {s["namespace"] for m in helm.every(manifests, "RoleBinding") for s in m["subjects"]} == {"42"}


def test_null_gives_a_list_back_its_default(either: helm.Helm) -> None:
    assert either.template({"watch": {"namespaces": None}}) == either.template()


MONITORING_KINDS = ("ConfigMap", "PrometheusRule", "ServiceMonitor")
CLUSTER_KINDS = ("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding")


@pytest.mark.parametrize("values", GRID, ids=range(len(GRID)))
def test_every_flag_is_one_that_the_operator_knows_and_says_what_the_values_say(
    newest: helm.Helm, values: dict[str, Any]
) -> None:
    defaults = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    given = merged(defaults, values)
    spec = pod(newest.template(values))
    container = spec["containers"][0]
    assert container["args"][0] == "run"
    made = parsed(container["args"][1:], {"POD_NAMESPACE": helm.NAMESPACE})
    assert made.namespaces == tuple(given["watch"]["namespaces"])
    assert made.operator_namespace == made.lease_namespace == helm.NAMESPACE
    assert made.leader_elect
    assert made.cluster_id == (given["linode"]["clusterID"] or None)
    assert made.linode_url == given["linode"]["url"]
    assert made.linode_check_interval == given["linode"]["checkIntervalSeconds"]
    assert list(made.nodebalancer_ranges) == given["linode"]["nodeBalancerRanges"]
    assert list(made.pod_ranges) == given["cluster"]["podRanges"]
    assert list(made.dns_networks) == given["cluster"]["dnsNetworks"]
    assert made.storage_class == given["cluster"]["storageClass"]
    assert made.hub_endpoint == given["hub"]["endpoint"]
    assert list(made.hub_networks) == given["hub"]["networks"]
    assert made.workers == given["operator"]["workers"]
    assert made.resync_interval == given["operator"]["resyncIntervalSeconds"]
    assert made.engine_update_patience == given["operator"]["engineUpdatePatienceSeconds"]
    assert (made.log_format, made.log_level) == (given["log"]["format"], given["log"]["level"])
    assert made.release.operator_image == container["image"]
    built_in = parsed([]).release
    for part in ("engine", "chat", "gateway"):
        expected = given["images"][part] or getattr(built_in, f"{part}_image")
        assert getattr(made.release, f"{part}_image") == expected
    assert made.health_port == container["ports"][0]["containerPort"] == 8080


def test_the_defaults_are_those_of_the_operator(newest: helm.Helm) -> None:
    chart, own = parsed(pod(newest.template())["containers"][0]["args"][1:]), parsed([])
    differing = {
        field for field in vars(own) if getattr(chart, field) != getattr(own, field) and field != "lease_name"
    }
    assert differing == set()


def test_the_rights_in_the_whole_cluster_are_exactly_the_table(either: helm.Helm) -> None:
    manifests = either.template()
    assert rules(manifests, "ClusterRole") == wanted("sandboxes") + wanted("cluster")
    assert rules(manifests, "Role") == wanted("own")


def test_with_namespaces_no_secret_is_readable_elsewhere(either: helm.Helm) -> None:
    manifests = either.template({"watch": {"namespaces": ["team-a", "team-b"]}})
    assert rules(manifests, "ClusterRole") == wanted("cluster")
    for namespace in ("team-a", "team-b"):
        mine = [m for m in helm.every(manifests, "Role") if m["metadata"]["namespace"] == namespace]
        assert [m["rules"] for m in mine] == [wanted("sandboxes")]
        (binding,) = [
            m for m in helm.every(manifests, "RoleBinding") if m["metadata"]["namespace"] == namespace
        ]
        assert binding["roleRef"]["name"] == mine[0]["metadata"]["name"]
    assert [
        m["rules"] for m in manifests if m["metadata"].get("namespace") == helm.NAMESPACE and "rules" in m
    ] == [wanted("own")]


def test_nothing_of_the_cluster_is_granted_where_that_is_declined(newest: helm.Helm) -> None:
    values = {
        "watch": {"namespaces": ["a"]},
        "rbac": {"clusterRole": False, "aggregate": False},
        "linode": {"clusterID": "c"},
    }
    assert not {"ClusterRole", "ClusterRoleBinding"} & {m["kind"] for m in newest.template(values)}


@pytest.mark.parametrize("values", GRID, ids=range(len(GRID)))
def test_there_is_no_wildcard_and_each_binding_names_a_role_and_the_account(
    newest: helm.Helm, values: dict[str, Any]
) -> None:
    manifests = newest.template(values)
    account = pod(manifests)["serviceAccountName"]
    for role in helm.every(manifests, "Role") + helm.every(manifests, "ClusterRole"):
        assert "*" not in json.dumps(role["rules"])
    for binding in helm.every(manifests, "RoleBinding") + helm.every(manifests, "ClusterRoleBinding"):
        assert helm.find(
            [m for m in manifests if m["metadata"].get("namespace") == binding["metadata"].get("namespace")],
            binding["roleRef"]["kind"],
            binding["roleRef"]["name"],
        )
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account, "namespace": helm.NAMESPACE}
        ]


def test_people_with_view_may_only_read_sandboxes(newest: helm.Helm) -> None:
    manifests = newest.template()
    for role in helm.every(manifests, "ClusterRole"):
        labels = role["metadata"]["labels"]
        if "rbac.authorization.k8s.io/aggregate-to-view" in labels:
            assert [(r["resources"], r["verbs"]) for r in role["rules"]] == [
                (["aisandboxes"], ["get", "list", "watch"])
            ]


def test_the_policies_of_sandboxes_admit_the_operators_pods(newest: helm.Helm) -> None:
    template = helm.find(newest.template(EVERYTHING), "Deployment")["spec"]["template"]
    peer = network._operator(helm.NAMESPACE)
    labels = template["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    env = pod(newest.template())["containers"][0]["env"]
    assert env == [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]


def egress(manifests: list[helm.Manifest]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = helm.find(manifests, "NetworkPolicy")["spec"]["egress"]
    return found


def test_the_operators_own_policy_opens_what_it_needs_and_no_other_port(newest: helm.Helm) -> None:
    dns, outside, sandboxes = egress(newest.template())
    assert {p["port"] for p in dns["ports"]} == {53}
    assert {p["port"] for p in outside["ports"]} == {443, 6443}
    assert {p["port"] for p in sandboxes["ports"]} == {names.PORT_GATEWAY_STATUS, names.PORT_ENGINE}
    assert sandboxes["to"] == [
        {"podSelector": {"matchLabels": {names.LABEL_NAME: names.APP_NAME}}, "namespaceSelector": {}}
    ]
    again, outside = egress(newest.template(EVERYTHING))[:2]
    assert again["to"] == [*dns["to"], *({"ipBlock": {"cidr": cidr}} for cidr in RESOLVERS)]
    assert again["ports"] == dns["ports"]
    assert {p["port"] for p in outside["ports"]} == {443, 6443, 8081, 8443}


def test_the_token_is_a_file_and_never_an_argument_or_variable(newest: helm.Helm) -> None:
    spec = pod(newest.template(EVERYTHING))
    made = parsed(spec["containers"][0]["args"][1:])
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    volume = next(v for v in spec["volumes"] if v["name"] == "linode-token")["secret"]
    assert volume["secretName"] == "linode-token"
    assert volume["items"] == [{"key": "api", "path": "token"}]
    assert mounts["linode-token"]["readOnly"] is True
    assert made.linode_token_file == f"{mounts['linode-token']['mountPath']}/token"
    without = pod(newest.template())
    assert parsed(without["containers"][0]["args"][1:]).linode_token_file is None
    assert [v["name"] for v in without["volumes"]] == ["tmp"]


def test_a_digest_wins_over_a_tag(newest: helm.Helm) -> None:
    image = {"repository": "r.example/op", "tag": "v2", "digest": DIGEST}
    container = pod(newest.template({"image": image}))["containers"][0]
    assert container["image"] == f"r.example/op@{DIGEST}"
    container = pod(newest.template({"image": {"tag": "v2"}}))["containers"][0]
    assert container["image"] == "ghcr.io/linode/ai-sandbox-operator:v2"


def test_a_budget_exists_only_where_it_does_not_block_a_drain(newest: helm.Helm) -> None:
    assert helm.find(newest.template(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert helm.every(newest.template({"replicas": 1}), "PodDisruptionBudget") == []


@pytest.mark.parametrize(("keep", "expected"), [(True, "keep"), (False, None)])
def test_the_crd_is_the_generated_one_and_kept_when_told(
    either: helm.Helm, keep: bool, expected: str | None
) -> None:
    crd = helm.find(either.template({"crds": {"keep": keep}}), "CustomResourceDefinition")
    metadata = crd.pop("metadata")
    source = yaml.safe_load(next(helm.ROOT.glob("crds/*.yaml")).read_text())
    assert metadata["name"] == source.pop("metadata")["name"]
    assert (metadata.get("annotations") or {}).get("helm.sh/resource-policy") == expected
    assert crd == source


def leaves(value: Any, path: str = "") -> set[str]:
    """Paths of all values that are no mapping, or an empty one."""
    if isinstance(value, dict) and value:
        return {leaf for key, item in value.items() for leaf in leaves(item, f"{path}.{key}")}
    return {path.lstrip(".")}


def schema_leaves(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> set[str]:
    """Paths of all properties that have no properties of their own."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    properties = schema.get("properties")
    if not properties:
        return {path.lstrip(".")}
    return {
        leaf for key, item in properties.items() for leaf in schema_leaves(item, definitions, f"{path}.{key}")
    }


#: May be set and have no default.
WITHOUT_DEFAULT = {
    "global",
    "resources.claims",
    "resources.limits.cpu",
    "resources.limits.ephemeral-storage",
    "resources.requests.ephemeral-storage",
}


def test_schema_and_values_know_the_same_keys_and_all_of_them_are_described() -> None:
    text = (helm.CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    allowed = schema_leaves(schema, schema["$defs"])
    inside_labels = {leaf for leaf in leaves(values) if leaf.startswith("monitoring.dashboard.labels.")}
    assert allowed - WITHOUT_DEFAULT == (leaves(values) - inside_labels) | {"monitoring.dashboard.labels"}
    documented = re.findall(r"^\| `([^`]+)` \|", (helm.CHART / "README.md").read_text(), re.MULTILINE)
    assert set(documented) == allowed - WITHOUT_DEFAULT
    assert len(documented) == len(set(documented))


def closed(schema: Any) -> bool:
    """Whether every object with properties refuses others."""
    if isinstance(schema, list):
        return all(map(closed, schema))
    if not isinstance(schema, dict):
        return True
    described = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if described and schema.get("additionalProperties") is not False:
        return False
    return all(closed(item) for item in schema.values())


def test_no_part_of_the_schema_takes_unknown_keys() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    assert closed(schema)
    schema["properties"]["log"].pop("additionalProperties")
    assert not closed(schema)


def test_every_value_is_used_by_a_template() -> None:
    templates = "\n".join(
        path.read_text() for path in sorted((helm.CHART / "templates").rglob("*")) if path.is_file()
    )
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    unused = set()
    for leaf in schema_leaves(schema, schema["$defs"]) - WITHOUT_DEFAULT:
        parts = leaf.split(".")
        whole = any(
            re.search(rf"\.Values\.{re.escape('.'.join(parts[:n]))}(?![\w.])", templates)
            for n in range(1, len(parts) + 1)
        )
        if not whole:
            unused.add(leaf)
    assert unused == set()


@pytest.mark.parametrize("values", GRID, ids=range(len(GRID)))
def test_no_render_holds_a_time_or_a_random_part(newest: helm.Helm, values: dict[str, Any]) -> None:
    assert newest.template(values) == newest.template(values)


def test_the_notes_name_the_next_command(newest: helm.Helm) -> None:
    def notes(values: dict[str, Any]) -> str:
        flags = ("--dry-run=client", "--namespace", helm.NAMESPACE)
        return newest.run("install", helm.RELEASE, str(helm.CHART), *flags, values=values)

    assert "kubectl create -n default -f -" in notes({})
    assert "There is no Linode token" in notes({})
    assert "kubectl create -n team -f -" in notes({"watch": {"namespaces": ["team"]}})
    assert "There is no Linode token" not in notes({"linode": {"tokenSecretRef": {"name": "t"}}})
    assert "EVERY sandbox" in notes({"crds": {"keep": False}})


def test_monitoring_is_made_only_on_request(either: helm.Helm) -> None:
    kinds = {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert not kinds & {m["kind"] for m in either.template()}
    made = either.template(MONITORED)
    assert kinds <= {m["kind"] for m in made}
    service, monitor = helm.find(made, "Service"), helm.find(made, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    for kind in kinds:
        assert helm.find(made, kind)["metadata"]["labels"]["a"] == "b"
