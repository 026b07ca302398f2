"""What goes over the wire, and what comes back as which error."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.client import KubeClient
from unit.kube.apiserver import ApiServer, answers, hangs, resets

Json = Any
SECRETS = "/api/v1/namespaces/team-a/secrets"


def secret(name: str = "s", **more: Json) -> dict[str, Json]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "team-a"}, **more}


async def test_get_sends_the_token_and_returns_the_object(api: ApiServer, client: KubeClient) -> None:
    api.put(f"{SECRETS}/s", secret(data={"a": "eA=="}))
    assert (await client.get(kinds.SECRET, "team-a", "s"))["data"] == {"a": "eA=="}
    assert api.headers[0]["Authorization"] == "Bearer s3cret"


async def test_the_token_of_a_kubeconfig_is_sent(api: ApiServer) -> None:
    client = KubeClient(await _configured(api))
    try:
        with pytest.raises(errors.NotFound):
            await client.get(kinds.SECRET, "team-a", "x")
    finally:
        await client.close()
    assert api.headers[0]["Authorization"] == "Bearer s3cret"


async def test_a_list_is_read_in_pages(api: ApiServer, client: KubeClient) -> None:
    for number in range(5):
        api.put(f"{SECRETS}/s{number}", secret(f"s{number}"))
    items = await client.list_all(
        kinds.SECRET, "team-a", label_selector="a=b,c", metadata_only=True, page_size=2
    )
    assert [item["metadata"]["name"] for item in items] == ["s0", "s1", "s2", "s3", "s4"]
    assert [path for _, path in api.requests] == [
        f"{SECRETS}?limit=2&labelSelector=a%3Db,c",
        f"{SECRETS}?limit=2&labelSelector=a%3Db,c&continue=2",
        f"{SECRETS}?limit=2&labelSelector=a%3Db,c&continue=4",
    ]
    assert api.headers[0]["Accept"].startswith("application/json;as=PartialObjectMetadataList")


async def test_a_list_of_all_namespaces(api: ApiServer, client: KubeClient) -> None:
    assert await client.list_all(kinds.SANDBOX, None) == []
    assert api.requests == [("GET", "/apis/sandbox.linode.com/v1alpha1/aisandboxes?limit=500")]
    assert api.headers[0]["Accept"] == "application/json"


async def test_writes_name_their_manager_and_their_content_type(api: ApiServer, client: KubeClient) -> None:
    await client.create(kinds.SECRET, secret())
    await client.apply(kinds.SECRET, secret())
    await client.merge_patch(kinds.SECRET, "team-a", "s", {"data": {"a": None}})
    api.put("/apis/sandbox.linode.com/v1alpha1/namespaces/team-a/aisandboxes/s/status", {})
    sandbox = {**secret(), "kind": "AISandbox"}
    await client.apply(kinds.SANDBOX, sandbox, subresource="status")
    manager = "fieldManager=ai-sandbox-operator"
    assert api.requests == [
        ("POST", f"{SECRETS}?{manager}"),
        ("PATCH", f"{SECRETS}/s?{manager}&force=true"),
        ("PATCH", f"{SECRETS}/s?{manager}"),
        (
            "PATCH",
            f"/apis/sandbox.linode.com/v1alpha1/namespaces/team-a/aisandboxes/s/status?{manager}&force=true",
        ),
    ]
    assert [headers["Content-Type"] for headers in api.headers] == [
        "application/json",
        "application/apply-patch+yaml",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ]


async def test_a_json_patch_stays_a_list_of_operations(api: ApiServer, client: KubeClient) -> None:
    operations = [{"op": "test", "path": "/a", "value": 1}]
    with pytest.raises(errors.NotFound):
        await client.json_patch(kinds.SECRET, "team-a", "s", operations)
    assert api.bodies == [operations]
    assert api.headers[0]["Content-Type"] == "application/json-patch+json"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("the server rejected our request due to an error in our request", errors.Conflict),
        ('Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 80', errors.Invalid),
    ],
)
async def test_a_json_patch_that_does_not_fit_is_a_conflict_and_one_that_breaks_a_rule_is_not(
    api: ApiServer, client: KubeClient, message: str, error: type[errors.KubeError]
) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"reason": "Invalid", "message": message}, status=422)

    api.faults.append(refuse)
    with pytest.raises(error) as caught:
        await client.json_patch(kinds.SECRET, "team-a", "s", [{"op": "test", "path": "/a", "value": 1}])
    assert type(caught.value) is error


async def test_replace_has_the_version_as_its_precondition(api: ApiServer, client: KubeClient) -> None:
    held = api.put(f"{SECRETS}/s", secret())
    stale = {**held, "metadata": {**held["metadata"], "resourceVersion": "0"}}
    with pytest.raises(errors.Conflict):
        await client.replace(kinds.SECRET, stale)
    assert (await client.replace(kinds.SECRET, held))["metadata"]["resourceVersion"] != "0"


async def test_delete_asks_for_the_uid_and_takes_absence_for_success(
    api: ApiServer, client: KubeClient
) -> None:
    held = api.put(f"{SECRETS}/s", secret())
    with pytest.raises(errors.Conflict):
        await client.delete(kinds.SECRET, "team-a", "s", uid="another")
    uid = held["metadata"]["uid"]
    await client.delete(kinds.SECRET, "team-a", "s", uid=uid)
    await client.delete(kinds.SECRET, "team-a", "s", uid=uid)
    assert api.bodies[0]["preconditions"] == {"uid": "another"}
    assert api.bodies[0]["propagationPolicy"] == "Background"


async def test_logs_are_text_whatever_bytes_they_hold(api: ApiServer, client: KubeClient) -> None:
    async def log(request: web.Request) -> web.StreamResponse | None:
        return web.Response(body=b"ok \xff\n")

    api.faults.append(log)
    assert await client.logs("team-a", "p", "c", tail=5, previous=True) == "ok �\n"
    query = "container=c&tailLines=5&limitBytes=1048576&previous=true"
    assert api.requests == [("GET", f"/api/v1/namespaces/team-a/pods/p/log?{query}")]


async def test_events_are_asked_for_by_the_uid_of_what_they_are_about(
    api: ApiServer, client: KubeClient
) -> None:
    async def events(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"items": [{"reason": "FailedMount"}]})

    api.faults.append(events)
    assert await client.events("team-a", "uid-1") == [{"reason": "FailedMount"}]
    query = "fieldSelector=involvedObject.uid%3Duid-1&limit=100"
    assert api.requests == [("GET", f"/api/v1/namespaces/team-a/events?{query}")]


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "BadRequest", errors.Invalid),
        (401, "Unauthorized", errors.Forbidden),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.KubeError),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.Unavailable),
        (500, "InternalError", errors.Unavailable),
        (503, "ServiceUnavailable", errors.Unavailable),
    ],
)
async def test_every_status_has_its_error(
    api: ApiServer, client: KubeClient, status: int, reason: str, error: type[errors.KubeError]
) -> None:
    api.faults.append(answers(status, reason, times=1))
    with pytest.raises(error) as caught:
        await client.create(kinds.SECRET, secret())
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert str(caught.value) == f"it says {reason}"


@pytest.mark.parametrize("method", ["get", "replace", "delete"])
async def test_nothing_is_repeated_behind_our_back(api: ApiServer, client: KubeClient, method: str) -> None:
    """The package repeats GET, PUT and DELETE without end if it is told the wrong way not to."""
    configuration = await _configured(api)
    client = KubeClient(configuration)
    api.faults.append(answers(503))
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "get": lambda: client.get(kinds.SECRET, "team-a", "s"),
        "replace": lambda: client.replace(kinds.SECRET, secret()),
        "delete": lambda: client.delete(kinds.SECRET, "team-a", "s", uid="u"),
    }
    try:
        with pytest.raises(errors.Unavailable):
            await asyncio.wait_for(calls[method](), 5)
    finally:
        await client.close()
    assert len(api.requests) == 1


async def _configured(api: ApiServer) -> Any:
    """The configuration that the operator would load, pointed at the server."""
    path = pathlib.Path(__file__).parent / "kubeconfig.yaml"
    configuration = await kube_client.load_configuration(str(path))
    configuration.host = f"http://127.0.0.1:{api.port}"
    return configuration


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", None), ("soon", None)])
async def test_how_long_to_wait_is_passed_on(
    api: ApiServer, client: KubeClient, header: str, seconds: float | None
) -> None:
    api.faults.append(answers(429, "TooManyRequests", headers={"Retry-After": header}))
    with pytest.raises(errors.Unavailable) as caught:
        await client.get(kinds.SECRET, "team-a", "s")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", "[]", '"text"', ""])
@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_that_is_no_object_is_no_answer(
    api: ApiServer, client: KubeClient, body: str, status: int
) -> None:
    async def proxy(_: web.Request) -> web.StreamResponse | None:
        return web.Response(text=body, status=status)

    api.faults.append(proxy)
    with pytest.raises(errors.Unavailable):
        await client.get(kinds.SECRET, "team-a", "s")


async def test_silence_and_cut_connections_are_unavailable(api: ApiServer) -> None:
    calls: list[tuple[str, str, int]] = []
    async with api.client(timeout=0.05, observer=lambda *call: calls.append(call)) as client:
        for fault in (hangs, resets):
            api.faults[:] = [fault]
            with pytest.raises(errors.Unavailable):
                await client.get(kinds.SECRET, "team-a", "s")
    assert calls == [("get", "Secret", 0)] * 2


async def test_a_server_that_is_not_there_is_unavailable(api: ApiServer) -> None:
    api.port = 1
    async with api.client() as client:
        with pytest.raises(errors.Unavailable):
            await client.get(kinds.SECRET, "team-a", "s")


async def test_the_observer_sees_verb_kind_and_status(api: ApiServer) -> None:
    calls: list[tuple[str, str, int]] = []
    async with api.client(observer=lambda *call: calls.append(call)) as client:
        await client.create(kinds.SECRET, secret())
        await client.apply(kinds.SECRET, secret())
        with pytest.raises(errors.NotFound):
            await client.get(kinds.SERVICE, "team-a", "x")
    assert calls == [("create", "Secret", 201), ("apply", "Secret", 200), ("get", "Service", 404)]


async def test_no_write_leaves_without_the_guard_and_reads_do(api: ApiServer) -> None:
    def guard() -> None:
        raise RuntimeError("not the leader")

    api.put(f"{SECRETS}/s", secret())
    async with api.client(guard=guard) as client:
        for write in (
            client.create(kinds.SECRET, secret()),
            client.apply(kinds.SECRET, secret()),
            client.replace(kinds.SECRET, secret()),
            client.json_patch(kinds.SECRET, "team-a", "s", []),
            client.merge_patch(kinds.SECRET, "team-a", "s", {}),
            client.delete(kinds.SECRET, "team-a", "s", uid="u"),
        ):
            with pytest.raises(RuntimeError):
                await write
        assert api.requests == []
        await client.get(kinds.SECRET, "team-a", "s")


async def test_the_guard_is_asked_after_the_wait_for_a_free_slot(api: ApiServer) -> None:
    """Waiting may outlast the lease."""
    leader, release = True, asyncio.Event()

    def guard() -> None:
        if not leader:
            raise RuntimeError("not the leader")

    async def slow(request: web.Request) -> web.StreamResponse | None:
        await release.wait()
        return None

    api.faults.append(slow)
    async with api.client(guard=guard, concurrency=1) as client:
        first = asyncio.create_task(client.create(kinds.SECRET, secret("first")))
        while not api.requests:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(client.create(kinds.SECRET, secret("second")))
        await asyncio.sleep(0.01)
        leader = False
        release.set()
        await first
        with pytest.raises(RuntimeError):
            await second
    assert len(api.requests) == 1


async def test_no_more_requests_at_once_than_allowed(api: ApiServer) -> None:
    running = most = 0

    async def count(_: web.Request) -> web.StreamResponse | None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return None

    api.faults.append(count)
    began = time.monotonic()
    async with api.client(concurrency=3) as client:
        await asyncio.gather(*(client.list_all(kinds.SECRET, "team-a") for _ in range(9)))
    assert most == 3
    assert time.monotonic() - began < 5
