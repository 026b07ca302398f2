"""Manifests for admission: what must be refused, with the field and the words of the refusal, and
what must be accepted. The unit tests hold the operator's own validation against the same tables.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ai_sandbox_operator.api import names, rules

Spec = dict[str, Any]
DIGEST = "@sha256:" + "0123456789abcdef" * 4
SECRET_REF = {"name": "secret", "key": "key"}


@dataclasses.dataclass(frozen=True)
class Bad:
    """A spec that the API server refuses at `field` with `message`."""

    id: str
    field: str
    message: str
    spec: Spec
    name: str = "sandbox"
    #: Whether `validation.violations` must refuse it as well.
    safety: bool = False


def manifest(spec: Spec, name: str = "sandbox") -> dict[str, Any]:
    """An AISandbox with this spec."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def networks(count: int) -> list[Spec]:
    """Distinct networks of one address each."""
    return [{"cidr": f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32"} for i in range(count)]


def _allow(*cidrs: str, **fields: Any) -> Spec:
    return {"access": {"allowlist": [{"cidr": cidr, **fields} for cidr in cidrs]}}


def _args(*args: str) -> Spec:
    return {"engine": {"extraArgs": list(args)}}


def _tls(**fields: Any) -> Spec:
    return {"access": {"tls": fields}}


def _oidc(**fields: Any) -> Spec:
    return {"chat": {"oidc": fields}}


def _expression(**fields: Any) -> Spec:
    return {"access": {"inCluster": [{"podSelector": {"matchExpressions": [{"key": "team", **fields}]}}]}}


_CIDR = "spec.access.allowlist[0].cidr"
_ARG = "spec.engine.extraArgs[0]"
_NO_CIDR = "must be an IPv4 or IPv6 network with its prefix length and without a zone"
_HOST_BITS = "must not have bits set beyond the prefix length: write 203.0.113.0/24 for a network"
_WIDE = "must have a description that says why"
_DUPLICATE = "must name each network once: put all of its targets into `to` of one entry"
_UNPINNED = "must be pinned: give a tag other than latest"
_OLD_ENGINE = "must be vLLM 0.22.0 or later"
_OLD_CHAT = "must be Open WebUI 0.12.4 or later"
_HOST = "must be a DNS name in lower case, without wildcard, port or trailing dot"
_NAME = "must have a name of at most 40 lower-case letters, digits and dashes that starts with a letter"
_SIZE = "must be a quantity of at least 10Gi"
_VALUES = "must have values with In and NotIn, and none with Exists and DoesNotExist"
_OIDC_ALL = "must have providerURL, clientID and clientSecretRef together, or none of them"

BAD: tuple[Bad, ...] = (
    # The name.
    Bad("name-41-characters", "metadata.name", _NAME, {}, name="a" * 41, safety=True),
    Bad("name-starts-with-digit", "metadata.name", _NAME, {}, name="1st", safety=True),
    Bad("name-with-dot", "metadata.name", _NAME, {}, name="team.sandbox", safety=True),
    # Networks.
    *(
        Bad(f"cidr-{label}", _CIDR, _NO_CIDR, _allow(cidr), safety=True)
        for label, cidr in (
            ("without-length", "203.0.113.4"),
            ("out-of-range", "203.0.113.400/32"),
            ("length-33", "203.0.113.4/33"),
            ("length-129", "2001:db8::1/129"),
            ("leading-zero", "203.0.113.04/32"),
            ("leading-zero-length", "203.0.113.4/032"),
            ("netmask", "203.0.113.0/255.255.255.0"),
            ("zone", "fe80::1%eth0/64"),
            ("host-name", "office.example.com/32"),
            ("mapped-ipv4", "::ffff:203.0.113.4/128"),
            ("blank-before", " 203.0.113.4/32"),
            ("two-networks", "203.0.113.4/32,203.0.113.5/32"),
        )
    ),
    Bad("cidr-empty", _CIDR, "should be at least 3 chars long", _allow("")),
    Bad("cidr-host-bits", _CIDR, _HOST_BITS, _allow("203.0.113.4/24"), safety=True),
    Bad("cidr-host-bits-ipv6", _CIDR, _HOST_BITS, _allow("2001:db8::1/64"), safety=True),
    Bad("cidr-missing", _CIDR, "Required value", {"access": {"allowlist": [{"description": "office"}]}}),
    Bad("cidr-world", "spec.access.allowlist[0]", _WIDE, _allow("0.0.0.0/0"), safety=True),
    Bad("cidr-world-ipv6", "spec.access.allowlist[0]", _WIDE, _allow("::/0"), safety=True),
    Bad("cidr-half-the-world", "spec.access.allowlist[0]", _WIDE, _allow("128.0.0.0/1"), safety=True),
    Bad(
        "cidr-world-blank-description",
        "spec.access.allowlist[0]",
        _WIDE,
        _allow("0.0.0.0/0", description="  "),
        safety=True,
    ),
    Bad(
        "cidr-twice",
        "spec.access.allowlist",
        _DUPLICATE,
        _allow("203.0.113.4/32", "198.51.100.0/24", "203.0.113.4/32"),
    ),
    Bad(
        "cidr-twice-in-two-spellings",
        "spec.access.allowlist",
        _DUPLICATE,
        _allow("2001:db8::/32", "2001:0DB8:0::/32"),
    ),
    Bad(
        "cidr-twice-with-other-targets",
        "spec.access.allowlist",
        _DUPLICATE,
        {
            "access": {
                "allowlist": [
                    {"cidr": "192.0.2.0/24", "to": ["API"]},
                    {"cidr": "192.0.2.0/24", "to": ["Chat"]},
                ]
            }
        },
    ),
    Bad(
        "allowlist-1001-entries",
        "spec.access.allowlist",
        "must have at most 1000 items",
        {"access": {"allowlist": networks(1001)}},
    ),
    Bad(
        "allowlist-10000-entries",
        "spec.access.allowlist",
        "must have at most 1000 items",
        {"access": {"allowlist": networks(10_000)}},
    ),
    Bad(
        "allowlist-null",
        "spec.access.allowlist[0]",
        "must be of type object",
        {"access": {"allowlist": [None]}},
    ),
    Bad(
        "target-unknown",
        "spec.access.allowlist[0].to[0]",
        'supported values: "Chat", "API"',
        _allow("192.0.2.0/24", to=["SSH"]),
    ),
    Bad(
        "target-twice",
        "spec.access.allowlist[0].to[1]",
        "Duplicate value",
        _allow("192.0.2.0/24", to=["API", "API"]),
    ),
    Bad(
        "target-none",
        "spec.access.allowlist[0].to",
        "should have at least 1 items",
        _allow("192.0.2.0/24", to=[]),
    ),
    Bad(
        "description-101-characters",
        "spec.access.allowlist[0].description",
        "may not be more than 100",
        _allow("192.0.2.0/24", description="x" * 101),
    ),
    # Exposure and encryption.
    Bad(
        "exposure-unknown",
        "spec.access.exposure",
        'supported values: "ClusterIP", "NodeBalancer"',
        {"access": {"exposure": "LoadBalancer"}},
    ),
    Bad(
        "tls-secret-without-name",
        "spec.access.tls",
        "must have secretName with mode Secret, and only then",
        _tls(mode="Secret"),
        safety=True,
    ),
    Bad(
        "tls-name-without-secret",
        "spec.access.tls",
        "must have secretName with mode Secret, and only then",
        _tls(secretName="tls"),
        safety=True,
    ),
    Bad(
        "tls-certmanager-without-issuer",
        "spec.access.tls",
        "must have issuerRef with mode CertManager, and only then",
        _tls(mode="CertManager"),
        safety=True,
    ),
    Bad(
        "tls-issuer-without-certmanager",
        "spec.access.tls",
        "must have issuerRef with mode CertManager, and only then",
        _tls(mode="Disabled", issuerRef={"name": "ca"}),
        safety=True,
    ),
    Bad(
        "tls-issuer-without-name",
        "spec.access.tls.issuerRef.name",
        "Required value",
        _tls(mode="CertManager", issuerRef={}),
    ),
    Bad("tls-mode-unknown", "spec.access.tls.mode", "Unsupported value", _tls(mode="None")),
    *(
        Bad(
            f"hostname-{label}",
            "spec.access.hostnames[0]",
            _HOST,
            {"access": {"hostnames": [host]}},
            safety=True,
        )
        for label, host in (
            ("wildcard", "*.example.com"),
            ("upper-case", "AI.example.com"),
            ("port", "ai.example.com:3000"),
            ("url", "https://ai.example.com"),
            ("address", "203.0.113.4"),
            ("trailing-dot", "ai.example.com."),
            ("underscore", "my_ai.example.com"),
        )
    ),
    Bad(
        "hostname-twice",
        "spec.access.hostnames",
        "must name each host once",
        {"access": {"hostnames": ["ai.example.com"] * 2}},
    ),
    Bad(
        "api-key-twice",
        "spec.access.apiKeys[1]",
        "Duplicate value",
        {"access": {"apiKeys": [{"name": "ci"}] * 2}},
        safety=True,
    ),
    Bad("api-keys-none", "spec.access.apiKeys", "should have at least 1 items", {"access": {"apiKeys": []}}),
    Bad(
        "api-key-upper-case",
        "spec.access.apiKeys[0].name",
        "should match",
        {"access": {"apiKeys": [{"name": "CI"}]}},
    ),
    Bad(
        "api-key-65",
        "spec.access.apiKeys",
        "must have at most 64 items",
        {"access": {"apiKeys": [{"name": f"k{i}"} for i in range(65)]}},
    ),
    # In-cluster clients.
    Bad(
        "selector-in-without-values",
        "spec.access.inCluster[0].podSelector.matchExpressions[0]",
        _VALUES,
        _expression(operator="In"),
    ),
    Bad(
        "selector-exists-with-values",
        "spec.access.inCluster[0].podSelector.matchExpressions[0]",
        _VALUES,
        _expression(operator="Exists", values=["a"]),
    ),
    Bad(
        "selector-operator-unknown",
        "spec.access.inCluster[0].podSelector.matchExpressions[0].operator",
        "Unsupported value",
        _expression(operator="Gt", values=["1"]),
    ),
    Bad(
        "selector-label-key",
        "spec.access.inCluster[0].namespaceSelector.matchLabels",
        "must have label keys such as example.com/team",
        {"access": {"inCluster": [{"namespaceSelector": {"matchLabels": {"a/b/c": "x"}}}]}},
    ),
    Bad(
        "selector-label-value",
        "spec.access.inCluster[0].namespaceSelector.matchLabels.team",
        "should match",
        {"access": {"inCluster": [{"namespaceSelector": {"matchLabels": {"team": "-x"}}}]}},
    ),
    # Engine arguments.
    *(
        Bad(f"argument-{label}", _ARG, f"must not be, or abbreviate, {flag}: ", _args(*args), safety=True)
        for label, flag, args in (
            ("api-key", "--api-key", ("--api-key", "secret")),
            ("api-key-equals", "--api-key", ("--api-key=secret",)),
            ("api-key-underscore", "--api-key", ("--api_key=secret",)),
            ("api-key-dotted", "--api-key", ("--api-key.a=secret",)),
            ("api-key-abbreviated", "--api-key", ("--api-k", "secret")),
            ("host", "--host", ("--host", "127.0.0.1")),
            ("port", "--port", ("--port=9000",)),
            ("model", "--model", ("--model", "other/model")),
            ("revision", "--revision", ("--revision", "main")),
            ("served-model-name", "--served-model-name", ("--served_model_name", "x")),
            ("max-model-len", "--max-model-len", ("--max-model-len", "4096")),
            ("gpu-memory", "--gpu-memory-utilization", ("--gpu-memory-util", "0.99")),
            ("tensor-parallel", "--tensor-parallel-size", ("--tensor-parallel-size", "2")),
            ("tensor-parallel-short", "-tp", ("-tp", "2")),
            ("tensor-parallel-short-equals", "-tp", ("-tp=2",)),
            ("config-file", "--config", ("--config", "/models/config.yaml")),
            ("docs", "--enable-offline-docs", ("--enable-offline-docs",)),
            ("shutdown-timeout", "--shutdown-timeout", ("--shutdown-timeout", "0")),
            ("dev-mode", "--enable-server-dev-mode", ("--enable-server-dev",)),
            ("tokenizer-endpoint", "--enable-tokenizer-info-endpoint", ("--enable-tokenizer-info-endpoint",)),
            ("scale-out", "--enable-scale-out", ("--enable-scale-out",)),
            ("tool-server", "--tool-server", ("--tool-server", "demo")),
            ("grpc", "--grpc-port", ("--grpc-port", "9000")),
            ("profiler", "--profiler-config", ("--profiler-config.profiler", "torch")),
            ("middleware", "--middleware", ("--middleware", "os.system")),
            ("local-files", "--allowed-local-media-path", ("--allowed-local-media-path", "/proc")),
            ("hub-token", "--hf-token", ("--hf-token", "hf_x")),
            ("end-of-options", "--model", ("--", "other/model")),
        )
    ),
    Bad(
        "argument-denied-later",
        "spec.engine.extraArgs[2]",
        "must not be, or abbreviate, --api-key: use spec.access.apiKeys",
        _args("--max-num-seqs", "8", "--api-key", "x"),
        safety=True,
    ),
    *(
        Bad(
            f"argument-{what}",
            _ARG,
            "must be one argument: write a flag and its value as two elements, or with = between them",
            _args(text),
            safety=True,
        )
        for what, text in (("with-value", "--max-num-seqs 32"), ("with-denied-value", "--api-key secret"))
    ),
    Bad("argument-tls", _ARG, "must not configure TLS (use spec.access.tls)", _args("--ssl-keyfile", "/x")),
    Bad(
        "argument-data-parallel",
        _ARG,
        "or data parallelism (use spec.gpu.count)",
        _args("--data_parallel_size=2"),
    ),
    Bad(
        "argument-value-first",
        "spec.engine.extraArgs",
        "must begin with a flag",
        _args("auto", "--dtype"),
        safety=True,
    ),
    Bad("argument-empty", _ARG, "should be at least 1 chars long", _args("")),
    Bad(
        "arguments-65",
        "spec.engine.extraArgs",
        "must have at most 64 items",
        _args(*["--enforce-eager"] * 65),
    ),
    # Images.
    *(
        Bad(f"image-{label}", "spec.engine.image", message, {"engine": {"image": image}}, safety=True)
        for label, image, message in (
            ("without-tag", "vllm/vllm-openai", _UNPINNED),
            ("port-without-tag", "registry.example.com:5000/vllm-openai", _UNPINNED),
            ("latest", "vllm/vllm-openai:latest", _UNPINNED),
            ("nightly", "vllm/vllm-openai:nightly", _UNPINNED),
            ("blank", "vllm/vllm openai:v0.33.0", "must be an image reference such as"),
            ("url", "https://example.com/vllm-openai:v0.33.0", "must be an image reference such as"),
            ("old", "vllm/vllm-openai:v0.21.1", _OLD_ENGINE),
            ("old-single-digit", "vllm/vllm-openai:v0.9.2", _OLD_ENGINE),
            ("old-post-release", "vllm/vllm-openai:v0.8.5.post1", _OLD_ENGINE),
            ("old-variant", "vllm/vllm-openai:v0.20.0-x86_64-zstd", _OLD_ENGINE),
            ("old-with-digest", f"mirror.example.com/vllm/vllm-openai:v0.11.0{DIGEST}", _OLD_ENGINE),
        )
    ),
    *(
        Bad(f"chat-image-{label}", "spec.chat.image", message, {"chat": {"image": image}}, safety=True)
        for label, image, message in (
            ("main", "openwebui/open-webui:main", _UNPINNED),
            ("main-slim", "openwebui/open-webui:main-slim", _UNPINNED),
            ("old-patch", "openwebui/open-webui:v0.12.3", _OLD_CHAT),
            ("old-minor", "mirror.example.com/open-webui/open-webui:0.6.41", _OLD_CHAT),
        )
    ),
    # Resources and GPUs.
    Bad("gpu-count-3", "spec.gpu.count", "must be 1, 2, 4 or 8", {"gpu": {"count": 3}}),
    Bad("gpu-count-0", "spec.gpu.count", "should be greater than or equal to 1", {"gpu": {"count": 0}}),
    Bad("gpu-count-text", "spec.gpu.count", "must be of type integer", {"gpu": {"count": "1"}}),
    Bad("gpu-plan", "spec.gpu.plan", "should match", {"gpu": {"plan": "RTX 4000"}}),
    Bad(
        "node-selector-key",
        "spec.gpu.nodeSelector",
        "must have label keys",
        {"gpu": {"nodeSelector": {"-a": "b"}}},
    ),
    Bad(
        "node-selector-value",
        "spec.gpu.nodeSelector.a",
        "should match",
        {"gpu": {"nodeSelector": {"a": "b c"}}},
    ),
    Bad(
        "node-selector-plan",
        "spec.gpu.nodeSelector",
        "must not have the label node.kubernetes.io/instance-type: name the plan in spec.gpu.plan",
        {
            "gpu": {
                "plan": "g2-gpu-rtx4000a1-s",
                "nodeSelector": {"node.kubernetes.io/instance-type": "g2-gpu-rtx4000a2-s"},
            }
        },
        safety=True,
    ),
    Bad(
        "node-selector-17",
        "spec.gpu.nodeSelector",
        "must have at most 16 items",
        {"gpu": {"nodeSelector": {f"a{i}": "b" for i in range(17)}}},
    ),
    Bad(
        "toleration-exists-with-value",
        "spec.gpu.tolerations[0]",
        "must not have a value with operator Exists",
        {"gpu": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
    ),
    Bad(
        "toleration-equal-without-key",
        "spec.gpu.tolerations[0]",
        "must have a key with operator Equal",
        {"gpu": {"tolerations": [{"value": "b"}]}},
    ),
    Bad(
        "toleration-key",
        "spec.gpu.tolerations[0].key",
        "must be a taint key",
        {"gpu": {"tolerations": [{"key": "a b"}]}},
    ),
    Bad(
        "resources-gpu",
        "spec.engine.resources.limits",
        "must have no keys but cpu, memory and ephemeral-storage: GPUs come from spec.gpu.count",
        {"engine": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
    ),
    Bad(
        "resources-quantity",
        "spec.engine.resources.requests[memory]",
        "must be a quantity such as",
        {"engine": {"resources": {"requests": {"memory": "16GB"}}}},
    ),
    Bad(
        "resources-negative",
        "spec.engine.resources.requests[cpu]",
        "must be a quantity such as",
        {"engine": {"resources": {"requests": {"cpu": "-1"}}}},
    ),
    Bad(
        "resources-request-above-limit",
        "spec.engine.resources",
        "must not request more than the limit",
        {"engine": {"resources": {"requests": {"memory": "16Gi"}, "limits": {"memory": "16G"}}}},
    ),
    Bad(
        "utilization-100",
        "spec.engine.gpuMemoryUtilizationPercent",
        "should be less than or equal to 99",
        {"engine": {"gpuMemoryUtilizationPercent": 100}},
    ),
    # Model.
    Bad("model-without-owner", "spec.model.id", "should match", {"model": {"id": "mistral"}}),
    Bad(
        "model-two-dots",
        "spec.model.id",
        "must not contain two dots in a row",
        {"model": {"id": "owner/a..b"}},
    ),
    Bad(
        "model-url", "spec.model.id", "should match", {"model": {"id": "https://hub.example.com/owner/model"}}
    ),
    Bad(
        "revision-two-dots",
        "spec.model.revision",
        "must not contain two dots in a row",
        {"model": {"revision": "a/../b"}},
    ),
    Bad(
        "context-too-short",
        "spec.model.maxContextTokens",
        "should be greater than or equal to 256",
        {"model": {"maxContextTokens": 100}},
    ),
    Bad(
        "token-without-key",
        "spec.model.tokenSecretRef.key",
        "Required value",
        {"model": {"tokenSecretRef": {"name": "hf-token"}}},
    ),
    # Chat.
    Bad(
        "admin-email",
        "spec.chat.admin.email",
        "must be an e-mail address",
        {"chat": {"admin": {"email": "admin"}}},
    ),
    Bad(
        "admin-secret-name",
        "spec.chat.admin.secretName",
        "should match",
        {"chat": {"admin": {"secretName": "My_Secret"}}},
    ),
    Bad(
        "oidc-url-alone",
        "spec.chat.oidc",
        _OIDC_ALL,
        _oidc(providerURL="https://id.example.com/.well-known/openid-configuration"),
        safety=True,
    ),
    Bad(
        "oidc-without-secret",
        "spec.chat.oidc",
        _OIDC_ALL,
        _oidc(providerURL="https://id.example.com/.well-known/openid-configuration", clientID="chat"),
        safety=True,
    ),
    Bad(
        "oidc-without-url",
        "spec.chat.oidc",
        _OIDC_ALL,
        _oidc(clientID="chat", clientSecretRef=SECRET_REF),
        safety=True,
    ),
    Bad(
        "oidc-http",
        "spec.chat.oidc.providerURL",
        "must be the https:// URL",
        _oidc(providerURL="http://id.example.com", clientID="chat", clientSecretRef=SECRET_REF),
        safety=True,
    ),
    *(
        Bad(
            f"oidc-{what}",
            "spec.chat.oidc.providerURL",
            "on port 443, of the provider's discovery document, such as https://sso.example.com/.well-known/",
            _oidc(providerURL=url, clientID="chat", clientSecretRef=SECRET_REF),
            safety=True,
        )
        for what, url in (
            ("issuer", "https://accounts.example.com"),
            ("port", "https://sso.example.com:8443/realms/a/.well-known/openid-configuration"),
        )
    ),
    Bad(
        "oidc-domains-alone",
        "spec.chat.oidc",
        "must have providerURL before allowedDomains or roles",
        _oidc(allowedDomains=["example.com"]),
        safety=True,
    ),
    Bad(
        "oidc-domain-with-at",
        "spec.chat.oidc.allowedDomains[0]",
        _HOST,
        _oidc(
            providerURL="https://id.example.com/.well-known/openid-configuration",
            clientID="chat",
            clientSecretRef=SECRET_REF,
            allowedDomains=["@example.com"],
        ),
    ),
    Bad("chat-size-small", "spec.chat.storage.size", _SIZE, {"chat": {"storage": {"size": "5Gi"}}}),
    Bad("chat-size-10G", "spec.chat.storage.size", _SIZE, {"chat": {"storage": {"size": "10G"}}}),
    Bad("chat-size-empty", "spec.chat.storage.size", _SIZE, {"chat": {"storage": {"size": ""}}}),
    # Volumes and lifecycle.
    Bad(
        "cache-size-small",
        "spec.storage.modelCacheSize",
        "must be empty or a quantity of at least 10Gi",
        {"storage": {"modelCacheSize": "1Gi"}},
    ),
    Bad(
        "cache-size-unit",
        "spec.storage.modelCacheSize",
        "must be empty or a quantity of at least 10Gi",
        {"storage": {"modelCacheSize": "40GiB"}},
    ),
    Bad("class-name", "spec.storage.className", "should match", {"storage": {"className": "Block Storage"}}),
    Bad(
        "lifecycle-unknown",
        "spec.lifecycle.state",
        'supported values: "Running", "Suspended"',
        {"lifecycle": {"state": "Paused"}},
    ),
)


def _maximum() -> Spec:
    """Every list and map at its bound: what all rules together may cost is judged by this object."""
    labels = {f"example.com/{'k' * 50}-{i}": "v" * 63 for i in range(16)}
    expressions = [
        {
            "key": f"example.com/{'k' * 50}-{i}",
            "operator": "In",
            "values": [f"{'v' * 60}-{j}" for j in range(32)],
        }
        for i in range(16)
    ]
    selector = {"matchLabels": labels, "matchExpressions": expressions}
    host = ".".join(["a" * 63] * 3)
    return {
        "engine": {"extraArgs": [f"--x{i:02}={'y' * 1018}" for i in range(64)]},
        "gpu": {
            "nodeSelector": labels,
            "tolerations": [{"key": f"example.com/{'k' * 60}", "value": "v" * 63}] * 16,
        },
        "access": {
            "allowlist": [
                {"cidr": f"2001:db8:aaaa:bbbb:cccc:dddd:eeee:{i:04x}/128", "description": "d" * 100}
                for i in range(1000)
            ],
            "inCluster": [{"namespaceSelector": selector, "podSelector": selector}] * 32,
            "hostnames": [f"{host}.example{chr(97 + i)}" for i in range(16)],
            "apiKeys": [{"name": f"{'k' * 60}-{i}"} for i in range(64)],
        },
    }


GOOD: dict[str, Spec] = {
    "empty": {},
    "smallest": {"model": {"id": "Qwen/Qwen3-0.6B"}},
    "one-address": _allow("203.0.113.4/32", description="office"),
    "ipv6-network": _allow("2001:db8:1::/48"),
    "ipv6-address-upper-case": _allow("2001:DB8::1/128"),
    "mixed-families": _allow("203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32", to=["API"]),
    "overlapping-networks": _allow("203.0.113.0/24", "203.0.113.4/32", "203.0.113.0/25"),
    "world-with-reason": _allow("0.0.0.0/0", "::/0", description="public demonstration, ends on Friday"),
    # As many as are compared with each other, each as long as a network can be.
    "allowlist-as-long-as-is-compared": {
        "access": {
            "allowlist": [
                {"cidr": f"2001:1db8:aaaa:bbbb:cccc:dddd:eeee:{0x1000 + i:x}/128"}
                for i in range(rules.MAX_COMPARED_NETWORKS)
            ]
        }
    },
    "allowlist-1000-entries": {"access": {"allowlist": networks(1000)}},
    "node-balancer": {
        "access": {"exposure": "NodeBalancer", "allowlist": [{"cidr": "203.0.113.4/32", "to": ["Chat"]}]}
    },
    "in-cluster-own-namespace": {"access": {"inCluster": [{}]}},
    "in-cluster-selectors": {
        "access": {
            "inCluster": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}},
                    "podSelector": {
                        "matchExpressions": [
                            {"key": "app", "operator": "In", "values": ["web", "jobs"]},
                            {"key": "example.com/legacy", "operator": "DoesNotExist"},
                        ]
                    },
                    "to": ["API"],
                }
            ]
        }
    },
    "tls-secret": _tls(mode="Secret", secretName="ai-example-com"),
    "tls-cert-manager": {
        "access": {
            "tls": {"mode": "CertManager", "issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"}},
            "hostnames": ["ai.example.com", "xn--bcher-kva.example"],
        }
    },
    "tls-disabled": _tls(mode="Disabled"),
    "several-keys": {"access": {"apiKeys": [{"name": "ci"}, {"name": "alice"}, {"name": "bob"}]}},
    "harmless-arguments": _args(
        "--max-num-seqs",
        "32",
        "--kv-cache-dtype=fp8",
        "--limit-mm-per-prompt",
        '{"image": 0}',
        "--model-impl",
        "auto",
    ),
    "remote-code": _args("--trust-remote-code"),
    "arguments-with-short-flags": _args(
        "-q", "awq", "-O3", "--allowed-media-domains", "a.example", "b.example"
    ),
    "argument-negative-value": _args("--max-logprobs", "-1"),
    "engine-image": {"engine": {"image": "vllm/vllm-openai:v0.33.0"}},
    "engine-image-first-allowed": {"engine": {"image": "vllm/vllm-openai:v0.22.0"}},
    "engine-image-digest": {"engine": {"image": f"registry.example.com:5000/team/vllm-openai{DIGEST}"}},
    "engine-image-own": {"engine": {"image": "registry.example.com:5000/team/engine:2026.1"}},
    "chat-image": {"chat": {"image": "openwebui/open-webui:v0.12.4-slim"}},
    "chat-image-two-digit-patch": {"chat": {"image": "openwebui/open-webui:0.12.10"}},
    "chat-off": {"chat": {"enabled": False}},
    "oidc": _oidc(
        providerURL="https://id.example.com/.well-known/openid-configuration",
        clientID="chat",
        clientSecretRef=SECRET_REF,
        allowedDomains=["example.com"],
        roles={"allowed": ["ai-users"], "admin": ["ai-admins"]},
    ),
    "gpus": {
        "gpu": {
            "count": 4,
            "plan": "g2-gpu-rtx4000a4-s",
            "nodeSelector": {"example.com/pool": "gpu"},
            "tolerations": [
                {"key": "dedicated", "value": "ai", "effect": "NoSchedule"},
                {"operator": "Exists"},
            ],
        }
    },
    "resources": {
        "engine": {"resources": {"requests": {"cpu": "3500m"}, "limits": {"memory": "24Gi", "cpu": "4"}}}
    },
    "gated-model": {
        "model": {"id": "meta-llama/Llama-3.1-8B-Instruct", "tokenSecretRef": {"name": "hf", "key": "token"}}
    },
    "volumes": {
        "storage": {
            "className": "linode-block-storage-retain",
            "modelCacheSize": "0.1Ti",
            "retain": {"modelCache": True},
        },
        "chat": {"storage": {"size": "20Gi"}},
    },
    "suspended": {"lifecycle": {"state": "Suspended"}},
    "everything-at-its-bound": _maximum(),
}
