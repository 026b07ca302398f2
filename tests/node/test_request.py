"""Who gets what: requests from a client's address all the way to a container on a real node, and back."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ai_sandbox_operator.api import names
from lab.datapath import Client, Request, Result
from lab.datapath.outside import NAME, NAMESPACE, OFFICE, OFFICE_6, Outside, outside
from lab.envoy.process import proxy_header
from lab.node import NodeLab
from results import Results

#: The lab's network plugin enforces no NetworkPolicy.
UNGUARDED = "; where NetworkPolicies are enforced, one drops the connection first"
SILENT = "no answer at all: the connection attempt times out"


@pytest.fixture(scope="module")
def world(node: NodeLab) -> Iterator[Outside]:
    with outside(node) as found:
        yield found


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: who asks what, with which credential, and what is seen."""

    path: str
    credential: str
    request: Request
    outcome: str


def seen(result: Result) -> str:
    """What a client saw, in the words of the table."""
    if result.outcome == "timed out" and result.stage == "connect":
        return SILENT
    if result.status is None:
        return {"closed": "closed", "reset": "closed"}.get(result.outcome, result.outcome)
    kind = result.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return (
            f"{result.status}, streamed to the end" if "data: [DONE]" in result.body else "a stream cut off"
        )
    try:
        document = json.loads(result.body)
    except ValueError:
        return f"{result.status}"
    if isinstance(document.get("error"), str):
        return f"{result.status}"  # the engine's own word, past the gateway
    if "error" in document:
        return f"{result.status}, {document['error']['code']}"
    return f"{result.status}, the {'page' if 'page' in document else 'models'}"


def check(results: Results, name: str, client: Client, cases: list[Case]) -> None:
    """Make the requests at once and compare all of them."""
    found = client.ask_all([case.request for case in cases])
    wrong = [
        f"{case.path} with {case.credential}: {seen(one)} in place of {case.outcome}; {one}"
        for case, one in zip(cases, found, strict=True)
        if seen(one) != case.outcome.partition(";")[0]
    ]
    assert not wrong, "\n".join(wrong)
    for case in cases:
        results.row(
            "node-request",
            {"Client": name, "Path": case.path, "Credential": case.credential, "Outcome": case.outcome},
        )


def test_an_admitted_network_gets_chat_and_api(world: Outside, results: Results) -> None:
    key = world.key()
    mixed = {"X-API-Key": key}
    check(
        results,
        "in the allowlist",
        world.office,
        [
            Case("chat /", "none", world.chat(), "200, the page"),
            Case("POST /v1/chat/completions", "key", world.completion(key), "200, streamed to the end"),
            Case("GET /v1/models", "key", world.api(key=key), "200, the models"),
            Case("GET /v1/models", "key in X-API-Key", world.api(headers=mixed), "200, the models"),
            Case("GET /v1/models", "none", world.api(), "401, invalid_api_key"),
            Case("GET /v1/models", "wrong key", world.api(key=key[:-1] + "!"), "401, invalid_api_key"),
            Case("POST /v1/chat/completions", "none", world.completion(""), "401, invalid_api_key"),
            Case("GET /metrics", "key", world.api("/metrics", key), "404, not_found"),
            Case(
                "POST /v1/load_lora_adapter", "key", world.api("/v1/load_lora_adapter", key), "404, not_found"
            ),
            Case("PUT /v1/models", "key", world.api(key=key, method="PUT"), "405, method_not_allowed"),
            Case("chat /metrics", "none", world.chat("/metrics"), "404, not_found"),
            Case("chat /docs", "none", world.chat("/docs"), "404, not_found"),
        ],
    )


def test_an_admitted_ipv6_network_gets_the_same(world: Outside, results: Results) -> None:
    there = {"host": world.host_6}
    check(
        results,
        "in the allowlist, by IPv6",
        world.office,
        [
            Case("chat /", "none", world.chat(**there), "200, the page"),
            Case("GET /v1/models", "key", world.api(key=world.key(), **there), "200, the models"),
            Case("GET /v1/models", "none", world.api(**there), "401, invalid_api_key"),
        ],
    )


