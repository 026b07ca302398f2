"""The proxy to the pods, on its own port, with pods that a test makes up."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ai_sandbox_operator.kube.pods import PodReader, PodUnreachable
from lab.cluster.nodes.behaviour import NORMAL, Behaviour
from lab.cluster.nodes.lifecycle import Phase, State
from lab.cluster.nodes.podnet import PodNetwork
from lab.cluster.nodes.workloads import Workloads
from unit.lab_nodes.factory import pod
from unit.lab_nodes.test_gateway import FILES, OLD

ADDRESS = "10.2.0.7"
STATUS = f"http://{ADDRESS}:9902/stats/prometheus?text_readouts"


def gateway_pod() -> dict[str, Any]:
    mounts = [{"name": "config", "mountPath": "/etc/envoy"}, {"name": "tls", "mountPath": "/tls"}]
    return pod(
        component="gateway",
        containers=[{"name": "gateway", "volumeMounts": mounts}],
        volumes=[{"name": name, "secret": {"secretName": f"demo-{name}"}} for name in ("config", "tls")],
    )


async def read(path: str) -> dict[str, Any] | None:
    """An API server with one Secret."""
    assert path == "/api/v1/namespaces/team/secrets/demo-config"
    data = {name: base64.b64encode(text.encode()).decode() for name, text in FILES.items()}
    return {"metadata": {"resourceVersion": "1"}, "data": data}


class Runs(Workloads):
    """Where one pod really runs, if a test says so."""

    address: str | None = None

    def real(self, uid: str) -> str | None:
        return self.address


@dataclasses.dataclass
class Cluster:
    """One pod, and the proxy to it."""

    workloads: Runs
    pod: dict[str, Any] = dataclasses.field(default_factory=gateway_pod)
    phase: Phase = Phase.READY
    behaviour: Behaviour = NORMAL
    url: str = ""

    def find(self, address: str) -> tuple[dict[str, Any], State, Behaviour] | None:
        return (self.pod, State(self.phase, 0, 0), self.behaviour) if address == ADDRESS else None


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster(Runs(read, lambda _pod: made.behaviour))
    network = PodNetwork(made.find, made.workloads)
    await network.start()
    made.url = network.url
    made.workloads.started(made.pod, ADDRESS)
    while OLD not in (await ask(made))[1]:
        await asyncio.sleep(0.01)
    yield made
    await network.stop()
    await made.workloads.stop()


async def ask(cluster: Cluster, url: str = STATUS, method: str = "GET") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, proxy=cluster.url) as answer,
    ):
        return answer.status, await answer.text()


async def test_the_operator_reads_a_running_gateway_through_it(cluster: Cluster) -> None:
    async with PodReader(cluster.url) as reader:
        said = await reader.get(ADDRESS, 9902, "/stats/prometheus?text_readouts")
    assert f'text_value="{OLD}"' in said
    assert await ask(cluster, f"http://{ADDRESS}:9902/ready") == (200, "LIVE\n")


async def test_statistics_can_be_filtered_as_in_envoy(cluster: Cluster) -> None:
    assert OLD in (await ask(cluster, f"{STATUS}&filter=version_text"))[1]
    assert (await ask(cluster, f"{STATUS}&filter=nothing"))[1] == ""
    assert (await ask(cluster, f"http://{ADDRESS}:9902/stats/prometheus"))[1] == ""
    assert (await ask(cluster, f"{STATUS}&filter=("))[0] == 400


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (STATUS.replace(ADDRESS, "10.2.0.8"), 502),
        (f"http://{ADDRESS}:8444/v1/models", 502),
        (f"http://{ADDRESS}:9902/config_dump", 404),
    ],
)
async def test_what_is_not_there_is_told_as_by_a_network(cluster: Cluster, url: str, status: int) -> None:
    assert (await ask(cluster, url))[0] == status


@pytest.mark.parametrize("phase", [Phase.CREATING, Phase.BACKOFF, Phase.FAILED, Phase.PULL_BACKOFF])
async def test_a_pod_whose_container_does_not_run_is_not_reached(cluster: Cluster, phase: Phase) -> None:
    cluster.phase = phase
    assert (await ask(cluster))[0] == 502


async def test_a_pod_that_runs_but_is_not_ready_is_reached(cluster: Cluster) -> None:
    cluster.phase = Phase.RUNNING
    assert (await ask(cluster))[0] == 200


async def test_other_components_have_no_status_port(cluster: Cluster) -> None:
    cluster.pod = pod(component="engine")
    cluster.pod["metadata"]["uid"] = "another"
    cluster.workloads.started(cluster.pod, ADDRESS)
    assert (await ask(cluster))[0] == 502


async def test_a_pod_that_is_gone_is_forgotten(cluster: Cluster) -> None:
    cluster.workloads.gone(cluster.pod["metadata"]["uid"])
    assert (await ask(cluster))[0] == 502


async def test_only_get_of_http_is_understood(cluster: Cluster) -> None:
    assert (await ask(cluster, method="POST"))[0] == 501
    async with aiohttp.ClientSession() as session, session.get(f"{cluster.url}/ready") as direct:
        assert direct.status == 501
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientHttpProxyError, match="501"):
            await session.get(f"https://{ADDRESS}:9902/ready", proxy=cluster.url)


async def test_an_unreachable_status_port_is_an_error_to_the_operator(cluster: Cluster) -> None:
    cluster.behaviour = Behaviour(status="unreachable")
    async with PodReader(cluster.url) as reader:
        with pytest.raises(PodUnreachable, match="502"):
            await reader.get(ADDRESS, 9902, "/ready")


async def test_a_slow_status_port_takes_its_time(cluster: Cluster) -> None:
    cluster.behaviour = Behaviour(status_seconds=0.3)
    began = time.monotonic()
    assert (await ask(cluster))[0] == 200
    assert time.monotonic() - began >= 0.3
    async with PodReader(cluster.url, timeout=0.1) as reader:
        with pytest.raises(PodUnreachable, match="did not answer"):
            await reader.get(ADDRESS, 9902, "/ready")


async def test_a_status_port_that_fails_is_an_error_to_the_operator(cluster: Cluster) -> None:
    cluster.behaviour = Behaviour(status="error")
    async with PodReader(cluster.url) as reader:
        with pytest.raises(PodUnreachable, match="503"):
            await reader.get(ADDRESS, 9902, "/ready")


async def test_a_gateway_that_never_gets_ready_says_so(cluster: Cluster) -> None:
    cluster.behaviour = Behaviour("never-ready")
    assert (await ask(cluster, f"http://{ADDRESS}:9902/ready"))[0] == 503


async def test_a_pod_that_really_runs_answers_itself(cluster: Cluster) -> None:
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.raw_path)
        return web.Response(status=503, text="DRAINING\n")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cluster.workloads.address = "127.0.0.1"
    port = runner.addresses[0][1]
    try:
        assert await ask(cluster, f"http://{ADDRESS}:{port}/ready?a=b&c") == (503, "DRAINING\n")
        assert seen == ["/ready?a=b&c"]
    finally:
        await runner.cleanup()
    assert (await ask(cluster, f"http://{ADDRESS}:{port}/ready"))[0] == 502
