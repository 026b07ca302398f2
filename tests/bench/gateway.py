"""`python -m bench.gateway`: what the gateway costs, as a table and as JSON.

latency     short answers, one after the other: on one connection, and each on its own
throughput  short answers at a concurrency of 16 and 64
streams     32 streams: time to the first token, gap between tokens, and tokens a second
allowlist   latency with 1, 100 and 1,000 networks, the client in the last one
keys        latency with 1, 20 and 100 keys, the client's the last one
memory      of Envoy: at start, with 990 idle connections, after all the load
change      from the rendering and writing of the files to the first answer that is judged by them

The ways take turns within one run. Everything shares this machine's processors: `cores` says how many
each process kept busy, so where their sum is the machine's, the machine is the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import ipaddress
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
from typing import Any

from bench.figures import percentile, resident_megabytes
from bench.gateway_rig import ENCRYPTED, PATH, Rig, Sample, added, milliseconds, rig, waited
from bench.gateway_table import show
from gateway.cases import KEY, KNOWN, OFFICE, OTHER_KEY, STRANGER, sandbox, with_access
from gateway.traffic.connection import Connection

_TLS = {"mode": "SelfSigned"}
#: Just below the limit of a listener.
_IDLE_CONNECTIONS = 990


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-gateway-results.json"))
    parser.add_argument("--turns", type=int, default=8, help="turns of each way")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
    }
    try:
        asyncio.run(_run(results, arguments.turns))
    finally:
        # What was measured before an interruption is worth keeping.
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")
        show(results)
        print(f"written to {arguments.out}")
    return 0


async def _run(results: dict[str, Any], turns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with rig(pathlib.Path(folder)) as one:
            memory = results["memory"] = {"at_start_mb": _memory(one)}
            await _latency(one, results, turns)
            await _throughput(one, results, turns)
            await _streams(one, results, turns)
            memory["after_load_mb"] = _memory(one)
            async with one.holding(one.plan("tls"), _IDLE_CONNECTIONS):
                memory[f"with_{_IDLE_CONNECTIONS}_idle_connections_mb"] = _memory(one)
            await _sizes(one, results, turns)
            await _change(one, results)
            memory["at_the_end_mb"] = _memory(one)
            results["machine"]["load_at_the_end"] = os.getloadavg()[0]


def _memory(one: Rig) -> float:
    return resident_megabytes(one.gateways["tls"].pid)


async def _latency(one: Rig, results: dict[str, Any], turns: int) -> None:
    _say("latency on one connection")
    samples = await one.compare(turns=turns, skip=20, requests=520)
    results["latency"] = {f"kept alive, {way}": _against(way, samples) for way in samples}
    _say("latency on fresh connections")
    samples = await one.compare(turns=turns, fresh=True, requests=60)
    results["latency"] |= {f"fresh, {way}": _against(way, samples) for way in samples}


async def _throughput(one: Rig, results: dict[str, Any], turns: int) -> None:
    group = results["throughput"] = {}
    for concurrency in (16, 64):
        _say(f"throughput with {concurrency} clients")
        samples = await one.compare(turns=max(2, turns // 2), concurrency=concurrency, seconds=1.5)
        for way, sample in samples.items():
            group[f"{concurrency} clients, {way}"] = {
                "requests_per_s": round(sample.requests / sample.seconds),
                **milliseconds(sample.latencies),
                "gateway_cpu_us": round(sample.cpu.get("gateway", 0) / sample.requests * 1e6),
                "cores": sample.cores(),
                "failed": sample.failed,
            }


async def _streams(one: Rig, results: dict[str, Any], turns: int) -> None:
    _say("streams at 50 tokens a second")
    paced: dict[str, Any] = {"streams": True, "concurrency": 32, "requests": 32}
    samples = await one.compare(turns=max(2, turns // 2), path=f"{PATH}?events=50&pause=20ms", **paced)
    group = results["streams"] = {}
    for way, sample in samples.items():
        # The engine waits 20 ms before each event, before the first one too.
        firsts = [first - 20_000 for first in sample.firsts]
        group[f"first token, {way}"] = milliseconds(firsts) | added(sample.firsts, samples["direct"].firsts)
        group[f"gap, {way}"] = milliseconds(sample.gaps) | added(sample.gaps, samples["direct"].gaps)
    for query in ("events=1500&pause=1ms", "events=3000"):
        _say(f"streams with {query}")
        samples = await one.compare(turns=max(2, turns // 2), path=f"{PATH}?{query}", **paced)
        for way, sample in samples.items():
            group[f"{query}, {way}"] = {
                "tokens_per_s": round(sample.events / sample.seconds),
                "gateway_cpu_us": round(sample.cpu.get("gateway", 0) / sample.events * 1e6, 1),
                "cores": sample.cores(),
                "failed": sample.failed,
            }


async def _sizes(one: Rig, results: dict[str, Any], turns: int) -> None:
    """Sizes take turns too; each turn writes the configuration anew."""
    gateway = one.gateways["tls"]
    specs = {
        **{
            f"{count} networks": with_access(tls=_TLS, allowlist=_networks(count)) for count in (1, 100, 1000)
        },
        **{f"{count} keys": _keys(count)[0] for count in (1, 20, 100)},
    }
    samples = {name: Sample() for name in specs}
    for turn in range(turns):
        _say(f"sizes: turn {turn + 1} of {turns}")
        for name, spec in specs.items():
            known = KNOWN
            if name.endswith("keys"):
                known = dataclasses.replace(
                    KNOWN,
                    material=dataclasses.replace(
                        KNOWN.material, api_keys=_keys(int(name.partition(" ")[0]))[1]
                    ),
                )
            await gateway.apply(sandbox(spec), known)
            samples[name].add(*await one.measured("tls", requests=320), skip=20)
    await gateway.apply(sandbox(ENCRYPTED), KNOWN)
    results["sizes"] = {
        name: milliseconds(sample.latencies)
        | {"gateway_cpu_us": round(sample.cpu["gateway"] / sample.requests * 1e6), "failed": sample.failed}
        for name, sample in samples.items()
    }


def _networks(count: int) -> list[dict[str, str]]:
    """Networks that do not merge, the client's the last."""
    first = int(ipaddress.ip_address("10.0.0.0"))
    others = [f"{ipaddress.ip_address(first + 512 * index)}/24" for index in range(count - 1)]
    return [{"cidr": cidr} for cidr in [*others, "203.0.113.0/24"]]