def test_a_network_admitted_to_the_chat_alone_gets_nothing_else(world: Outside, results: Results) -> None:
    check(
        results,
        "in the allowlist for the chat alone",
        world.guest,
        [
            Case("chat /", "none", world.chat(), "200, the page"),
            Case("GET /v1/models", "key", world.api(key=world.key()), SILENT),
        ],
    )


def test_a_foreign_address_gets_nothing_at_all(world: Outside, results: Results) -> None:
    there = {"host": world.host_6}
    check(
        results,
        "not in the allowlist",
        world.stranger,
        [
            Case("chat /", "none", world.chat(), SILENT),
            Case("GET /v1/models", "key", world.api(key=world.key()), SILENT),
            Case("POST /v1/chat/completions", "key", world.completion(world.key(), timeout=2.0), SILENT),
            Case("chat / by IPv6", "none", world.chat(**there), SILENT),
            Case("GET /v1/models by IPv6", "key", world.api(key=world.key(), **there), SILENT),
        ],
    )


def test_a_foreign_address_is_refused_by_the_gateway_while_the_firewall_is_disabled(
    world: Outside, results: Results
) -> None:
    ident = world.sandbox()["status"]["linode"]["firewallID"]
    world.node.linode.edit(lambda state: state.disable_firewall(ident))
    try:
        world.internet.wait(world.node.linode.edit(lambda state: state.revision))
        check(
            results,
            "not in the allowlist, while somebody has disabled the firewall",
            world.stranger,
            [
                Case("chat /", "none", world.chat(), "403, ip_not_allowed"),
                Case("GET /v1/models", "key", world.api(key=world.key()), "403, ip_not_allowed"),
            ],
        )
    finally:
        world.node.linode.edit(lambda state: state.enable_firewall(ident))
        world.internet.wait(world.node.linode.edit(lambda state: state.revision))


def test_the_nodes_own_ports_serve_nobody(world: Outside, results: Results) -> None:
    """NodePorts are open on the node's public address, past every Cloud Firewall of a NodeBalancer."""
    key, forged = world.key(), proxy_header(OFFICE)
    api: dict[str, Any] = {"host": "192.0.2.10", "port": world.node_port("api")}
    chat: dict[str, Any] = {"host": "192.0.2.10", "port": world.node_port("chat")}
    claims = "key, and a PROXY header that names an admitted address"
    for name, client in (("not in the allowlist", world.stranger), ("in the allowlist", world.office)):
        check(
            results,
            name,
            client,
            [
                Case("NodePort of the API", "key", world.api(key=key, **api), "closed" + UNGUARDED),
                Case(
                    "NodePort of the API",
                    claims,
                    world.api(key=key, prefix=forged, **api),
                    "403, ip_not_allowed" + UNGUARDED,
                ),
                Case(
                    "NodePort of the chat",
                    claims,
                    world.chat(prefix=forged, **chat),
                    "403, ip_not_allowed" + UNGUARDED,
                ),
            ],
        )


def test_no_other_port_is_reachable_from_outside(world: Outside, results: Results) -> None:
    others = {
        "Envoy's administration": 9901,
        "the gateway's status": names.PORT_GATEWAY_STATUS,
        "the gateway's internal API": names.PORT_GATEWAY_INTERNAL_API,
        "the engine": names.PORT_ENGINE + 1,
        "a NodePort": world.node_port("api"),
    }
    cases = [
        Case(f"NodeBalancer, port of {what}", "none", Request(world.host, port), SILENT)
        for what, port in others.items()
    ]
    check(results, "in the allowlist", world.office, cases)
    on_the_node = [
        Request("192.0.2.10", port, timeout=1.0) for port in (9901, names.PORT_GATEWAY_STATUS, 8000, 3000)
    ]
    assert {one.outcome for one in world.office.ask_all(on_the_node)} == {"refused"}
    pod = world.pods("gateway")[0]["status"]["podIP"]
    assert world.assistant.ask(Request(pod, 9901)).outcome == "refused", (
        "administration listens within the pod"
    )


