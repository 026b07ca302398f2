"""The pure decisions of the stand-in: annotations, bodies, triggers."""

from __future__ import annotations

from typing import Any

import pytest

from lab.linode.ccm import acl, requests, triggers
from lab.linode.ccm import annotations as ann
from lab.linode.ccm.annotations import PREFIX, SyncError

PORT = {"name": "a", "port": 8000, "protocol": "TCP", "nodePort": 30711}


def service(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "s",
            "namespace": "default",
            "uid": "u",
            "annotations": {PREFIX + k: v for k, v in (annotations or {}).items()},
        },
        "spec": {"type": "LoadBalancer", "ports": [PORT], **spec},
    }


CONFIGS: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {"protocol": "tcp", "proxy_protocol": "none", "check": "connection", "check_passive": True}),
    ({"default-proxy-protocol": "V2"}, {"proxy_protocol": "v2"}),
    ({"port-8000": '{"proxy-protocol": "v1"}', "default-proxy-protocol": "v2"}, {"proxy_protocol": "v1"}),
    ({"port-9000": '{"proxy-protocol": "v1"}'}, {"proxy_protocol": "none"}),
    ({"default-protocol": "http"}, {"protocol": "http", "stickiness": "table"}),
    ({"default-protocol": "udp"}, {"protocol": "udp", "stickiness": "session", "udp_check_port": 80}),
    ({"check-passive": "false"}, {"check_passive": False}),
    ({"check-type": "http"}, {"check": "http", "check_path": "/"}),
    ({"check-type": "http_body", "check-body": "ok"}, {"check": "http_body", "check_body": "ok"}),
    ({"check-interval": "7", "check-attempts": "4"}, {"check_interval": 7, "check_attempts": 4}),
    ({"default-stickiness": "http_cookie"}, {"protocol": "tcp"}),
]


@pytest.mark.parametrize(("annotations", "wanted"), CONFIGS)
def test_configs(annotations: dict[str, str], wanted: dict[str, Any]) -> None:
    body = requests.config(annotations, PORT)
    assert {name: body.get(name) for name in wanted} == wanted
    assert ("stickiness" in body) == (body["protocol"] != "tcp"), "stickiness is ignored for tcp"


REFUSED = [
    {"default-protocol": "sctp"},
    {"default-proxy-protocol": "v3"},
    {"default-protocol": "udp", "default-proxy-protocol": "v2"},
    {"default-algorithm": "ring_hash"},
    {"default-protocol": "http", "default-stickiness": "session"},
    {"check-type": "ping"},
    {"check-passive": "no"},
    {"check-interval": "5s"},
    {"check-type": "http_body"},
    {"port-8000": "{"},
    {"port-8000": "[]"},
]


@pytest.mark.parametrize("annotations", REFUSED)
def test_refused_annotations(annotations: dict[str, str]) -> None:
    with pytest.raises(SyncError):
        requests.config(annotations, PORT)


@pytest.mark.parametrize(("value", "wanted"), [("5", 5), ("25", 20), ("-1", 0), ("abc", 0), ("", 0)])
def test_throttle(value: str, wanted: int) -> None:
    assert ann.throttle({"throttle": value}) == wanted


def test_tags_are_not_trimmed() -> None:
    assert ann.tags({"tags": "a, b"}, "lke7", ("flag",)) == ["lke7", "flag", "a", " b"]
    assert ann.tags({}, "lke7") == ["lke7"]


@pytest.mark.parametrize(("value", "wanted"), [("Premium", "premium"), ("huge", "common")])
def test_type(value: str, wanted: str) -> None:
    assert ann.nodebalancer_type({"nodebalancer-type": value}, "common") == wanted


def test_backends() -> None:
    node = {"metadata": {"name": "n1", "annotations": {ann.NODE_PRIVATE_IP: "192.168.128.1"}}}
    plain = {
        "metadata": {"name": "x" * 40},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    }
    found = requests.nodes([node, plain], PORT, "tcp", {"192.168.128.1:30711": 104})
    assert [(n["address"], n["label"], n.get("id")) for n in found] == [
        ("192.168.128.1:30711", "node-n1", 104),
        ("10.0.0.1:30711", "x" * 32, None),
    ]
    with pytest.raises(SyncError, match="no internal IP"):
        requests.nodes([{"metadata": {"name": "n1"}}], PORT, "tcp")


CHANGES: list[tuple[str, dict[str, Any], bool]] = [
    ("nothing", {}, False),
    ("annotation", {"annotations": {"throttle": "1"}}, True),
    ("external traffic policy", {"externalTrafficPolicy": "Local"}, True),
    ("source ranges", {"loadBalancerSourceRanges": ["203.0.113.0/24"]}, True),
    ("port", {"ports": [{**PORT, "port": 9000}]}, True),
    ("node port", {"ports": [{**PORT, "nodePort": 31000}]}, True),
    ("selector", {"selector": {"a": "b"}}, False),
    ("type", {"type": "ClusterIP"}, True),
    ("class", {"loadBalancerClass": "x/y"}, True),
]


@pytest.mark.parametrize(("changes", "wanted"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_triggers(changes: dict[str, Any], wanted: bool) -> None:
    assert triggers.needs_update(service(), service(**changes)) is wanted


def test_status_and_labels_trigger_nothing() -> None:
    other = {**service(), "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}
    other["metadata"] = {**other["metadata"], "labels": {"a": "b"}, "finalizers": [triggers.FINALIZER]}
    assert not triggers.needs_update(service(), other)


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("true", False), ("false", True), ("x", False)])
def test_excluded_nodes(value: str | None, wanted: bool) -> None:
    labels = {} if value is None else {triggers.EXCLUDE_LABEL: value}
    assert triggers.included({"metadata": {"name": "n", "labels": labels}}) is wanted


def test_readiness_does_not_count() -> None:
    node = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    assert triggers.usable(node)
    assert not triggers.usable({"metadata": {"name": "n", "deletionTimestamp": "x"}})
    assert not triggers.usable({**node, "spec": {"taints": [{"key": triggers.TO_BE_DELETED_TAINT}]}})


def test_acl_rules_are_chunked() -> None:
    networks = ",".join(f'"10.{n // 256}.{n % 256}.0/24"' for n in range(300))
    rules = acl.rules(f'{{"allowList": {{"ipv4": [{networks}]}}}}', "fw", service())
    assert [len(rule["addresses"].get("ipv4", [])) for rule in rules["inbound"]] == [255, 45, 0]
    assert rules["inbound_policy"] == "DROP"


@pytest.mark.parametrize("text", ["{}", '{"allowList": {}, "denyList": {}}', "{"])
def test_refused_acl(text: str) -> None:
    with pytest.raises(SyncError):
        acl.rules(text, "fw", service())
