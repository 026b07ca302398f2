"""Fetch pods of the lab: what the made-up ones say is what the real fetch says, and the real ones fetch."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
from typing import Any

import pytest

from fetch.rig import MODEL, TOKEN, Rig, lines, published, wanted
from lab.cluster.nodes import voices
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.cluster.nodes.fetches import Fetches
from lab.cluster.nodes.lifecycle import End
from lab.hub import COMMIT, Fault

REAL = Behaviour(fetch="real")
CLAIM = {"metadata": {"uid": "c1"}}


def pod(url: str, *more: str, uid: str = "p1") -> dict[str, Any]:
    arguments = ["--model", MODEL, "--commit", COMMIT, "--target", "/models/tiny", *more]
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    return {
        "metadata": {
            "uid": uid,
            "name": f"demo-fetch-{uid}",
            "namespace": "team",
            "labels": {"app.kubernetes.io/component": "fetch"},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "fetch",
                    "image": "operator",
                    "args": ["fetch", *arguments],
                    "env": [
                        {"name": "HF_ENDPOINT", "value": url},
                        {"name": "HOME", "value": "/tmp"},
                        token,
                    ],
                    "volumeMounts": [
                        {"name": "models", "mountPath": "/models"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": "demo-model"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }


async def read(path: str) -> dict[str, Any] | None:
    return {
        "/api/v1/namespaces/team/persistentvolumeclaims/demo-model": CLAIM,
        "/api/v1/namespaces/team/secrets/hub": {"data": {"token": base64.b64encode(TOKEN.encode()).decode()}},
    }.get(path)


@pytest.fixture
def volumes(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "volumes"


async def test_a_pod_fetches_with_its_own_arguments_and_environment(rig: Rig, volumes: pathlib.Path) -> None:
    rig.hub.tokens.add(TOKEN)
    rig.repository.gated, rig.repository.granted = "auto", {TOKEN}
    fetches, told = Fetches(read, lambda _pod: REAL, volumes), []
    one = pod(rig.url)
    assert fetches.wants(one)
    run = fetches.start(one, lambda: told.append(1))
    assert fetches.view("p1", REAL).kind == "never-ready", "it runs"
    await run
    seen = fetches.view("p1", REAL)
    assert (seen.kind, seen.exit_code, told) == ("crash", 0, [1])
    assert json.loads(seen.message or "")["commit"] == COMMIT
    assert [line["event"] for line in lines(seen.log or "")] == ["start", "complete"]
    assert published(volumes / "team-demo-model-c1" / "tiny") == wanted()
    assert rig.hub.tokens_seen("api") == {TOKEN}
    rig.hub.requests.clear()
    await fetches.start(pod(rig.url, uid="p2"), lambda: None)
    assert rig.hub.requests == [], "the next pod finds the volume as it was left"
    fetches.stop()


async def test_a_failure_is_the_containers(rig: Rig, volumes: pathlib.Path) -> None:
    rig.hub.tokens.add(TOKEN)
    fetches = Fetches(read, lambda _pod: REAL, volumes)
    await fetches.start(pod(rig.url, "--commit", "f" * 40), lambda: None)
    seen = fetches.view("p1", REAL)
    assert seen.exit_code == 78
    assert (seen.message or "").startswith("RevisionNotFound: ")
    fetches.stop()


async def test_a_pod_that_is_deleted_ends_its_process(rig: Rig, volumes: pathlib.Path) -> None:
    rig.hub.tokens.add(TOKEN)
    rig.hub.faults.append(Fault(at=("cdn",), hang_after=10))
    fetches = Fetches(read, lambda _pod: REAL, volumes)
    running = asyncio.create_task(fetches.start(pod(rig.url), lambda: None))
    while not rig.hub.downloads():
        await asyncio.sleep(0.02)
    found = fetches.find("p1")
    assert found is not None
    await found.end(10)
    await running
    assert found.exit_code == 143
    assert lines(found.log)[-1] == {"event": "interrupted"}
    fetches.stop()


def test_other_pods_and_other_rules_run_nothing() -> None:
    assert not Fetches(read, lambda _pod: NORMAL).wants(pod(""))
    engine = pod("")
    engine["spec"]["containers"][0]["args"] = ["/models/tiny"]
    assert not Fetches(read, lambda _pod: REAL).wants(engine)


def test_made_up_pods_say_what_real_ones_say(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shapes(said: list[dict[str, Any]]) -> dict[str, list[str]]:
        return {line["event"]: list(line) for line in said}

    rig.hub.faults.append(Fault(at=("cdn",), bytes_per_second=20_000))
    assert rig.run(report_seconds=0.1) == 0
    real = shapes(lines(capsys.readouterr().out))
    made = voices.finish(pod(rig.url), End(0, "Completed", None, 0.0, 1.0), NORMAL)
    assert shapes([json.loads(line) for line in made.log]) == real
    assert json.loads(made.message or "").keys() == json.loads(rig.log.read_text()).keys()
    assert rig.run(model="acme/none") == 78
    real = shapes(lines(capsys.readouterr().out))
    made = voices.finish(pod(rig.url), End(78, "Error", "NotFound: no", 0.0, 1.0), Behaviour("fail"))
    failed = json.loads(made.log[-1])
    assert (list(failed), failed["reason"], failed["permanent"]) == (real["failed"], "NotFound", True)
