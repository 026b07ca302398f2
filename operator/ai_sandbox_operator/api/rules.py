"""What admission checks beyond types and bounds, as CEL, and the tables that CEL and Python share.

A rule refuses a mistake while the person who made it is still looking, so every message says what
must hold and, where it is not plain, what to write instead. The safety-relevant rules are repeated
in `validation.py`, because a CRD of an older release may have let an object pass.

Only libraries of Kubernetes 1.30 are used: a server compiles new rules with the libraries of the
release before its own, and 1.31 is the oldest that is supported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic.config import JsonDict
from pydantic.types import JsonValue

from . import names

VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"

#: Duplicates among more entries than this are a notice of the operator: comparing all pairs at
#: admission would exceed the API server's cost limit.
MAX_COMPARED_NETWORKS = 300
#: A network with a shorter prefix admits so many that its entry must say why.
WIDE_PREFIX_IPV4, WIDE_PREFIX_IPV6 = 8, 16

LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_DNS = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_KEY = f"^({_DNS}([.]{_DNS})*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$"
HOSTNAME = "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
SANDBOX_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"
#: Registry, repository, tag, digest.
IMAGE = (
    f"^([a-z0-9.-]+(:[0-9]+)?/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{{64}})?$"
)
IMAGE_DIGEST = "@sha256:[0-9a-f]{64}$"
IMAGE_TAG = ":[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
ROLLING_TAG = ":(latest|main|nightly|dev|edge)(-[a-z0-9-]+)?$"

#: Flags of `vllm serve` that a spec may not set, with what to do instead. vLLM takes underscores for
#: dashes, `--flag=value`, `--flag.key=value`, and any beginning of a flag: all of these are refused.
#: Source: vLLM vllm/utils/argparse_utils.py, vllm/entrypoints/openai/cli_args.py, docs/usage/security.md.
DENIED_FLAGS: dict[str, str] = {
    "--model": "use spec.model.id",
    "--revision": "use spec.model.revision",
    "--served-model-name": "use spec.model.servedName",
    "--max-model-len": "use spec.model.maxContextTokens",
    "--hf-token": "use spec.model.tokenSecretRef",
    "--gpu-memory-utilization": "use spec.engine.gpuMemoryUtilizationPercent",
    "--tensor-parallel-size": "use spec.gpu.count",
    "-tp": "use spec.gpu.count",
    "--pipeline-parallel-size": "use spec.gpu.count",
    "-pp": "use spec.gpu.count",
    "--api-key": "use spec.access.apiKeys",
    "--host": "the operator sets it",
    "--port": "the operator sets it",
    "--uds": "the operator sets host and port",
    "--root-path": "the operator sets the paths",
    "--shutdown-timeout": "the operator sets it",
    "--disable-fastapi-docs": "the operator sets it",
    "--no-disable-fastapi-docs": "the documentation pages stay off",
    "--enable-offline-docs": "the documentation pages stay off",
    "--config": "write its flags here one by one",
    "--headless": "the sandbox needs the engine's server",
    "--grpc": "only the OpenAI server is protected",
    "--grpc-port": "only the OpenAI server is protected",
    "--middleware": "it runs code in the engine's server",
    "--tool-server": "it runs code that the model wrote",
    "--tool-parser-plugin": "it runs code in the engine",
    "--worker-extension-cls": "it runs code in the engine",
    "--logits-processors": "it runs code in the engine",
    "--master-addr": "the sandbox runs on one node",
    "--master-port": "the sandbox runs on one node",
    "--allowed-local-media-path": "it lets clients read the engine's files",
    "--enable-tokenizer-info-endpoint": "it opens an unprotected endpoint",
    "--enable-scale-out": "it opens an unprotected endpoint",
    "--enable-server-dev-mode": "it opens unprotected endpoints",
    "--profiler-config": "it opens unprotected endpoints",
}
#: Beginnings of flags that a spec may not set.
DENIED_FAMILIES = ("--ssl-", "--enable-ssl-", "--data-parallel-", "-dp", "--reasoning-parser-")


def _numbers_below(limit: int) -> str:
    """Regular expression of the numbers from 0 to `limit` - 1; `limit` at most 99."""
    tens, ones = divmod(limit, 10)
    parts = [f"{tens or ''}[0-{ones - 1}]"] if ones else []
    parts += [f"{ten or ''}[0-9]" for ten in range(tens)]
    return f"({'|'.join(parts)})"


def _versions_below(minor: int, patch: int) -> str:
    """Regular expression of the versions before 0.minor.patch."""
    older = f"0[.]{_numbers_below(minor)}[.][0-9]+"
    return f"({older}|0[.]{minor}[.]{_numbers_below(patch)})" if patch else older


#: vLLM before 0.22.0: a crafted Host header passes the key check (CVE-2026-48746).
OLD_ENGINE = f"(^|/)vllm-openai:v?{_versions_below(22, 0)}([^0-9].*)?$"
#: Open WebUI before 0.12.4 lacks security fixes.
OLD_CHAT = f"(^|/)open-webui:v?{_versions_below(12, 4)}([^0-9].*)?$"
MESSAGE_OLD_ENGINE = "must be vLLM 0.22.0 or later: older releases let requests pass without a key"
MESSAGE_OLD_CHAT = "must be Open WebUI 0.12.4 or later: older releases lack security fixes"
MESSAGE_UNPINNED = "must be pinned: give a tag other than latest, or better a digest (@sha256:...)"
MESSAGE_IMAGE = "must be an image reference such as registry.example.com/team/vllm-openai:v0.33.0"
MESSAGE_CIDR = (
    "must be an IPv4 or IPv6 network with its prefix length and without a zone, "
    "such as 203.0.113.4/32, 203.0.113.0/24 or 2001:db8::/64"
)
MESSAGE_HOST_BITS = (
    "must not have bits set beyond the prefix length: "
    "write 203.0.113.0/24 for a network, 203.0.113.4/32 for one address"
)
MESSAGE_WIDE = (
    "must have a description that says why: this network is very large "
    "(0.0.0.0/0 and ::/0 admit the whole internet)"
)
MESSAGE_DUPLICATE_NETWORK = "must name each network once: put all of its targets into `to` of one entry"
MESSAGE_FIRST_ARGUMENT = "must begin with a flag: the first element has to start with -"
MESSAGE_ONE_ARGUMENT = (
    "must be one argument: write a flag and its value as two elements, or with = between them"
)
MESSAGE_FAMILY = "must not configure TLS (use spec.access.tls) or data parallelism (use spec.gpu.count)"
MESSAGE_HOSTNAME = (
    "must be a DNS name in lower case, without wildcard, port or trailing dot, and not an IP address"
)
MESSAGE_TLS_SECRET = "must have secretName with mode Secret, and only then"  # noqa: S105 - a message
MESSAGE_TLS_ISSUER = "must have issuerRef with mode CertManager, and only then"
MESSAGE_NODE_PLAN = f"must not have the label {names.LABEL_PLAN}: name the plan in spec.gpu.plan"
MESSAGE_OIDC = "must have providerURL, clientID and clientSecretRef together, or none of them"
MESSAGE_OIDC_OPTIONS = "must have providerURL before allowedDomains or roles can be used"
MESSAGE_OIDC_URL = (
    "must be the https:// URL, on port 443, of the provider's discovery document, such as "
    "https://sso.example.com/.well-known/openid-configuration"
)
MESSAGE_NAME = (
    f"must have a name of at most {names.MAX_NAME_LENGTH} lower-case letters, digits and dashes that starts "
    "with a letter: Services are named after it"
)


def rule(expression: str, message: str, *, message_expression: str | None = None) -> JsonDict:
    """One CEL rule. `message` also serves when `message_expression` cannot be evaluated."""
    result: JsonDict = {"rule": expression, "message": message}
    if message_expression is not None:
        result["messageExpression"] = message_expression
    return result


def cel(*rules: JsonDict) -> JsonDict:
    """Schema extension of a value with rules."""
    validations: list[JsonValue] = [*rules]
    return {VALIDATIONS: validations} if rules else {}


def atomic(*rules: JsonDict) -> JsonDict:
    """A list with one owner: whoever applies it replaces it as a whole."""
    return {LIST_TYPE: "atomic", **cel(*rules)}


def unique(*rules: JsonDict) -> JsonDict:
    """A list of distinct scalars that several appliers may share."""
    return {LIST_TYPE: "set", **cel(*rules)}


def keyed(key: str, *rules: JsonDict) -> JsonDict:
    """A list of objects that are told apart by `key` and that several appliers may share."""
    return {LIST_TYPE: "map", LIST_KEYS: [key], **cel(*rules)}


def _text(value: str) -> str:
    """A CEL string literal."""
    return json.dumps(value, ensure_ascii=True)


def _texts(values: Iterable[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


def matches(pattern: str, message: str) -> JsonDict:
    """The value matches `pattern`."""
    return rule(f"self.matches({_text(pattern)})", message)


# The object.
ROOT = (
    rule(
        f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH} && "
        f"self.metadata.name.matches({_text(SANDBOX_NAME)})",
        MESSAGE_NAME,
    )
    | {"fieldPath": ".metadata.name"},
)

# Networks.
CIDR = (
    rule("isCIDR(self)", MESSAGE_CIDR),
    rule("!isCIDR(self) || cidr(self) == cidr(self).masked()", MESSAGE_HOST_BITS),
)
ALLOWLIST_ENTRY = (
    rule(
        "!isCIDR(self.cidr) || (has(self.description) && self.description.trim() != '') || "
        "cidr(self.cidr).prefixLength() >= "
        f"(cidr(self.cidr).ip().family() == 4 ? {WIDE_PREFIX_IPV4} : {WIDE_PREFIX_IPV6})",
        MESSAGE_WIDE,
    ),
)
ALLOWLIST = (
    # The list of one list binds a name: the networks are read once, in one spelling.
    rule(
        f"self.size() > {MAX_COMPARED_NETWORKS} || "
        "[self.map(e, isCIDR(e.cidr) ? string(cidr(e.cidr)) : e.cidr)]"
        ".all(l, l.all(c, l.indexOf(c) == l.lastIndexOf(c)))",
        MESSAGE_DUPLICATE_NETWORK,
    ),
)

# Engine arguments.
_FLAG = "self.split('=')[0].split('.')[0].replace('_', '-')"
_DENIED = _texts(f"{flag}: {remedy}" for flag, remedy in DENIED_FLAGS.items())
_FAMILIES = _texts(DENIED_FAMILIES)
ARGUMENT = (
    rule(f"!self.startsWith('-') || !{_FLAG}.contains(' ')", MESSAGE_ONE_ARGUMENT),
    rule(
        f"!self.startsWith('-') || !{_DENIED}.exists(f, f.startsWith({_FLAG}))",
        "must not be, or abbreviate, a flag that the operator sets or refuses",
        message_expression=f"'must not be, or abbreviate, ' + {_DENIED}.filter(f, f.startsWith({_FLAG}))[0]",
    ),
    rule(
        f"!{_FAMILIES}.exists(f, {_FLAG}.startsWith(f))",
        MESSAGE_FAMILY,
    ),
)
ARGUMENTS = (rule("self.size() == 0 || self[0].startsWith('-')", MESSAGE_FIRST_ARGUMENT),)

# Images.
_IMAGE = (
    rule(f"self == '' || self.matches({_text(IMAGE)})", MESSAGE_IMAGE),
    rule(
        f"self == '' || self.matches({_text(IMAGE_DIGEST)}) || "
        f"(self.matches({_text(IMAGE_TAG)}) && !self.matches({_text(ROLLING_TAG)}))",
        MESSAGE_UNPINNED,
    ),
)
ENGINE_IMAGE = (*_IMAGE, rule(f"!self.matches({_text(OLD_ENGINE)})", MESSAGE_OLD_ENGINE))
CHAT_IMAGE = (*_IMAGE, rule(f"!self.matches({_text(OLD_CHAT)})", MESSAGE_OLD_CHAT))

# Access.
TLS = (
    rule("(self.mode == 'Secret') == (self.secretName != '')", MESSAGE_TLS_SECRET),
    rule("(self.mode == 'CertManager') == has(self.issuerRef)", MESSAGE_TLS_ISSUER),
)
HOSTNAMES = (rule("self.all(h, self.exists_one(o, o == h))", "must name each host once"),)
HOSTNAME_RULES = (matches(HOSTNAME, MESSAGE_HOSTNAME),)
OIDC = (
    rule(
        "(self.providerURL != '') == (self.clientID != '') && "
        "(self.providerURL != '') == has(self.clientSecretRef)",
        MESSAGE_OIDC,
    ),
    rule(
        "self.providerURL != '' || (self.allowedDomains.size() == 0 && !has(self.roles))",
        MESSAGE_OIDC_OPTIONS,
    ),
)
OIDC_URL = (
    rule(
        # The chat reaches port 443 only, and asks for nothing before somebody logs in.
        "self == '' || (isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != '' && "
        "url(self).getPort() in ['', '443'] && self.contains('/.well-known/'))",
        MESSAGE_OIDC_URL,
    ),
)
EMAIL = (matches("^[^@ ]+@[^@ ]+$", "must be an e-mail address such as admin@example.com"),)
SELECTOR_REQUIREMENT = (
    rule(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
        "must have values with In and NotIn, and none with Exists and DoesNotExist",
    ),
)
LABEL_KEY_RULES = (matches(LABEL_KEY, "must be a label key such as example.com/team"),)
LABELS = (
    rule(
        f"self.all(k, k.size() <= 316 && k.matches({_text(LABEL_KEY)}))",
        "must have label keys such as example.com/team",
    ),
)

# Model.
NO_PARENT = (rule("!self.contains('..')", "must not contain two dots in a row"),)

# Hardware.
# The plan decides whether the model fits, and administrators bound it (manifests/admission/bounds.yaml).
GPU = (
    rule(f"!({_text(names.LABEL_PLAN)} in self.nodeSelector)", MESSAGE_NODE_PLAN)
    | {"fieldPath": ".nodeSelector"},
)
GPU_COUNT = (rule("self in [1, 2, 4, 8]", "must be 1, 2, 4 or 8: the model is split evenly over the GPUs"),)
TOLERATION = (
    rule(
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "must not have a value with operator Exists",
    ),
    rule(
        "(has(self.operator) && self.operator == 'Exists') || (has(self.key) && self.key != '')",
        "must have a key with operator Equal",
    ),
)
TAINT_KEY = (
    rule(f"self == '' || self.matches({_text(LABEL_KEY)})", "must be a taint key such as nvidia.com/gpu"),
)
AMOUNTS = (
    rule(
        "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'])",
        "must have no keys but cpu, memory and ephemeral-storage: GPUs come from spec.gpu.count",
    ),
)
AMOUNT = (
    rule(
        "isQuantity(self) && !quantity(self).isLessThan(quantity('0'))",
        "must be a quantity such as 500m, 4 or 16Gi",
    ),
)
RESOURCES = (
    rule(
        "self.requests.all(k, !(k in self.limits) || !isQuantity(self.requests[k]) || "
        "!isQuantity(self.limits[k]) || "
        "!quantity(self.requests[k]).isGreaterThan(quantity(self.limits[k])))",
        "must not request more than the limit",
    ),
)

# Volumes.
_AT_LEAST_10 = "isQuantity(self) && !quantity(self).isLessThan(quantity('10Gi'))"
VOLUME_SIZE = (
    rule(_AT_LEAST_10, "must be a quantity of at least 10Gi, Linode's smallest volume"),
    rule(
        "!isQuantity(self) || !isQuantity(oldSelf) || !quantity(self).isLessThan(quantity(oldSelf))",
        "must not shrink: a volume can only grow; make a new sandbox for a smaller one",
    ),
)
OPTIONAL_VOLUME_SIZE = (
    rule(
        f"self == '' || ({_AT_LEAST_10})",
        "must be empty or a quantity of at least 10Gi, Linode's smallest volume",
    ),
    rule(
        "!isQuantity(oldSelf) || (isQuantity(self) && !quantity(self).isLessThan(quantity(oldSelf)))",
        "must not shrink or be removed: a volume can only grow; make a new sandbox for a smaller one",
    ),
)
STORAGE_CLASS = (
    rule("self == oldSelf", "must not change: a volume keeps its class; make a new sandbox for another one"),
)
