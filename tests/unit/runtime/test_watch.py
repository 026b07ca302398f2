"""What kopf is told: who it is, and with which credentials."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any, cast

import kopf
import pytest
from kubernetes.aio import client as aio
from kubernetes.aio import config
from kubernetes.aio.config import incluster_config

from ai_sandbox_operator.runtime import watch
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
