"""I6: no key, token or password is seen by people who may not read Secrets.

The sandbox goes through a life with trouble in it, since errors are what quotes things: a crashed engine
that prints its key, a Linode API that refuses, a log on its most talkative level.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import re

import aiohttp

from ai_sandbox_operator.api import kinds
from lab.cluster.lab import Lab
from lab.hub import Generous, Hub
from lab.linode import Token, faults
from lab.linode.store import OPERATOR_SCOPES
from lab.world import World

OFFICE, HOME = "203.0.113.0/28", "198.18.77.64/30"
NAME = "discreet"
PUBLIC = {"access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": OFFICE}]}}
LINODE_TOKEN = "linode-token-3f9a7c51e0b24d86"
HUB_TOKEN = "hf_NeverToBeSeenAnywhere0123456789"


async def _everything_but_secrets(world: World) -> dict[str, str]:
    """All that people can read without a right to Secrets, by where it stands."""
    config_maps = kinds.Kind("v1", "ConfigMap", "configmaps")
    readable = [k for k in (*kinds.WATCHED, kinds.POD, kinds.EVENT, config_maps) if k is not kinds.SECRET]
    found = {}
    for kind in readable:
        items = await world.api.list_all(kind, world.namespace)
        if kind is kinds.POD:
            # What a container printed stands in its own log and status; nobody else may repeat it.
            items = [{key: item[key] for key in ("metadata", "spec")} for item in items]
        found[kind.kind] = json.dumps(items)
    secrets = await world.api.list_all(kinds.SECRET, world.namespace)
    found["metadata of Secrets"] = json.dumps([s["metadata"] for s in secrets])
    found["log"] = world.operator.log()
    process = pathlib.Path(f"/proc/{world.operator.pid}")
    found["arguments"] = process.joinpath("cmdline").read_text()
    # The token may come by the environment; nothing that the operator makes may be there.
    variables = process.joinpath("environ").read_text().split("\0")
    found["environment"] = "\0".join(v for v in variables if not v.startswith("LINODE_TOKEN="))
    ports = re.findall(r'"port": (\d+)', world.operator.log())
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{ports[-1]}/metrics") as answer,
    ):
        found["metrics"] = await answer.text()
    assert "ai_sandbox" in found["metrics"]
    return found


async def _secret_values(world: World) -> dict[str, str]:
    """Every value that must not be seen, by Secret and key; certificates and addresses are public."""
    found = {"Linode": LINODE_TOKEN, "hub": HUB_TOKEN}
    for secret in await world.api.list_all(kinds.SECRET, world.namespace):
        if secret["metadata"]["name"] == f"{NAME}-gateway":
            continue  # configuration that holds the keys; they are looked for one by one
        for key, value in (secret.get("data") or {}).items():
            text = base64.b64decode(value).decode()
            if not key.endswith(".crt") and key != "email":
                lines = [line for line in text.splitlines() if "-----" not in line]
                found[f"{secret['metadata']['name']}/{key}"] = lines[0]
    return found


async def test_no_secret_value_is_seen_anywhere_in_a_whole_life(lab: Lab, tmp_path: pathlib.Path) -> None:
    lab.nodes.forget()
    options = {"flags": ["--no-leader-elect", "--log-level", "debug"], "token": LINODE_TOKEN}
    hub = Hub(generous=Generous(), tokens={HUB_TOKEN})
    async with World(lab, tmp_path, operator=options, hub=hub) as world:
        world.linode.state.add_token(Token("secret", LINODE_TOKEN, scopes=OPERATOR_SCOPES))
        secret = {
            "metadata": {"name": "hub", "namespace": world.namespace},
            "stringData": {"token": HUB_TOKEN},
        }
        await world.api.create(kinds.SECRET, {"apiVersion": "v1", "kind": "Secret", **secret})
        await world.operator.start()
        model = {"tokenSecretRef": {"name": "hub", "key": "token"}}
        await world.apply(NAME, {**PUBLIC, "model": model})
        await _settle(world)
        values = await _secret_values(world)
        assert len(values) >= 8
        engine_key = values[f"{NAME}-engine-key/key"]
        rule = lab.nodes.behave("crash", component="engine", log=f"ValueError: bad key {engine_key}")
        await world.until(NAME, "EngineReady", "False")
        world.linode.faults.add(faults.unavailable(times=3))
        await world.edit(NAME, {"access": {"allowlist": [{"cidr": HOME}], "apiKeys": [{"name": "new"}]}})
        await world.until(NAME, "NetworkProtected", "False", reason="LinodeUnavailable")
        await asyncio.sleep(6)  # a look at the crashed engine
        values |= await _secret_values(world)
        places = await _everything_but_secrets(world)
        lab.nodes.forget(rule)
        await _settle(world)
        places |= {f"{place}, later": text for place, text in (await _everything_but_secrets(world)).items()}
        await world.delete(NAME)
        await world.gone(NAME)
        places["log at the end"] = world.operator.log()
    for place, text in places.items():
        for what, value in values.items():
            assert len(value) >= 8
            for form in (value, base64.b64encode(value.encode()).decode().rstrip("=")[:-1]):
                assert form not in text, f"{what} is seen in {place}"


async def _settle(world: World) -> None:
    await world.until(NAME, "Ready", timeout=60)
    await world.quiet(1.5)
