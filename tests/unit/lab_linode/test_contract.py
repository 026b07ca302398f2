"""The simulator keeps to Linode's API description, and would notice if it did not."""

from __future__ import annotations

from typing import Any

import pytest

from lab.linode import LinodeSimulator, spec
from lab.linode.handlers import HANDLERS, Call

SAMPLE = {
    "firewallId": 101,
    "nodeBalancerId": 102,
    "configId": 103,
    "nodeId": 104,
    "deviceId": 105,
    "version": 1,
    "slug": "vpc",
    "linodeId": 1001,
    "tier": "standard",
    "address": "198.51.100.102",
    "eventId": 1,
}
COLLECTIONS = {"typeId": "get-linode-types", "clusterId": "get-lke-clusters", "regionId": "get-regions"}
COLLECTIONS |= {"poolId": "get-lke-cluster-pools", "volumeId": "get-volumes"}
GETS = sorted(operation.template for operation in spec.load() if operation.method == "GET")


def path_of(template: str) -> str:
    sample: dict[str, Any] = dict(SAMPLE)
    for name, operation in COLLECTIONS.items():
        sample[name] = spec.load().operations[operation].example["data"][0]["id"]
    slugs = spec.load().operations["get-networking-firewalls-templates"].example["data"]
    sample["slug"] = slugs[0]["slug"]
    return template.format(**sample)


@pytest.mark.parametrize("template", GETS)
async def test_every_described_get_is_answered(sim: LinodeSimulator, api: Any, template: str) -> None:
    sim.state.create_firewall("one")
    node = {"address": "192.168.128.11:30711", "label": "lab"}
    sim.state.create_nodebalancer("nb-1", 101, configs=[{"port": 80, "protocol": "tcp", "nodes": [node]}])
    sim.state.add_linode("node-1", "192.168.128.11", ident=1001)
    sim.state.reserved_ips["198.51.100.102"] = sim.state.reserved_ips.get("198.51.100.102") or _reserved()
    answer = await api("GET", path_of(template))
    assert answer.status == (204 if template == "/profile/grants" else 200), answer.body


def _reserved() -> Any:
    from lab.linode.model import ReservedIP

    return ReservedIP("198.51.100.102", "us-ord")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/networking/firewalls/abc", 404),
        ("PATCH", "/networking/firewalls", 405),
        ("DELETE", "/networking/firewalls", 405),
        ("POST", "/lke/clusters/1/pools", 400),
    ],
)
async def test_unknown_paths_and_methods(api: Any, method: str, path: str, status: int) -> None:
    assert (await api(method, path, {} if method == "POST" else None)).status == status


async def test_the_beta_prefix_serves_the_same(sim: LinodeSimulator, api: Any) -> None:
    headers = {"Authorization": "Bearer admin-token"}
    async with api.session.get(f"{sim.base}/v4beta/profile", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1"])
async def test_bodies_that_are_no_object(sim: LinodeSimulator, api: Any, content: bytes) -> None:
    headers = {"Authorization": "Bearer admin-token", "Content-Type": "application/json"}
    async with api.session.post(f"{sim.url}/networking/firewalls", data=content, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"] == [{"reason": "Invalid JSON"}]


async def test_an_answer_that_does_not_conform_is_a_violation(
    api: Any, sim: LinodeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def invent(call: Call) -> Any:
        return {"inbound": [], "invented": True}

    monkeypatch.setitem(HANDLERS, "get-firewall-rules", invent)
    answer = await api("GET", "/networking/firewalls/101/rules")
    assert answer.status == 500
    assert len(sim.violations) == 1
    assert "get-firewall-rules 200" in sim.violations[0]
    sim.violations.clear()


async def test_a_refused_call_that_changed_something_is_a_violation(
    api: Any, sim: LinodeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.linode.errors import bad_request

    def careless(call: Call) -> Any:
        call.state.changed("firewall_update", {"id": 1, "label": "x", "type": "firewall", "url": None})
        raise bad_request("too late")

    monkeypatch.setitem(HANDLERS, "get-firewall-rules", careless)
    await api("GET", "/networking/firewalls/101/rules")
    assert sim.violations == ["GET /networking/firewalls/101/rules was refused but changed the account"]
    sim.violations.clear()
