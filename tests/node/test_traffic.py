"""What clients see while something is changed: on a real node, through the NodeBalancer's data path.

Clients ask several times a second, each on new connections or on one that it keeps. Whoever is admitted
before and after a change must not notice it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from chart.helm import NAMESPACE as OPERATOR_NAMESPACE
from chart.helm import RELEASE
from lab.datapath import Client, Request, Result, Traffic
from lab.datapath.outside import ALLOWLIST, GUEST, NAMESPACE, Outside, outside, remove, shortly
from lab.node import NodeLab
from results import Results

#: Requests per second of each client.
RATE = 3.0
#: Until a change of the access must have its effect, and pods must be replaced; in seconds.
SOON, REPLACED = 30.0, 120.0
#: Traffic before and after a change, in seconds.
MARGIN = 2.0


@pytest.fixture(scope="module")
def world(node: NodeLab) -> Iterator[Outside]:
    with outside(node) as found:
        yield found
    remove(node)


class Everybody:
    """Traffic of clients that are admitted all the time."""

    def __init__(self, traffics: Mapping[str, Traffic]) -> None:
        self._traffics = traffics

    def results(self) -> dict[str, list[Result]]:
        return {name: traffic.results for name, traffic in self._traffics.items()}

    @property
    def count(self) -> int:
        return sum(map(len, self.results().values()))

    def assert_unharmed(self, *but: str) -> None:
        """Nobody but those named has seen anything but 200."""
        seen = {name: shortly(found) for name, found in self.results().items() if name not in but}
        failed = [
            one
            for name, found in self.results().items()
            for one in found
            if name not in but and (one.short != "200" or (name == "completions" and not streamed(one)))
        ]
        assert not failed, f"{seen}\n{failed[:5]}"
        assert all(self.results().values()), f"a client that asked nothing proves nothing: {seen}"


def streamed(result: Result) -> bool:
    """Whether a completion came with text and to its end."""
    return result.first_seconds is not None and "data: [DONE]" in result.body


@contextlib.contextmanager
def everybody(world: Outside, key: str) -> Iterator[Everybody]:
    """Ask from all sides, for some time before and after the body."""
    requests: dict[str, tuple[Client, Request]] = {
        "completions": (world.office, world.completion(key)),
        "models on one connection": (world.office, world.api(key=key, keep=True)),
        "chat": (world.office, world.chat()),
        "models by IPv6": (world.office, world.api(key=key, host=world.host_6)),
    }
    with contextlib.ExitStack() as stack:
        traffics = {
            name: stack.enter_context(client.repeat(request, RATE))
            for name, (client, request) in requests.items()
        }
        time.sleep(MARGIN)
        yield Everybody(traffics)
        time.sleep(MARGIN)


def took(condition: Callable[[], bool], timeout: float = SOON) -> float:
    """Wait until true; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, "not true in time"
        time.sleep(0.05)
    return time.monotonic() - began


def all_answer(client: Client, request: Request, outcome: str) -> bool:
    """Whether several connections, which meet both gateway pods, end alike."""
    return {one.short for one in client.ask_all([request] * 6)} == {outcome}


def identities(world: Outside, *components: str) -> list[tuple[str, int]]:
    """Pods and how often their containers were restarted."""
    return sorted(
        (pod["metadata"]["uid"], sum(one["restartCount"] for one in pod["status"]["containerStatuses"]))
        for component in components
        for pod in world.pods(component)
    )


def settle(world: Outside) -> None:
    """Wait until the operator has said that the access is in force."""
    world.node.until("NetworkProtected", lambda: world.condition("NetworkProtected"), timeout=SOON)


def row(results: Results, change: str, outcome: str, measured: str) -> None:
    results.row("node-traffic", {"Change": change, "Outcome": outcome, "Measured": measured})


def test_a_key_is_rotated_without_a_failed_request(world: Outside, results: Results) -> None:
    before = identities(world, "engine", "gateway", "chat")
    old = world.key()
    with everybody(world, old) as traffic:
        world.edit({"access": {"apiKeys": [{"name": "default"}, {"name": "laptop"}]}})
        began = time.monotonic()
        took(lambda: bool(world.key("laptop")))
        new = world.key("laptop")
        took(lambda: all_answer(world.office, world.api(key=new), "200"))
        works = time.monotonic() - began
        settle(world)
    traffic.assert_unharmed()
    row(
        results,
        "a key is added",
        "the new key works; no request of the others fails",
        f"works after {works:.1f} s; {traffic.count} requests meanwhile",
    )
    with everybody(world, new) as traffic:
        world.edit({"access": {"apiKeys": [{"name": "laptop"}]}})
        refused = took(lambda: all_answer(world.office, world.api(key=old), "401"))
        settle(world)
    traffic.assert_unharmed()
    assert all_answer(world.office, world.api(key=old), "401")
    row(
        results,
        "the old key is removed",
        "the old key gets 401; no request with the new one fails",
        f"refused after {refused:.1f} s; {traffic.count} requests meanwhile",
    )
    world.edit({"access": {"apiKeys": [{"name": "default"}]}})
    took(lambda: all_answer(world.office, world.api(key=world.key()), "200"))
    settle(world)
    assert identities(world, "engine", "gateway", "chat") == before


