from __future__ import annotations

from typing import Any

import pytest

from lab.cluster.nodes import storage


def _claim(asked: str = "20Gi", mode: str = "ReadWriteOnce", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "models", "namespace": "team", "uid": "u-1"},
        "spec": {
            "storageClassName": "linode-block-storage",
            "accessModes": [mode],
            "resources": {"requests": {"storage": asked}},
        },
        "status": status,
    }


@pytest.mark.parametrize(
    ("asked", "got"),
    [("1Gi", "10Gi"), ("10Gi", "10Gi"), ("10.5Gi", "11Gi"), ("20G", "19Gi"), ("1Ti", "1024Gi")],
)
def test_size_is_whole_gib_and_at_least_ten(asked: str, got: str) -> None:
    assert storage.volume_size(_claim(asked)) == got


def test_volume_is_reserved_for_the_claim() -> None:
    made = storage.volume(_claim(), 9001)["spec"]
    assert made["claimRef"]["uid"] == "u-1"
    assert made["csi"]["driver"] == storage.PROVISIONER
    assert made["persistentVolumeReclaimPolicy"] == "Delete"


@pytest.mark.parametrize(
    ("mode", "refused"),
    [("ReadWriteOnce", False), ("ReadWriteOncePod", False), ("ReadWriteMany", True), ("ReadOnlyMany", True)],
)
def test_access_modes(mode: str, refused: bool) -> None:
    assert (storage.refusal(_claim(mode=mode)) is not None) == refused


def test_only_new_claims_of_our_classes_get_a_volume() -> None:
    assert storage.is_new(_claim())
    bound = _claim()
    bound["spec"]["volumeName"] = "pvc-1"
    foreign = _claim()
    foreign["spec"]["storageClassName"] = "other"
    assert not storage.is_new(bound)
    assert not storage.is_new(foreign)


def test_growth() -> None:
    def bound(asked: str, has: str) -> dict[str, Any]:
        return _claim(asked, phase="Bound", capacity={"storage": has})

    assert storage.grown(bound("20Gi", "10Gi")) == "20Gi"
    assert storage.grown(bound("5Gi", "10Gi")) is None
    assert storage.grown(_claim("20Gi", phase="Pending")) is None


@pytest.mark.parametrize(
    ("phase", "policy", "garbage"),
    [("Released", "Delete", True), ("Released", "Retain", False), ("Bound", "Delete", False)],
)
def test_released_volumes_go_unless_they_are_kept(phase: str, policy: str, garbage: bool) -> None:
    one = storage.volume(_claim(), 9001)
    one["spec"]["persistentVolumeReclaimPolicy"] = policy
    one["status"] = {"phase": phase}
    assert storage.is_garbage(one) == garbage


def test_retaining_class_is_the_default() -> None:
    key = "storageclass.kubernetes.io/is-default-class"
    default = {name: storage.storage_class(name)["metadata"]["annotations"][key] for name in storage.CLASSES}
    assert default == {"linode-block-storage": "false", "linode-block-storage-retain": "true"}