def test_what_speaks_no_tls_or_trusts_another_authority_gets_nothing(
    world: Outside, results: Results
) -> None:
    key = world.key()
    check(
        results,
        "in the allowlist",
        world.office,
        [
            Case("http:// on the API's port", "key", world.api(key=key, tls=False), "closed"),
            Case("http:// on the chat's port", "none", world.chat(tls=False), "closed"),
            Case(
                "GET /v1/models, trusting another authority",
                "key",
                world.api(key=key, authority=foreign_authority()),
                "untrusted certificate",
            ),
            Case(
                "GET /v1/models, for another name",
                "key",
                world.api(key=key, name="sandbox.example.com"),
                "untrusted certificate",
            ),
        ],
    )


def test_a_pod_reaches_what_in_cluster_admits_and_nothing_else(world: Outside, results: Results) -> None:
    internal = {"host": f"{NAME}-internal.{NAMESPACE}.svc"}
    internal["name"] = internal["host"]
    key = world.key()
    engine: dict[str, Any] = {
        "host": f"{NAME}-engine.{NAMESPACE}.svc",
        "port": names.PORT_ENGINE,
        "tls": False,
    }
    unnoticed = "; only its NetworkPolicy, not enforced here, keeps pods away from it"
    check(
        results,
        "a pod that inCluster admits to the API",
        world.assistant,
        [
            Case(
                "GET /v1/models of the internal Service",
                "key",
                world.api(key=key, **internal),
                "200, the models",
            ),
            Case(
                "POST /v1/chat/completions of the internal Service",
                "key",
                world.completion(key, **internal),
                "200, streamed to the end",
            ),
            Case(
                "GET /v1/models of the internal Service",
                "none",
                world.api(**internal),
                "401, invalid_api_key",
            ),
            Case("chat / of the internal Service", "none", world.chat(**internal), "403, ip_not_allowed"),
            Case("GET /v1/models of the public address", "key", world.api(key=key), "closed"),
            Case("GET /v1/models of the engine", "key", world.api(key=key, **engine), "401" + unnoticed),
        ],
    )


def test_without_in_cluster_a_pod_gets_nothing(world: Outside, results: Results) -> None:
    internal = {"host": f"{NAME}-internal.{NAMESPACE}.svc"}
    internal["name"] = internal["host"]
    before = world.sandbox()["spec"]["access"]["inCluster"]
    world.edit({"access": {"inCluster": None}})
    try:
        world.node.until("NetworkProtected", lambda: world.condition("NetworkProtected"))
        check(
            results,
            "a pod that nothing admits",
            world.assistant,
            [
                Case(
                    "GET /v1/models of the internal Service",
                    "key",
                    world.api(key=world.key(), **internal),
                    "403, ip_not_allowed" + UNGUARDED,
                )
            ],
        )
    finally:
        world.edit({"access": {"inCluster": before}})
        world.node.until("NetworkProtected", lambda: world.condition("NetworkProtected"))


@pytest.mark.parametrize("family", [4, 6])
def test_the_clients_own_address_arrives_at_the_chat(world: Outside, family: int) -> None:
    request = world.chat(
        headers={"X-Forwarded-For": "198.51.100.99"}, host=world.host if family == 4 else world.host_6
    )
    answer = world.office.ask(request)
    assert json.loads(answer.body)["for"] == (OFFICE if family == 4 else OFFICE_6)


def test_the_first_token_comes_soon_after_kubectl_apply(world: Outside, results: Results) -> None:
    """Until the sandbox is ready, the admitted client sees refusals and never anything of another kind."""
    assert set(world.not_before) <= {"timed out", "closed", "reset", "401", "503"}, world.not_before
    answer = world.office.ask(world.completion(world.key()))
    assert answer.first_seconds is not None
    results.row(
        "node-traffic",
        {
            "Change": "the sandbox is created",
            "Outcome": "first a closed door, then a streamed answer",
            "Measured": f"first text {world.first_token:.0f} s after `kubectl apply`; "
            f"later requests: {answer.first_seconds * 1000:.0f} ms",
        },
    )


def foreign_authority() -> str:
    """The certificate of somebody else's authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()
