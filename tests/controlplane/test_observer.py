"""The judge of I1 can fail: each kind of opening, made by hand in a settled world, is reported.

The operator is killed first, so nothing repairs what the test breaks.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from ai_sandbox_operator.api import kinds, names
from lab import admits
from lab.observer import ClosedObserver
from lab.world import World

OFFICE, HOME = "203.0.113.0/28", "198.18.77.64/30"
NAME = "judged"


@pytest.fixture
async def judge(started: World) -> ClosedObserver:
    """A settled sandbox for the office, and nobody who keeps it so."""
    made = ClosedObserver(started, NAME, admits.samples(OFFICE, HOME), reaction=0.0)
    await made.apply({"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": OFFICE}]}})
    await started.until(NAME, "Ready")
    started.operator.kill()
    await started.operator.wait()
    await made.look()
    made.assert_closed()
    return made


def blamed(judge: ClosedObserver, *words: str) -> None:
    """The judge has reported exactly this kind of opening; forget it."""
    found, judge.violations[:] = list(judge.violations), []
    assert any(all(word in violation for word in words) for violation in found), found


async def put_rules(world: World, *cidrs: str) -> None:
    """Write the firewall's rules with the operator's token."""
    (ident,) = world.linode.state.firewalls
    rule = {"action": "ACCEPT", "protocol": "TCP", "ports": "3000,8000", "addresses": {"ipv4": list(cidrs)}}
    body = {"inbound": [rule], "inbound_policy": "DROP", "outbound": [], "outbound_policy": "ACCEPT"}
    await _as_operator(world, f"/networking/firewalls/{ident}/rules", body)


async def _as_operator(world: World, path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer operator-token"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.put(world.linode.url + path, json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def write_gateway(world: World, principals: list[dict[str, Any]], *files: str) -> None:
    """Replace the principals of some route files."""
    secret = await world.api.get(kinds.SECRET, world.namespace, f"{NAME}-gateway")
    changed = {}
    for file in files:
        document = json.loads(base64.b64decode(secret["data"][file]))
        rbac = document["resources"][0]["virtual_hosts"][0]["typed_per_filter_config"][
            "envoy.filters.http.rbac"
        ]
        rbac["rbac"]["rules"]["policies"]["allowlist"]["principals"] = principals
        changed[file] = base64.b64encode(json.dumps(document).encode()).decode()
    await world.api.merge_patch(kinds.SECRET, world.namespace, f"{NAME}-gateway", {"data": changed})


def remote(*cidrs: str) -> list[dict[str, Any]]:
    return [
        {"remote_ip": {"address_prefix": c.split("/")[0], "prefix_len": int(c.split("/")[1])}} for c in cidrs
    ]


async def test_reports_a_load_balancer_without_a_firewall(judge: ClosedObserver) -> None:
    world = judge.world
    ports = [{"name": "api", "port": 8000, "targetPort": 8443, "protocol": "TCP"}]
    spec = {"type": "LoadBalancer", "selector": {names.LABEL_SANDBOX: NAME}, "ports": ports}
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "by-hand", "namespace": world.namespace},
        "spec": spec,
    }
    await world.api.create(kinds.SERVICE, manifest)
    await judge.look()
    blamed(judge, "by hand", "LoadBalancer Service by-hand names no firewall")


async def test_reports_a_firewall_that_names_nobody_or_nothing(judge: ClosedObserver) -> None:
    world = judge.world
    annotation = {"metadata": {"annotations": {names.ANNOTATION_FIREWALL_ID: "999"}}}
    await world.ccm.stop()
    await world.api.merge_patch(kinds.SERVICE, world.namespace, NAME, annotation)
    await judge.look()
    blamed(judge, "names firewall 999")


async def test_reports_a_firewall_that_is_widened_disabled_or_taken_away(judge: ClosedObserver) -> None:
    world = judge.world
    await put_rules(world, OFFICE)
    judge.assert_closed()
    await put_rules(world, OFFICE, HOME)
    blamed(judge, "W operator", "/rules", "is open to 198.18.77.64 (API)")
    await put_rules(world, OFFICE)
    judge.assert_closed()
    (ident,), (balancer,) = world.linode.state.firewalls, world.linode.state.nodebalancers
    await _as_operator(world, f"/networking/firewalls/{ident}", {"status": "disabled"})
    blamed(judge, "W operator", f"NodeBalancer {balancer} stands without an enabled firewall")
    await _as_operator(world, f"/networking/firewalls/{ident}", {"status": "enabled"})
    judge.violations.clear()
    world.linode.state.detach(balancer)
    blamed(judge, "by hand", f"NodeBalancer {balancer} stands without an enabled firewall")


async def test_tolerates_an_edit_until_the_firewall_is_next_written_and_no_longer(
    judge: ClosedObserver,
) -> None:
    world = judge.world
    await judge.edit({"access": {"allowlist": [{"cidr": HOME}]}})
    await judge.look()
    judge.assert_closed()
    await put_rules(world, "203.0.113.7/32", HOME)
    blamed(judge, "W operator", "is open to", "203.0.113.7")


@pytest.mark.parametrize(
    ("policy", "missing"), [("default-deny", "a policy that denies everything"), ("engine", "its own policy")]
)
async def test_reports_pods_without_their_policies(judge: ClosedObserver, policy: str, missing: str) -> None:
    world = judge.world
    live = await world.api.get(kinds.NETWORK_POLICY, world.namespace, f"{NAME}-{policy}")
    await world.api.delete(
        kinds.NETWORK_POLICY, world.namespace, f"{NAME}-{policy}", uid=live["metadata"]["uid"]
    )
    await judge.look()
    blamed(judge, f"pod {NAME}-engine-", f"lacks {missing}")


async def test_reports_a_gateway_that_believes_any_proxy_header(judge: ClosedObserver) -> None:
    await write_gateway(judge.world, remote(OFFICE), "rds-external-api.json")
    await judge.look()
    blamed(judge, "the gateway believes anybody's PROXY header")


async def test_reports_a_policy_that_lets_clients_past_the_nodebalancer(judge: ClosedObserver) -> None:
    world = judge.world
    rule = {"from": [{"ipBlock": {"cidr": OFFICE}}], "ports": [{"protocol": "TCP", "port": 8443}]}
    patch = {"spec": {"ingress": [rule]}}
    await world.api.merge_patch(kinds.NETWORK_POLICY, world.namespace, f"{NAME}-gateway", patch)
    await judge.look()
    blamed(judge, "the NodeBalancer can be bypassed")


async def test_reports_widening_before_narrowing(judge: ClosedObserver) -> None:
    """The office goes, the home comes: it may not come while the office is still let in."""
    world = judge.world
    await judge.edit({"access": {"allowlist": [{"cidr": HOME}]}})
    both = [{"ipBlock": {"cidr": cidr}} for cidr in (OFFICE, HOME)]
    ports = [{"protocol": "TCP", "port": 8444}, {"protocol": "TCP", "port": 3444}]
    patch = {"spec": {"ingress": [{"from": both, "ports": ports}]}}
    await world.api.merge_patch(kinds.NETWORK_POLICY, world.namespace, f"{NAME}-gateway", patch)
    await judge.look()
    judge.assert_closed()  # the gateway still turns the home away
    await write_gateway(world, remote(OFFICE, HOME), "rds-internal-api.json")
    await judge.look()
    blamed(judge, "widened from the inside by 198.18.77.64 (API)", "while open to 203.0.113.0 (API)")
