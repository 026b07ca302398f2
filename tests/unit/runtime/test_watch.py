"""What kopf is told: who it is, and with which credentials."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any, cast

import kopf
import pytest
from aiohttp import web
from kubernetes.aio import client as aio
from kubernetes.aio import config
from kubernetes.aio.config import incluster_config

from ai_sandbox_operator.runtime import store, watch
from lab.cluster import certificates


async def test_the_image_needs_no_account_for_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an identity kopf looks the user's name up, and a user without an account ends it."""
    given: dict[str, Any] = {}

    async def operator(**arguments: Any) -> None:
        given.update(arguments)
        arguments["stop_flag"].set()

    monkeypatch.setattr(kopf, "operator", operator)
    await watch.watch(
        store=cast(Any, None),
        add=lambda _key: None,
        configuration=cast(Any, None),
        logins=watch.Logins(),
        namespaces=(),
        ready=asyncio.Event(),
        stop=asyncio.Event(),
    )
    assert given["identity"]


async def test_in_a_pod_kopf_gets_the_token_of_the_service_account(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("eyJ.of.a-pod")
    authority = certificates.Authority(tmp_path)
    loader = incluster_config.InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(tmp_path / "token"),
        cert_filename=str(authority.path),
        environ={"KUBERNETES_SERVICE_HOST": "10.128.0.1", "KUBERNETES_SERVICE_PORT": "443"},
    )
    configuration = aio.Configuration()
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    told = await watch._connection(configuration)
    assert (told.server, told.token, told.scheme) == ("https://10.128.0.1:443", "eyJ.of.a-pod", None)


async def test_with_a_kubeconfig_kopf_gets_its_token(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kubeconfig"
    user = {"name": "u", "user": {"token": "eyJ.of.a-file"}}
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    parts = {"users": [user], "clusters": [cluster], "contexts": [context], "current-context": "x"}
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **parts}))
    configuration = aio.Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(path), client_configuration=configuration
    )
    assert (await watch._connection(configuration)).token == "eyJ.of.a-file"


async def test_a_watch_that_is_refused_logs_in_every_few_seconds_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kopf by itself logs in again at once after each 401, many times a second."""
    paused = asyncio.Event()
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"kind": "Status", "code": 401}, status=401)

    async def sleep(seconds: float) -> None:
        assert seconds == watch.LOGIN_PAUSE
        paused.set()
        await asyncio.Event().wait()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = aio.Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    logins, stop = watch.Logins(), asyncio.Event()
    monkeypatch.setattr(watch, "_pause", sleep)
    task = asyncio.create_task(
        watch.watch(
            store=store.Store(),
            add=lambda _key: None,
            configuration=configuration,
            logins=logins,
            namespaces=(),
            ready=asyncio.Event(),
            stop=stop,
        )
    )
    try:
        await asyncio.wait_for(paused.wait(), 10)
        assert logins.refused
        assert asked.count("/apis") == watch.LOGINS
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
        await runner.cleanup()


def test_logins_are_refused_only_while_they_are_many() -> None:
    times = [0.0]
    logins = watch.Logins(clock=lambda: times[-1])
    for at in (0.0, 600.0, 1200.0, 1201.0, 1202.0):
        times.append(at)
        logins.note()
        assert not logins.refused
    times.append(1203.0)
    logins.note()
    assert logins.refused
    times.append(1200.0 + watch.LOGINS_WITHIN)
    assert not logins.refused
