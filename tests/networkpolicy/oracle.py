"""network-config-analyzer, an independent reader of policies: how it is installed, asked and understood.

It wants other versions of common packages than the project does, so it lives in an environment of its
own, made once in the lab's cache from `requirements-nca.lock`.
"""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
import json
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from lab import environment
from networkpolicy.universe import (
    PODS,
    PORTS,
    Endpoint,
    Manifest,
    Matrix,
    Port,
    Side,
    namespace_manifests,
    pod_manifests,
)

HERE = pathlib.Path(__file__).resolve().parent
LOCK = HERE / "requirements-nca.lock"
_SUMMARY = re.compile(r"cluster has (\d+) unique endpoints, (\d+) namespaces")
_LINE = re.compile(r"(\S+) => (\S+) : (.+)")


class NotUnderstood(Exception):
    """The program failed, or said something that this module does not know."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the program says about one set of policies."""

    endpoints: int
    namespaces: int
    lines: tuple[tuple[str, str, frozenset[Port]], ...]
    """Source, destination and ports. Either end may be a range of addresses, `first-last`."""


def interpreter() -> pathlib.Path:
    """The Python that has the program."""
    return environment.interpreter("nca", LOCK)


def ask(questions: Sequence[Sequence[Manifest]]) -> list[Answer]:
    """The program's answer to each set of policies.

    Raises:
        NotUnderstood: the program refused one of them, or its answer has a form that is not known.
    """
    with tempfile.TemporaryDirectory(prefix="nca-") as temporary:
        folder = pathlib.Path(temporary)
        _write(folder / "namespaces.json", namespace_manifests())
        _write(folder / "pods.json", pod_manifests())
        for number, policies in enumerate(questions):
            _write(folder / f"{number:05}.policies.json", policies)
        _run([str(interpreter()), "-I", str(HERE / "oracle_driver.py"), str(folder)])
        return [understand((folder / f"{number:05}.answer").read_text()) for number in range(len(questions))]


def one_sided(policies: Sequence[Manifest], side: Side) -> list[Manifest]:
    """The policies as far as they speak of one direction; the other is left open."""
    found = []
    for policy in policies:
        spec = policy["spec"]
        if side in spec["policyTypes"]:
            kept = {key: spec[key] for key in ("podSelector", side.lower()) if key in spec}
            found.append({**policy, "spec": {**kept, "policyTypes": [side]}})
    return found


def spell_out(policies: Sequence[Manifest]) -> list[Manifest]:
    """The policies with `Exists` in pod selectors spelt as `In` with every value that occurs.

    The program looks for such pods in the policy's own namespace only, whatever the namespaceSelector
    says (2.1.0, PeerContainer.get_peers_with_key). The meaning is the same within this universe.
    """
    result = copy.deepcopy(list(policies))
    for peer in _peers(result):
        for item in peer.get("podSelector", {}).get("matchExpressions", []):
            operator = {"Exists": "In", "DoesNotExist": "NotIn"}.get(item["operator"])
            if operator:
                values = {value for pod in PODS for key, value in pod.labels if key == item["key"]}
                item |= {"operator": operator, "values": sorted(values)}
    return result


def _peers(policies: Sequence[Manifest]) -> Iterator[Manifest]:
    for policy in policies:
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                yield from rule.get(side, [])


def _write(path: pathlib.Path, items: Sequence[Manifest]) -> None:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotUnderstood(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def understand(text: str) -> Answer:
    """The program's output in its format `txt_no_fw_rules`."""
    summary = _SUMMARY.search(text)
    if summary is None:
        raise NotUnderstood(text[:500])
    found = []
    for line in text.splitlines():
        if " => " in line:
            match = _LINE.fullmatch(line)
            if match is None:
                raise NotUnderstood(line)
            found.append((match[1], match[2], ports(match[3])))
    return Answer(int(summary[1]), int(summary[2]), tuple(found))


def ports(text: str) -> frozenset[Port]:
    """Such as `{protocols:TCP,dst_ports:80,8443-8444},{protocols:UDP}`, or `All but` that."""
    if text == "All connections":
        return PORTS
    if text.startswith("All but "):
        return PORTS - ports(text.removeprefix("All but "))
    if not re.fullmatch(r"\{[^{}]*\}(,\{[^{}]*\})*", text):
        raise NotUnderstood(text)
    return frozenset(port for part in re.findall(r"\{([^{}]*)\}", text) for port in _part(part))


def _part(text: str) -> Iterator[Port]:
    match = re.fullmatch(r"(?:protocols:(?P<protocols>[^:]*?))?,?(?:dst_ports:(?P<numbers>[\d,-]+))?", text)
    if match is None:
        raise NotUnderstood(text)
    protocols = match["protocols"] or "all but "
    excluded = protocols.startswith("all but ")
    listed = {name.strip() for name in protocols.removeprefix("all but ").split(",")}
    ranges = [part.partition("-") for part in (match["numbers"] or "0-65535").split(",")]
    for protocol, number in PORTS:
        if (protocol in listed) != excluded and any(
            int(first) <= number <= int(last or first) for first, _, last in ranges
        ):
            yield protocol, number


def matrix(answer: Answer, everybody: Iterable[Endpoint]) -> Matrix:
    """The answer for each pair: an address is looked up in the blocks that hold it."""
    everybody = tuple(everybody)
    result: Matrix = {
        (source, destination): frozenset()
        for source in everybody
        for destination in everybody
        if source != destination and "pod" in {source.kind, destination.kind}
    }
    members: dict[str, list[Endpoint]] = {pod.name: [pod] for pod in PODS}
    for source_name, destination_name, admitted in answer.lines:
        for name in (source_name, destination_name):
            if name not in members:
                members[name] = list(_within(name, everybody))
        for source in members[source_name]:
            for destination in members[destination_name]:
                result[source, destination] |= admitted
    return {pair: admitted for pair, admitted in result.items() if admitted != PORTS}


def _within(block: str, everybody: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """Addresses in `first-last` or in a single address. Pods are never in a block."""
    try:
        first, last = (ipaddress.ip_address(part) for part in (block.split("-") * 2)[:2])
    except ValueError:
        raise NotUnderstood(block) from None
    for one in everybody:
        address = ipaddress.ip_address(one.address)
        if one.kind != "pod" and address.version == first.version and int(first) <= int(address) <= int(last):
            yield one
