"""Envoy's files for a pod on this machine: what is moved, and what must not be."""

from __future__ import annotations

import json
import pathlib

from ai_sandbox_operator.desired import envoy
from lab.envoy import layout
from unit.lab_nodes.test_gateway import KNOWN, sandbox

FOLDERS = {"/etc/envoy": pathlib.Path("/lab/pod/config"), "/tls": pathlib.Path("/lab/pod/tls")}


def moved(text: str) -> str:
    return layout.relocate(text, address="127.2.0.7", folders=FOLDERS, upstreams={"engine": 1, "chat": 2})


def test_the_configuration_is_moved_and_ports_stay() -> None:
    files = envoy.configuration(sandbox("203.0.113.4/32"), KNOWN)[1]
    listeners = json.loads(moved(files["lds.json"]))["resources"]
    found = {one["name"]: one["address"]["socket_address"] for one in listeners}
    assert {one["address"] for one in found.values()} == {"127.2.0.7"}
    assert found["external_api"]["port_value"] == 8443
    assert found["status"]["port_value"] == 9902
    bootstrap = moved(files["envoy.json"])
    assert json.loads(bootstrap)["admin"]["address"]["socket_address"]["address"] == "127.2.0.7"
    assert '"127.0.0.1"' not in bootstrap
    assert "/etc/envoy" not in bootstrap
    clusters = {one["name"]: json.dumps(one) for one in json.loads(moved(files["cds.json"]))["resources"]}
    assert '{"address": "127.0.0.1", "port_value": 1}' in clusters["engine"]
    assert '{"address": "127.0.0.1", "port_value": 2}' in clusters["chat"]


def test_who_is_admitted_is_not_moved() -> None:
    text = envoy.configuration(sandbox("0.0.0.0/1", "127.0.0.1/32"), KNOWN)[1]["rds-internal-api.json"]
    assert json.loads(moved(text)) == json.loads(text)


def test_what_is_no_json_stays_for_envoy_to_refuse() -> None:
    assert moved("{broken") == "{broken"
    assert moved("[]") == "[]"


def test_only_paths_below_a_mounted_directory_are_moved() -> None:
    assert layout.below("/tls/tls.key", FOLDERS) == "/lab/pod/tls/tls.key"
    assert layout.below("/tls", FOLDERS) == "/lab/pod/tls"
    assert layout.below("/tlsx", FOLDERS) == "/tlsx"


def test_files_are_replaced_at_once_and_old_ones_go(tmp_path: pathlib.Path) -> None:
    layout.publish(tmp_path, {"a": "1", "b": "1"}, 0)
    layout.publish(tmp_path, {"a": "2", "c": "2"}, 1)
    layout.remove_stale(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        "a": "2",
        "c": "2",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..data", "..version_1", "a", "c"]
