"""A fetch Job on the lab's nodes: real scheduler, Job controller and API server, real fetch, hub simulator."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fetch.rig import MODEL, TOKEN, hub_of, lines, published, wanted
from lab.cluster.lab import Lab
from lab.hub import COMMIT, Hub, HubServer

NAMESPACE = "fetching"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as running:
        running.plane.kubectl("create", "namespace", NAMESPACE)
        running.nodes.behave("normal", component="fetch", fetch="real")
        yield running


@pytest.fixture
def hub() -> Hub:
    hub = hub_of(gated="auto", granted={TOKEN})
    hub.tokens.add(TOKEN)
    return hub


def eventually(look: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)
    return found


def create(lab: Lab, *objects: dict[str, Any]) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    lab.plane.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))


def get(lab: Lab, *what: str) -> Any:
    return json.loads(lab.plane.kubectl("get", "-n", NAMESPACE, "-o", "json", *what))


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def job(name: str, url: str, volume: str, secret: str) -> dict[str, Any]:
    arguments = ["fetch", "--model", MODEL, "--commit", COMMIT, "--target", "/models/tiny"]
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}
    container = {
        "name": "fetch",
        "image": "operator",
        "args": arguments,
        "env": [{"name": "HF_ENDPOINT", "value": url}, {"name": "HOME", "value": "/tmp"}, token],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [
        {"name": "models", "persistentVolumeClaim": {"claimName": volume}},
        {"name": "tmp", "emptyDir": {}},
    ]
    labels = {"app.kubernetes.io/component": "fetch"}
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def secret(name: str, token: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}}


def condition(lab: Lab, name: str) -> str | None:
    found = get(lab, "job", name)["status"].get("conditions") or ()
    return next(
        (c["type"] for c in found if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None
    )


def terminated(lab: Lab, name: str) -> dict[str, Any]:
    (pod,) = get(lab, "pod", "-l", f"job-name={name}")["items"]
    ended: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return ended


def test_a_job_brings_the_model_to_its_volume(lab: Lab, hub: Hub) -> None:
    with HubServer(hub) as url:
        create(lab, claim("good"), secret("good", TOKEN), job("good", url, "good", "good"))
        assert eventually(lambda: condition(lab, "good")) == "Complete"
    ended = terminated(lab, "good")
    assert ended["exitCode"] == 0
    assert json.loads(ended["message"])["commit"] == COMMIT
    log = lines(lab.plane.kubectl("logs", "-n", NAMESPACE, "job/good"))
    assert [line["event"] for line in log] == ["start", "complete"]
    uid = get(lab, "pvc", "good")["metadata"]["uid"]
    volume = pathlib.Path(lab.plane.folder) / "volumes" / f"{NAMESPACE}-good-{uid}"
    assert published(volume / "tiny") == wanted()


def test_a_refusal_ends_the_job_with_the_code_and_the_message_of_the_fetch(lab: Lab, hub: Hub) -> None:
    with HubServer(hub) as url:
        create(lab, claim("bad"), secret("bad", "hf_unknown"), job("bad", url, "bad", "bad"))
        assert eventually(lambda: condition(lab, "bad")) == "Failed"
    ended = terminated(lab, "bad")
    assert (ended["exitCode"], ended["reason"]) == (78, "Error")
    assert ended["message"].startswith("BadToken: ")
    log = lab.plane.kubectl("logs", "-n", NAMESPACE, "job/bad")
    assert lines(log)[-1]["reason"] == "BadToken"
    assert "hf_unknown" not in log