def _keys(count: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Up to 50 names, and their values: two to a name when there are more. The client's key is the last."""
    values = [f"key-{index:03}-" + "x" * 32 for index in range(count - 1)] + [KEY]
    step = 2 if count > 50 else 1
    groups = ["\n".join(values[start : start + step]) for start in range(0, count, step)]
    named = {f"k{index:03}": group for index, group in enumerate(groups)}
    return with_access(tls=_TLS, apiKeys=[{"name": name} for name in named]), named


async def _change(one: Rig, results: dict[str, Any]) -> None:
    """Ask on one connection until the answer is another."""
    _say("changes")
    gateway = one.gateways["plain"]
    other = dataclasses.replace(
        KNOWN, material=dataclasses.replace(KNOWN.material, api_keys={"alice": OTHER_KEY})
    )
    plain = {"mode": "Disabled"}
    office = with_access(tls=plain)
    stranger = with_access(tls=plain, allowlist=[{"cidr": f"{STRANGER}/32"}])
    edits = {
        "key": ((office, KNOWN, 200), (office, other, 401)),
        "allowlist": ((office, KNOWN, 200), (stranger, KNOWN, 403)),
    }
    group = results["change"] = {}
    connection = await Connection.open(gateway.ports["external_api"], source=OFFICE)
    try:
        for name, (accepted, refused) in edits.items():
            times: dict[int, list[float]] = {200: [], refused[2]: []}
            for _ in range(20):
                for spec, known, status in (refused, accepted):
                    await asyncio.sleep(0.1)
                    began = time.monotonic()
                    await asyncio.to_thread(gateway.write, sandbox(spec), known)
                    while await _status(connection) != status:
                        if time.monotonic() - began > 10:
                            raise RuntimeError(f"no {status} within 10 s")
                    times[status].append(waited(began))
            for status, values in times.items():
                what = "accepted" if status == 200 else "refused"
                group[f"{name}, {what}"] = {"p50_ms": percentile(values, 0.5), "max_ms": max(values)}
    finally:
        connection.close()


async def _status(connection: Connection) -> int:
    head = await connection.send("POST", PATH, {"Authorization": f"Bearer {KEY}"})
    await connection.body(head)
    return head.status


def _against(way: str, samples: dict[str, Sample]) -> dict[str, Any]:
    sample, base = samples[way], samples["direct"]
    return (
        milliseconds(sample.latencies) | added(sample.latencies, base.latencies) | {"failed": sample.failed}
    )


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
