"""Reading ports of pods, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ai_sandbox_operator.kube import pods


class Pod:
    """An HTTP server that answers as told."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[str] = []
        self.status, self.body, self.delay = 200, "hello", 0.0
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(str(request.raw_path))
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status, text=self.body, headers=self.headers)


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    one = Pod()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.port = runner.addresses[0][1]
    yield one
    await runner.cleanup()


async def test_the_body_of_an_answer(pod: Pod) -> None:
    async with pods.PodReader() as reader:
        assert await reader.get("127.0.0.1", pod.port, "/a?b&filter=c") == "hello"
    assert pod.seen == ["/a?b&filter=c"]


async def test_a_proxy_is_asked_for_the_whole_address(pod: Pod) -> None:
    async with pods.PodReader(f"http://127.0.0.1:{pod.port}") as reader:
        assert await reader.get("10.2.0.7", 9902, "/ready") == "hello"
        assert await reader.get("fd00::7", 9902, "/ready") == "hello"
    assert pod.seen == ["http://10.2.0.7:9902/ready", "http://[fd00::7]:9902/ready"]


async def test_the_proxy_of_the_environment_is_not_for_pods(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with pods.PodReader() as reader:
        assert await reader.get("127.0.0.1", pod.port, "/") == "hello"


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
async def test_any_other_status_is_no_answer(pod: Pod, status: int) -> None:
    pod.status, pod.headers = status, {"Location": "/elsewhere"}
    async with pods.PodReader() as reader:
        with pytest.raises(pods.PodUnreachable, match=f"port {pod.port} answered with status {status}"):
            await reader.get("127.0.0.1", pod.port, "/")
    assert pod.seen == ["/"]


async def test_a_long_answer_is_read_to_its_end_and_an_endless_one_is_not(pod: Pod) -> None:
    async with pods.PodReader() as reader:
        pod.body = "x" * 900_000
        assert await reader.get("127.0.0.1", pod.port, "/") == pod.body
        pod.body = "x" * 2_000_000
        with pytest.raises(pods.PodUnreachable, match="more than"):
            await reader.get("127.0.0.1", pod.port, "/")


async def test_a_slow_pod_is_given_up(pod: Pod) -> None:
    pod.delay = 0.5
    async with pods.PodReader(timeout=0.05) as reader:
        with pytest.raises(pods.PodUnreachable, match="did not answer in"):
            await reader.get("127.0.0.1", pod.port, "/")


async def test_a_closed_port_and_an_absent_address_are_told(pod: Pod) -> None:
    async with pods.PodReader() as reader:
        with pytest.raises(pods.PodUnreachable, match="port 1 is not reached"):
            await reader.get("127.0.0.1", 1, "/")
        with pytest.raises(pods.PodUnreachable):
            await reader.get("", pod.port, "/")
