"""Journal, observers, hands from outside: in-process, in a thread, over HTTP and from the command line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lab.linode import LinodeSimulator, LinodeSimulatorThread, Write, cli
from lab.linode.state import CLOSED

BODY = {"label": "one", "rules": CLOSED}


async def test_journal_of_a_request(sim: LinodeSimulator, api: Any) -> None:
    await api("POST", "/networking/firewalls", BODY, token="operator-token")
    await api("GET", "/networking/firewalls?page=1", X_Filter='{"label": "one"}')
    await api("GET", "/nothing", token="secret-value")
    first, second, third = sim.journal.entries
    assert (first.index, first.token, first.method, first.path) == (
        1,
        "operator",
        "POST",
        "/networking/firewalls",
    )
    assert (first.body, first.status, first.wrote, first.revision) == (BODY, 200, True, 1)
    assert (second.query, second.filter, second.wrote) == ("page=1", '{"label": "one"}', False)
    assert (third.token, third.status, third.template) == (None, 404, None)
    assert "secret-value" not in repr(sim.journal.entries)
    assert sim.journal.since(first.index, method="GET") == [second, third]
    sim.journal.clear()
    await api("GET", "/profile")
    assert sim.journal.entries[0].index == 4, "indexes go on"


async def test_an_observer_hears_of_every_change_before_the_reply(sim: LinodeSimulator, api: Any) -> None:
    heard: list[Write] = []

    async def slow(write: Write) -> None:
        await asyncio.sleep(0.02)
        heard.append(write)

    sim.on_write(slow)
    made = (await api("POST", "/networking/firewalls", BODY)).body
    assert [w.actor for w in heard] == ["admin"]
    assert heard[0].entry is not None
    assert heard[0].entry.path == "/networking/firewalls"
    await api("PUT", f"/networking/firewalls/{made['id']}/rules", CLOSED)
    assert len(heard) == 1, "nothing changed"
    sim.state.disable_firewall(made["id"])
    await asyncio.sleep(0.05)
    assert (heard[1].actor, heard[1].entry) == ("person", None)
    assert heard[0].snapshot.firewalls[made["id"]].status == "enabled", "a snapshot does not move"


async def test_an_observers_error_is_a_violation() -> None:
    async with LinodeSimulator() as sim:

        def judge(write: Write) -> None:
            raise AssertionError("I1 broken")

        sim.on_write(judge)
        sim.state.create_firewall("one")
        assert sim.violations == ["observer: AssertionError('I1 broken')"]


def test_thread() -> None:
    with LinodeSimulatorThread() as thread:
        firewall = thread.edit(lambda state: state.create_firewall("one"))
        request = urllib.request.Request(
            f"{thread.url}/networking/firewalls", headers={"Authorization": "Bearer admin-token"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert f'"id": {firewall.id}'.encode() in answer.read()
        assert len(thread.sim.journal) == 1


async def control(sim: LinodeSimulator, api: Any, method: str, path: str, body: Any = None) -> Any:
    async with api.session.request(method, f"{sim.base}/_lab/{path}", json=body) as answer:
        return answer.status, await answer.json()


async def test_control_over_http(sim: LinodeSimulator, api: Any) -> None:
    _, made = await control(sim, api, "POST", "firewalls", {"label": "one", "tags": ["x"]})
    nb = sim.state.create_nodebalancer("nb-1", made["id"])
    path = f"firewalls/{made['id']}/vandalise"
    admits = f"admits?nodebalancer={nb.id}&address=203.0.113.9&port=8000"
    assert await control(sim, api, "GET", admits) == (200, {"admits": False})
    await control(sim, api, "POST", path, {"action": "open"})
    assert await control(sim, api, "GET", admits) == (200, {"admits": True})
    for action in ("close", "disable", "enable"):
        assert (await control(sim, api, "POST", path, {"action": action}))[0] == 200
    assert (await control(sim, api, "POST", path, {"action": "dance"}))[0] == 400
    await control(sim, api, "POST", f"nodebalancers/{nb.id}", {"action": "detach"})
    _, state = await control(sim, api, "GET", "state")
    assert state["nodebalancers"][0]["firewall_ids"] == []
    await control(sim, api, "POST", path, {"action": "attach", "nodebalancer_id": nb.id})
    await control(sim, api, "POST", "faults", {"status": 503, "path": "/profile", "times": 1})
    assert (await api("GET", "/profile")).status == 503
    assert (await control(sim, api, "POST", "faults", {"stauts": 1}))[0] == 400
    await control(sim, api, "DELETE", "faults")
    await control(sim, api, "POST", "tokens", {"name": "new", "value": "new-token"})
    assert (await api("GET", "/profile", token="new-token")).status == 200
    await control(sim, api, "POST", "tokens/new/expire")
    assert (await api("GET", "/profile", token="new-token")).status == 401
    _, journal = await control(sim, api, "GET", "requests?since=1")
    assert [entry["status"] for entry in journal["requests"]] == [200, 401]
    assert (await control(sim, api, "GET", "violations"))[1] == {"violations": []}


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with LinodeSimulatorThread() as thread:
        firewall = thread.edit(lambda state: state.create_firewall("sandbox-1"))
        nb = thread.edit(lambda state: state.create_nodebalancer("ccm-0123456789ab", firewall.id))
        base = ["--url", thread.sim.base]
        for command in (
            ["show"],
            ["open-firewall", str(firewall.id)],
            ["disable-firewall", str(firewall.id)],
            ["detach", str(nb.id)],
            ["fault", "method=POST", "path=/nodebalancers", "status=503", "retry_after=3"],
            ["requests"],
            ["delete-firewall", str(firewall.id)],
        ):
            assert cli.main([*base, *command]) == 0, command
        shown = capsys.readouterr().out
        assert "sandbox-1" in shown
        assert "none: open" in shown
        assert "ACCEPT TCP all ports from 0.0.0.0/0, ::/0" in shown
        assert thread.sim.faults.active[0].retry_after == "3"
        assert cli.main([*base, "detach", "999"]) == 1
        assert "Not found" in capsys.readouterr().err
    assert cli.main(["--url", "http://127.0.0.1:9", "show"]) == 1


def test_as_a_process() -> None:
    tests = Path(__file__).parents[2]
    command = [sys.executable, "-m", "lab.linode", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("LINODE_URL=")
        with urllib.request.urlopen(f"{url}/regions", timeout=10) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(timeout=10) == 0
