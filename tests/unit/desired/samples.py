"""Sandboxes and facts for the tests of the renderers."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import facts, render

UID = "6f1d0c5e-3c5b-4f0e-9a51-0d6a4c1f2b3a"
#: Every secret value is recognisable, so that it can be searched for where it must not be.
MATERIAL = facts.Material(
    engine_key="engine-key-0123456789abcdefghijklmnop",
    chat_session_key="session-key-0123456789abcdefghijklmn",
    api_keys={
        "default": "default-key-0123456789abcdefghijklmn",
        "alice": "alice-key-0123456789abcdefghijklmnop",
    },
    chat_admin_password="admin-password-0123456789abcdef",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FACTS = facts.Facts(
    release=facts.Release(), material=MATERIAL, commit=COMMIT, model_bytes=14_496_000_000, model_cached=True
)
EXPOSED = dataclasses.replace(
    FACTS,
    firewall_id=123456,
    public_names=("192.0.2.80", "192-0-2-80.ip.linodeusercontent.com"),
    linode_tags=("ai-sandbox", "lke7"),
    operator_namespace="ai-sandbox-system",
)


def sandbox(spec: dict[str, Any] | None = None, *, name: str = "demo") -> v1alpha1.AISandbox:
    """A stored sandbox."""
    return v1alpha1.parse(
        {
            "apiVersion": "sandbox.linode.com/v1alpha1",
            "kind": "AISandbox",
            "metadata": {"name": name, "namespace": "team-a", "uid": UID, "generation": 3},
            "spec": spec or {},
        }
    )


def child(children: tuple[facts.Child, ...], kind: str, name: str) -> dict[str, Any]:
    """The manifest of one child; fails if there is none."""
    found = [item.manifest for item in children if (item.kind, item.name) == (kind, name)]
    assert len(found) == 1, f"{kind}/{name}: {len(found)} children"
    return found[0]


def rendered(spec: dict[str, Any] | None = None, known: facts.Facts = FACTS) -> tuple[facts.Child, ...]:
    """The children of a sandbox called demo."""
    return render.render(sandbox(spec), known)


def objects(spec: dict[str, Any], known: facts.Facts = FACTS) -> dict[str, list[str]]:
    """Names of the children by kind."""
    found: dict[str, list[str]] = {}
    for item in rendered(spec, known):
        found.setdefault(item.kind, []).append(item.name)
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """The container of a Deployment or Job."""
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    assert len(found) == 1
    return found[0]


def content(manifest: dict[str, Any]) -> dict[str, str]:
    """Decoded content of a Secret."""
    return {key: base64.b64decode(value).decode() for key, value in manifest.get("data", {}).items()}


def strings(value: Any) -> Iterator[str]:
    """Every string of a manifest, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


# --- strategies -------------------------------------------------------------------------------------

targets = st.sampled_from([["Chat"], ["API"], ["Chat", "API"]])


def _v4(data: tuple[int, int]) -> str:
    return network(*data, 32)


def network(bits: int, prefix: int, width: int) -> str:
    """A network without host bits."""
    number = bits >> (width - prefix) << (width - prefix)
    address = ipaddress.IPv4Address(number) if width == 32 else ipaddress.IPv6Address(number)
    return f"{address}/{prefix}"