def test_an_excluded_network_is_cut_and_nobody_else(world: Outside, results: Results) -> None:
    before = identities(world, "engine", "gateway", "chat")
    fresh, kept = world.chat(timeout=1.0), world.chat(timeout=1.0, keep=True)
    with (
        everybody(world, world.key()) as traffic,
        world.guest.repeat(fresh, RATE) as guest,
        world.guest.repeat(kept, 10.0) as staying,
    ):
        time.sleep(MARGIN)
        narrowed = time.time()
        world.edit({"access": {"allowlist": [one for one in ALLOWLIST if GUEST not in one["cidr"]]}})
        took(lambda: [one.outcome for one in guest.results[-2:]] == ["timed out"] * 2)
        settle(world)
        protected = time.time()
        time.sleep(MARGIN)
        widened = time.time()
        world.edit({"access": {"allowlist": ALLOWLIST}})
        took(lambda: [one.short for one in guest.results[-2:]] == ["200"] * 2)
        settle(world)
    traffic.assert_unharmed()
    cut = last_answer(guest.results, widened) - narrowed
    open_cut = last_answer(staying.results, widened) - narrowed
    assert not [one for one in guest.results if protected < one.at < widened and one.status == 200]
    assert not [one for one in staying.results if protected < one.at < widened and one.status == 200]
    after = [one.short for one in staying.results if narrowed < one.at < widened and one.status != 200]
    assert after[0] == "403", f"the open connection ended as {after}"
    back = next(one.at for one in guest.results if one.at > widened and one.status == 200) - widened
    row(
        results,
        "a network is taken off the allowlist",
        "its new connections get no answer, its open one 403; no request of the others fails",
        f"last answer {cut:.1f} s after the edit, on the open connection {open_cut:.1f} s; "
        f"{traffic.count} requests meanwhile",
    )
    row(
        results,
        "the network is put back",
        "it is served again; no request of the others fails",
        f"first answer after {back:.1f} s",
    )
    assert identities(world, "engine", "gateway", "chat") == before


def last_answer(found: Sequence[Result], until: float) -> float:
    """When the last answer 200 before a moment ended; a client that never got one proves nothing."""
    times = [one.at + one.seconds for one in found if one.status == 200 and one.at < until]
    assert times, shortly(found)
    return max(times)


def test_a_gateway_pod_is_replaced_without_a_failed_request(world: Outside, results: Results) -> None:
    before = identities(world, "engine", "chat")
    first, second = sorted(pod["metadata"]["name"] for pod in world.pods("gateway"))
    with everybody(world, world.key()) as traffic:
        world.node.kubectl("delete", "pod", "-n", NAMESPACE, first, "--wait=false")
        seconds = took(lambda: gone(world, first) and ready(world, "gateway") == 2, REPLACED)
    traffic.assert_unharmed()
    assert second in {pod["metadata"]["name"] for pod in world.pods("gateway")}
    assert identities(world, "engine", "chat") == before
    row(
        results,
        "a gateway pod is deleted",
        "the other one serves; no request fails",
        f"replaced and gone after {seconds:.0f} s; {traffic.count} requests meanwhile",
    )


def gone(world: Outside, pod: str) -> bool:
    """Whether a pod is no longer there, not even on its way out."""
    return not world.node.kubectl("get", "pod", "-n", NAMESPACE, pod, "--ignore-not-found", "-o", "name")


def ready(world: Outside, component: str) -> int:
    """How many pods of a component are ready."""
    return sum(
        one["type"] == "Ready" and one["status"] == "True"
        for pod in world.pods(component)
        for one in pod["status"].get("conditions", ())
    )


def test_the_operator_is_upgraded_and_rolled_back_without_a_failed_request(
    world: Outside, results: Results
) -> None:
    node = world.node
    before = identities(world, "engine", "gateway", "chat")
    operators = operator_pods(node)
    with everybody(world, world.key()) as traffic:
        began = time.monotonic()
        node.install_operator({"operator": {"workers": 8}})
        upgraded = time.monotonic() - began
        changed = operator_pods(node)
        assert not operators & changed, "the upgrade must replace the operator"
        settle(world)
        began = time.monotonic()
        node.helm.run("rollback", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s")
        back = time.monotonic() - began
        assert not operator_pods(node) & changed, "the rollback must replace the operator"
        settle(world)
    traffic.assert_unharmed()
    assert identities(world, "engine", "gateway", "chat") == before
    row(
        results,
        "the operator is upgraded by Helm and rolled back",
        "no pod of the sandbox is touched; no request fails",
        f"upgraded in {upgraded:.0f} s, back in {back:.0f} s; {traffic.count} requests meanwhile",
    )


def operator_pods(node: NodeLab) -> set[str]:
    """Operator pods that are not on their way out, by UID."""
    found = node.get("pods", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=ai-sandbox-operator")[
        "items"
    ]
    uids = {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}
    assert uids
    return uids


def test_the_chat_is_restarted_and_the_api_does_not_notice(world: Outside, results: Results) -> None:
    before = identities(world, "engine", "gateway")
    (pod,) = world.pods("chat")
    with everybody(world, world.key()) as traffic:
        deleted = time.time()
        world.node.kubectl("delete", "pod", "-n", NAMESPACE, pod["metadata"]["name"], "--wait=false")
        took(lambda: gone(world, pod["metadata"]["name"]) and ready(world, "chat") == 1, REPLACED)
        took(lambda: all_answer(world.office, world.chat(), "200"))
    traffic.assert_unharmed("chat")
    assert identities(world, "engine", "gateway") == before
    chat = traffic.results()["chat"]
    failed = [one for one in chat if one.status != 200]
    # A connection to an address that has just gone is waited for in vain.
    assert {one.short for one in failed} <= {"503", "timed out"}, shortly(chat)
    assert chat[-1].status == 200
    silence = max((one.at + one.seconds for one in failed), default=deleted) - deleted
    row(
        results,
        "the chat's pod is deleted",
        "the chat answers 503, or nothing, until its pod is back; no request to the API fails",
        f"chat back after {silence:.1f} s; {traffic.count} requests meanwhile",
    )
