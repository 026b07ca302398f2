"""The relay to pods, with a kubectl that says what it is asked."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request

import pytest

from e2e.pod_relay import PodRelay

PODS = {
    "items": [
        {"metadata": {"namespace": "team-a", "name": "demo-gateway-1"}, "status": {"podIP": "10.2.0.7"}}
    ]
}


def kubectl(*arguments: str) -> str:
    if arguments[1] == "pods":
        return json.dumps(PODS)
    if arguments[-1].endswith("/broken?"):
        raise subprocess.CalledProcessError(1, "kubectl")
    return arguments[-1]


def fetch(relay: PodRelay, url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": relay.url}))
    with opener.open(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


def test_a_pods_address_becomes_its_name_at_the_api_server() -> None:
    with PodRelay(kubectl) as relay:
        assert fetch(relay, "http://10.2.0.7:9902/stats/prometheus?text_readouts&filter=x") == (
            "/api/v1/namespaces/team-a/pods/demo-gateway-1:9902/proxy/stats/prometheus?text_readouts&filter=x"
        )


@pytest.mark.parametrize("url", ["http://10.2.0.8:9902/ready", "http://10.2.0.7:9902/broken"])
def test_a_pod_that_is_not_there_or_does_not_answer_is_a_bad_gateway(url: str) -> None:
    with PodRelay(kubectl) as relay, pytest.raises(urllib.error.HTTPError, match="502"):
        fetch(relay, url)