cidrs = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(_v4),
    # Few addresses, so that entries overlap and touch.
    st.tuples(st.integers(0xCB007100, 0xCB0071FF), st.integers(24, 32)).map(_v4),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(lambda pair: network(*pair, 128)),
)
allowlists = st.lists(
    st.fixed_dictionaries({"cidr": cidrs, "to": targets, "description": st.text("abc ", max_size=8)}),
    max_size=8,
)
selectors = st.sampled_from([{}, {"matchLabels": {"team": "a"}}])
peers = st.lists(
    st.fixed_dictionaries(
        {"to": targets}, optional={"namespaceSelector": selectors, "podSelector": selectors}
    ),
    max_size=3,
)
tls = st.sampled_from(
    [
        {"mode": "SelfSigned"},
        {"mode": "Disabled"},
        {"mode": "Secret", "secretName": "mine"},
        {"mode": "CertManager"},
    ]
)
access = st.fixed_dictionaries(
    {},
    optional={
        "exposure": st.sampled_from(["ClusterIP", "NodeBalancer"]),
        "allowlist": allowlists,
        "inCluster": peers,
        "tls": tls,
        "hostnames": st.lists(
            st.sampled_from(["llm.example.com", "ai.example.com"]), max_size=2, unique=True
        ),
        "apiKeys": st.lists(
            st.sampled_from(["default", "alice", "bob"]).map(lambda name: {"name": name}),
            min_size=1,
            max_size=3,
        ),
    },
)
chats = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "image": st.sampled_from(["", "registry.example.com/chat:1"]),
        "admin": st.fixed_dictionaries({}, optional={"secretName": st.just("my-admin")}),
        "oidc": st.just(
            {
                "providerURL": "https://sso.example.com/.well-known/openid-configuration",
                "clientID": "chat",
                "clientSecretRef": {"name": "sso", "key": "secret"},
                "allowedDomains": ["example.com"],
                "roles": {"claim": "groups", "allowed": ["staff"], "admin": ["ops"]},
            }
        ),
        "storage": st.fixed_dictionaries({"size": st.sampled_from(["10Gi", "20480Mi"])}),
    },
)
models = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["Qwen/Qwen3-4B", "meta-llama/Llama-3.1-8B-Instruct", "a/b", "x/Y-70B"]),
        "revision": st.sampled_from(["main", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"]),
        "servedName": st.sampled_from(["", "house"]),
        "maxContextTokens": st.integers(256, 131072),
        "tokenSecretRef": st.just({"name": "hf", "key": "token"}),
    },
)
engines = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["", "registry.example.com/vllm:1"]),
        "gpuMemoryUtilizationPercent": st.integers(10, 99),
        "extraArgs": st.lists(st.sampled_from(["--enforce-eager", "--max-num-seqs=8"]), max_size=2),
        "resources": st.sampled_from([{}, {"requests": {"memory": "1024Mi"}, "limits": {"cpu": "4000m"}}]),
    },
)
gpus = st.fixed_dictionaries(
    {},
    optional={
        "count": st.sampled_from([1, 2, 4]),
        "plan": st.sampled_from(["", "g2-gpu-rtx4000a1-m", "g9-unknown"]),
        "nodeSelector": st.sampled_from([{}, {"pool": "gpu"}]),
        "tolerations": st.lists(st.just({"key": "dedicated", "value": "ai"}), max_size=1),
    },
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "model": models,
        "engine": engines,
        "gpu": gpus,
        "access": access,
        "chat": chats,
        "storage": st.fixed_dictionaries(
            {},
            optional={"retain": st.fixed_dictionaries({"modelCache": st.booleans(), "chat": st.booleans()})},
        ),
        "lifecycle": st.sampled_from([{"state": "Running"}, {"state": "Suspended"}]),
    },
)
known = st.builds(
    facts.Facts,
    release=st.just(facts.Release()),
    material=st.just(MATERIAL),
    firewall_id=st.none() | st.integers(1, 10**6),
    public_names=st.sampled_from([(), ("192.0.2.80",), ("2001:db8::80", "nb.example.com")]),
    commit=st.just(COMMIT),
    model_cached=st.booleans(),
    engine_running=st.booleans(),
    linode_tags=st.sampled_from([(), ("a", "b")]),
    nodebalancer_ranges=st.sampled_from([("192.168.255.0/24",), (), ("192.168.255.0/24", "10.100.0.0/30")]),
    operator_namespace=st.sampled_from(["", "ai-sandbox-system"]),
)
