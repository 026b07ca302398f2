from __future__ import annotations

from typing import Any

import pytest

from lab.cluster.nodes import needs
from lab.cluster.nodes.lifecycle import Blocked
from unit.lab_nodes.factory import pod

Objects = dict[tuple[str, str], dict[str, Any]]


def _blocked(of: dict[str, Any], objects: Objects) -> Blocked | None:
    wanted = needs.of(of)
    found = {key: objects.get(key) for key in needs.objects(wanted)}
    return needs.first_unmet(wanted, found, "team")


def _with_env(*variables: dict[str, Any], **more: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "engine", "image": "x", "env": list(variables), **more}])


def _key(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key, **more}}}


SECRET_VOLUME = {"name": "v", "secret": {"secretName": "s"}}
MOUNT = 'MountVolume.SetUp failed for volume "v" : '


def test_a_pod_without_needs() -> None:
    assert needs.of(_with_env({"name": "A", "value": "b"})) == ()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (SECRET_VOLUME, MOUNT + 'secret "s" not found'),
        ({"name": "v", "configMap": {"name": "c"}}, MOUNT + 'configmap "c" not found'),
        (
            {"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}},
            MOUNT + 'secret "s" not found',
        ),
        (
            {"name": "v", "persistentVolumeClaim": {"claimName": "p"}},
            'persistentvolumeclaim "p" not found',
        ),
    ],
)
def test_missing_volume(volume: dict[str, Any], message: str) -> None:
    assert _blocked(pod(volumes=[volume]), {}) == Blocked(message)


def test_missing_key_of_a_volume() -> None:
    volume = {"name": "v", "secret": {"secretName": "s", "items": [{"key": "tls.crt", "path": "x"}]}}
    secret = {"data": {"tls.key": "eA=="}}
    expected = Blocked(MOUNT + "references non-existent secret key: tls.crt")
    assert _blocked(pod(volumes=[volume]), {("Secret", "s"): secret}) == expected


def test_claim_has_to_be_bound() -> None:
    one = pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "p"}}])
    key = ("PersistentVolumeClaim", "p")
    assert _blocked(one, {key: {"status": {"phase": "Pending"}}}) is not None
    assert _blocked(one, {key: {"status": {"phase": "Bound"}}}) is None


def test_missing_variables_name_the_container() -> None:
    one = _with_env(_key("s", "k"))
    assert _blocked(one, {}) == Blocked('secret "s" not found', "engine")
    wrong: Objects = {("Secret", "s"): {"data": {"other": "eA=="}}}
    assert _blocked(one, wrong) == Blocked("couldn't find key k in Secret team/s", "engine")
    assert _blocked(one, {("Secret", "s"): {"data": {"k": "eA=="}}}) is None


def test_environment_from_a_whole_object() -> None:
    one = _with_env(envFrom=[{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}])
    assert _blocked(one, {}) == Blocked('secret "s" not found', "engine")
    assert _blocked(one, {("Secret", "s"): {}}) == Blocked('configmap "c" not found', "engine")


def test_what_is_optional_may_be_missing() -> None:
    one = pod(
        volumes=[{"name": "v", "secret": {"secretName": "s", "optional": True}}],
        containers=[
            {
                "name": "engine",
                "image": "x",
                "env": [_key("s", "k", optional=True)],
                "envFrom": [{"secretRef": {"name": "s", "optional": True}}],
            }
        ],
    )
    assert needs.of(one) == ()


def test_volumes_come_before_variables() -> None:
    one = _with_env(_key("s", "k"))
    one["spec"]["volumes"] = [{"name": "v", "configMap": {"name": "c"}}]
    assert _blocked(one, {}) == Blocked(MOUNT + 'configmap "c" not found')
