"""The AISandbox API, version v1alpha1, as pydantic models.

The CRD in `crds/` is generated from these models by `schema.py`; the operator parses stored
objects with the same models. Unknown fields are ignored at run time: the API server has already
refused or pruned them, and a downgraded operator must survive fields of a newer one.

Descriptions are for users: `kubectl explain` and docs/reference/api.md print them. Rules beyond
types and bounds are in `rules.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic.alias_generators import to_camel

from . import names, rules

DEFAULT_MODEL = "mistralai/Mistral-7B-Instruct-v0.3"
PATTERN_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Name = Annotated[str, pydantic.Field(min_length=1, max_length=63, pattern=PATTERN_DNS_LABEL)]
ObjectName = Annotated[
    str, pydantic.Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
OptionalObjectName = Annotated[
    str, pydantic.Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
]
LabelKey = Annotated[
    str, pydantic.Field(min_length=1, max_length=316, json_schema_extra=rules.cel(*rules.LABEL_KEY_RULES))
]
LabelValue = Annotated[str, pydantic.Field(max_length=63, pattern=rules.LABEL_VALUE)]
Labels = Annotated[
    dict[str, LabelValue], pydantic.Field(max_length=16, json_schema_extra=rules.cel(*rules.LABELS))
]
Amount = Annotated[str, pydantic.Field(max_length=32, json_schema_extra=rules.cel(*rules.AMOUNT))]
Amounts = Annotated[
    dict[str, Amount], pydantic.Field(max_length=3, json_schema_extra=rules.cel(*rules.AMOUNTS))
]
Argument = Annotated[
    str, pydantic.Field(min_length=1, max_length=1024, json_schema_extra=rules.cel(*rules.ARGUMENT))
]
Hostname = Annotated[
    str, pydantic.Field(min_length=1, max_length=253, json_schema_extra=rules.cel(*rules.HOSTNAME_RULES))
]
ClaimValue = Annotated[str, pydantic.Field(min_length=1, max_length=128)]
Target = Literal["Chat", "API"]
Targets = Annotated[
    list[Target], pydantic.Field(min_length=1, max_length=2, json_schema_extra=rules.unique())
]

#: Bound of numbers that have no natural one; every JSON implementation reads them exactly.
MAX_INTEGER = 2**53 - 1


def _everything() -> list[Target]:
    return ["Chat", "API"]


def _rules(*checks: pydantic.config.JsonDict) -> pydantic.ConfigDict:
    """Configuration of a model whose fields depend on each other."""
    return pydantic.ConfigDict(json_schema_extra=rules.cel(*checks))


class Model(pydantic.BaseModel):
    """Base of all API types: camelCase on the wire, immutable in memory."""

    model_config = pydantic.ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


class SecretKeyRef(Model):
    """A key of a Secret in the sandbox's namespace."""

    name: ObjectName = pydantic.Field(description="Name of the Secret, in the sandbox's namespace.")
    key: str = pydantic.Field(
        min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key within the Secret."
    )


class ModelSpec(Model):
    """Which model is served, and under which name."""

    id: str = pydantic.Field(
        default=DEFAULT_MODEL,
        min_length=3,
        max_length=96,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Model id on the hub, as owner/name. A change fetches the new model and restarts the "
        "engine.",
        json_schema_extra=rules.cel(*rules.NO_PARENT),
    )
    revision: str = pydantic.Field(
        default="main",
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description="Branch, tag or commit of the model repository. A branch or tag is resolved to a "
        "commit, which is then kept until the spec changes.",
        json_schema_extra=rules.cel(*rules.NO_PARENT),
    )
    served_name: str = pydantic.Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._/:-]*)?$",
        description="Model name that clients send. Empty: the model id.",
    )
    max_context_tokens: int | None = pydantic.Field(
        default=None,
        ge=256,
        le=10_000_000,
        description="Longest context, prompt and answer together, in tokens. Absent: the longest that fits "
        "into the GPU memory.",
    )
    token_secret_ref: SecretKeyRef | None = pydantic.Field(
        default=None,
        description="Secret key that holds the hub token, for gated or private models. Only the download "
        "uses it.",
    )


class EngineSpec(Model):
    """The vLLM engine."""

    image: str = pydantic.Field(
        default="",
        max_length=512,
        description="Engine image, pinned by tag or digest; vLLM 0.22.0 or later. Empty: the image that the "
        "operator release pins.",
        json_schema_extra=rules.cel(*rules.ENGINE_IMAGE),
    )
    gpu_memory_utilization_percent: int = pydantic.Field(
        default=92, ge=10, le=99, description="Share of the GPU memory that the engine may use, in percent."
    )
    extra_args: list[Argument] = pydantic.Field(
        default_factory=list,
        max_length=64,
        description="Further arguments of `vllm serve`, one element each, such as --max-num-seqs and 32. "
        "Flags that the operator sets, and flags that open endpoints without a key, are refused in every "
        "spelling. --trust-remote-code is allowed and runs code from the model repository: review it first.",
        json_schema_extra=rules.atomic(*rules.ARGUMENTS),
    )
    resources: Resources = pydantic.Field(
        default_factory=lambda: Resources(),
        description="CPU and memory of the engine; GPUs come from spec.gpu. Empty: what suits the plan.",
    )


class Resources(Model):
    """CPU and memory requests and limits, as in a Pod."""

    model_config = _rules(*rules.RESOURCES)

    requests: Amounts = pydantic.Field(
        default_factory=dict, description="Guaranteed amounts; keys cpu, memory and ephemeral-storage."
    )
    limits: Amounts = pydantic.Field(
        default_factory=dict, description="Upper bounds; keys cpu, memory and ephemeral-storage."
    )


class Toleration(Model):
    """A Pod toleration."""

    model_config = _rules(*rules.TOLERATION)

    key: str = pydantic.Field(
        default="",
        max_length=316,
        description="Taint key. Empty with operator Exists: all taints.",
        json_schema_extra=rules.cel(*rules.TAINT_KEY),
    )
    operator: Literal["Equal", "Exists"] = pydantic.Field(
        default="Equal", description="Equal compares the value, Exists takes any."
    )
    value: LabelValue = pydantic.Field(default="", description="Taint value, for operator Equal.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = pydantic.Field(
        default="", description="Taint effect. Empty: all effects."
    )


class GPUSpec(Model):
    """Which GPUs the engine gets."""

    model_config = _rules(*rules.GPU)

    count: int = pydantic.Field(
        default=1,
        ge=1,
        le=8,
        description="Number of GPUs of one node: 1, 2, 4 or 8. The model is split over them (tensor "
        "parallel).",
        json_schema_extra=rules.cel(*rules.GPU_COUNT),
    )
    plan: str = pydantic.Field(
        default="",
        max_length=63,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
        description="Linode plan of the GPU node, such as g2-gpu-rtx4000a1-m (node label "
        f"{names.LABEL_PLAN}). Empty: any node with free GPUs.",
    )
    node_selector: Labels = pydantic.Field(
        default_factory=dict, description="Further node labels that the engine requires."
    )
    tolerations: list[Toleration] = pydantic.Field(
        default_factory=list,
        max_length=16,
        description="Further tolerations of the engine; taints with key nvidia.com/gpu are always tolerated.",
        json_schema_extra=rules.atomic(),
    )


class AllowlistEntry(Model):
    """One network that may use the sandbox from outside."""

    model_config = _rules(*rules.ALLOWLIST_ENTRY)

    cidr: str = pydantic.Field(
        min_length=3,
        max_length=49,
        description="IPv4 or IPv6 network in CIDR notation without host bits, such as 203.0.113.4/32, "
        "203.0.113.0/24 or 2001:db8::/64.",
        json_schema_extra=rules.cel(*rules.CIDR),
    )
    description: str = pydantic.Field(
        default="",
        max_length=100,
        description="Whose network this is, and why it is here. Required for very large networks, such as "
        "0.0.0.0/0, which opens the sandbox to the whole internet.",
    )
    to: Targets = pydantic.Field(default_factory=_everything, description="What the network may use.")


class LabelSelectorRequirement(Model):
    """One requirement of a label selector."""

    model_config = _rules(*rules.SELECTOR_REQUIREMENT)

    key: LabelKey = pydantic.Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = pydantic.Field(
        description="Relation of the label to the values."
    )
    values: list[LabelValue] = pydantic.Field(
        default_factory=list,
        max_length=32,
        description="Values for In and NotIn; empty for Exists and DoesNotExist.",
        json_schema_extra=rules.atomic(),
    )


class LabelSelector(Model):
    """A label selector; empty selects everything."""

    match_labels: Labels = pydantic.Field(default_factory=dict, description="Labels that must be equal.")
    match_expressions: list[LabelSelectorRequirement] = pydantic.Field(
        default_factory=list,
        max_length=16,
        description="Requirements that must all hold.",
        json_schema_extra=rules.atomic(),
    )


class InClusterPeer(Model):
    """Pods inside the cluster that may use the internal Service.

    Without namespaceSelector: pods of the sandbox's own namespace. Without podSelector: all pods of
    the selected namespaces.
    """

    namespace_selector: LabelSelector | None = pydantic.Field(
        default=None,
        description="Namespaces of the clients; empty selects all. Absent: the sandbox's own namespace.",
    )
    pod_selector: LabelSelector | None = pydantic.Field(
        default=None, description="Pods of the clients. Absent or empty: all pods of the namespaces."
    )
    to: Targets = pydantic.Field(default_factory=_everything, description="What the pods may use.")


class IssuerRef(Model):
    """A cert-manager issuer."""

    name: ObjectName = pydantic.Field(description="Name of the issuer.")
    kind: Literal["Issuer", "ClusterIssuer"] = pydantic.Field(
        default="Issuer", description="Issuer for one in the sandbox's namespace, or ClusterIssuer."
    )


class TLSSpec(Model):
    """How the gateway's listeners are encrypted."""

    model_config = _rules(*rules.TLS)

    mode: Literal["SelfSigned", "Secret", "CertManager", "Disabled"] = pydantic.Field(
        default="SelfSigned",
        description="Where the certificate comes from: SelfSigned, from an authority of the sandbox's own; "
        "Secret, from secretName; CertManager, from issuerRef. Disabled sends everything, keys included, in "
        "the clear.",
    )
    secret_name: OptionalObjectName = pydantic.Field(
        default="",
        description="Secret of type kubernetes.io/tls in the sandbox's namespace, for mode Secret.",
    )
    issuer_ref: IssuerRef | None = pydantic.Field(default=None, description="Issuer, for mode CertManager.")


class APIKey(Model):
    """A named API key; its value is in the Secret <name>-api-keys."""

    name: Name = pydantic.Field(
        description="Name of the key: the key in the Secret and the name in the access log."
    )
    requests_per_minute: int | None = pydantic.Field(
        default=None,
        ge=1,
        le=100000,
        description="Requests per minute that the key may make; more are answered with status 429. Each of "
        "the two gateway pods gives half of it. Absent: no limit.",
    )


class AccessSpec(Model):
    """Who may reach the sandbox, and how."""

    exposure: Literal["ClusterIP", "NodeBalancer"] = pydantic.Field(
        default="ClusterIP",
        description="ClusterIP keeps the sandbox inside the cluster. NodeBalancer gives it a public address "
        "behind a Cloud Firewall, once the firewall holds the allowlist.",
    )
    allowlist: list[AllowlistEntry] = pydantic.Field(
        default_factory=list,
        max_length=1000,
        description="Networks that may use the sandbox. Empty: nobody. Networks may overlap. The list has "
        "one owner: whoever applies it replaces it as a whole.",
        json_schema_extra=rules.atomic(*rules.ALLOWLIST),
    )
    in_cluster: list[InClusterPeer] = pydantic.Field(
        default_factory=list,
        max_length=32,
        description="Pods of the cluster that may use the internal Service. Empty: none.",
        json_schema_extra=rules.atomic(),
    )
    tls: TLSSpec = pydantic.Field(default_factory=TLSSpec, description="Encryption of chat and API.")
    hostnames: list[Hostname] = pydantic.Field(
        default_factory=list,
        max_length=16,
        description="DNS names in the certificate. The first is the origin of the chat.",
        json_schema_extra=rules.atomic(*rules.HOSTNAMES),
    )
    api_keys: list[APIKey] = pydantic.Field(
        default_factory=lambda: [APIKey(name="default")],
        min_length=1,
        max_length=64,
        description="Named API keys. Values are generated into the Secret <name>-api-keys unless they are "
        "given there. A key that is removed here stops working.",
        json_schema_extra=rules.keyed("name"),
    )


class ChatAdmin(Model):
    """The first administrator of the chat."""

    email: str = pydantic.Field(
        default="admin@sandbox.local",
        min_length=3,
        max_length=254,
        description="Login of the administrator. It counts only while the chat has no user.",
        json_schema_extra=rules.cel(*rules.EMAIL),
    )
    secret_name: OptionalObjectName = pydantic.Field(
        default="",
        description="Secret with the key password, in the sandbox's namespace. Empty: generated into "
        "<name>-chat-admin.",
    )


class OIDCSpec(Model):
    """Single sign-on for the chat. Empty: local accounts."""

    model_config = _rules(*rules.OIDC)

    provider_url: str = pydantic.Field(
        default="",
        alias="providerURL",
        max_length=512,
        description="URL of the provider's discovery document (https). Empty: no single sign-on.",
        json_schema_extra=rules.cel(*rules.OIDC_URL),
    )
    client_id: str = pydantic.Field(
        default="",
        alias="clientID",
        max_length=256,
        description="Client id that the provider gave to the chat.",
    )
    client_secret_ref: SecretKeyRef | None = pydantic.Field(
        default=None, description="Secret key that holds the client secret."
    )
    allowed_domains: list[Hostname] = pydantic.Field(
        default_factory=list,
        max_length=16,
        description="E-mail domains that may log in. Empty: everybody whom the provider knows.",
        json_schema_extra=rules.unique(),
    )
    roles: OIDCRoles | None = pydantic.Field(
        default=None, description="Roles taken from a claim. Absent: everybody is a user."
    )


class OIDCRoles(Model):
    """Mapping of a claim's values to roles of the chat."""

    claim: str = pydantic.Field(
        default="roles", min_length=1, max_length=128, description="Claim of the token that holds the roles."
    )
    allowed: list[ClaimValue] = pydantic.Field(
        min_length=1,
        max_length=16,
        description="Values that may log in.",
        json_schema_extra=rules.unique(),
    )
    admin: list[ClaimValue] = pydantic.Field(
        min_length=1,
        max_length=16,
        description="Values that become administrators. Required: left out, Open WebUI takes the value admin.",
        json_schema_extra=rules.unique(),
    )


class ChatStorage(Model):
    """The volume with users and chats."""

    size: str = pydantic.Field(
        default="10Gi",
        max_length=32,
        description="Size of the volume, at least 10Gi. It can grow, not shrink.",
        json_schema_extra=rules.cel(*rules.VOLUME_SIZE),
    )


class ChatSpec(Model):
    """The chat UI (Open WebUI)."""

    enabled: bool = pydantic.Field(
        default=True, description="Whether the chat UI runs. Switching it off keeps users and chats."
    )
    image: str = pydantic.Field(
        default="",
        max_length=512,
        description="Chat image, pinned by tag or digest; Open WebUI 0.12.4 or later. Empty: the image that "
        "the operator release pins.",
        json_schema_extra=rules.cel(*rules.CHAT_IMAGE),
    )
    admin: ChatAdmin = pydantic.Field(
        default_factory=ChatAdmin, description="The first administrator of the chat; sign-up is closed."
    )
    oidc: OIDCSpec = pydantic.Field(
        default_factory=OIDCSpec, description="Single sign-on for the chat. Empty: local accounts."
    )
    storage: ChatStorage = pydantic.Field(
        default_factory=ChatStorage, description="The volume with users and chats."
    )


class RetainSpec(Model):
    """Which volumes outlive the sandbox."""

    model_cache: bool = pydantic.Field(
        default=False, description="Keep the model cache when the sandbox is deleted."
    )
    chat: bool = pydantic.Field(default=True, description="Keep users and chats when the sandbox is deleted.")


class StorageSpec(Model):
    """Volumes."""

    class_name: OptionalObjectName = pydantic.Field(
        default="",
        description="StorageClass of the volumes; it cannot change later. Empty: linode-block-storage, or "
        "the operator's setting.",
        json_schema_extra=rules.cel(*rules.STORAGE_CLASS),
    )
    model_cache_size: str = pydantic.Field(
        default="",
        max_length=32,
        description="Size of the model cache, at least 10Gi. It can grow, not shrink. Empty: from the "
        "model's size.",
        json_schema_extra=rules.cel(*rules.OPTIONAL_VOLUME_SIZE),
    )
    retain: RetainSpec = pydantic.Field(
        default_factory=RetainSpec, description="Which volumes outlive the sandbox."
    )


class LifecycleSpec(Model):
    """Whether the sandbox runs."""

    state: Literal["Running", "Suspended"] = pydantic.Field(
        default="Running",
        description="Running, or Suspended, which frees the GPU and keeps data, address and firewall.",
    )


class AISandboxSpec(Model):
    """Wanted state of a sandbox. Every field is optional."""

    model: ModelSpec = pydantic.Field(
        default_factory=ModelSpec, description="Which model is served, and under which name."
    )
    engine: EngineSpec = pydantic.Field(default_factory=EngineSpec, description="The vLLM engine.")
    gpu: GPUSpec = pydantic.Field(default_factory=GPUSpec, description="Which GPUs the engine gets.")
    access: AccessSpec = pydantic.Field(
        default_factory=AccessSpec, description="Who may reach the sandbox, and how. Default: nobody."
    )
    chat: ChatSpec = pydantic.Field(default_factory=ChatSpec, description="The chat UI (Open WebUI).")
    storage: StorageSpec = pydantic.Field(default_factory=StorageSpec, description="Volumes.")
    lifecycle: LifecycleSpec = pydantic.Field(
        default_factory=LifecycleSpec, description="Whether the sandbox runs."
    )


class Condition(Model):
    """One aspect of the sandbox's state."""

    type: str = pydantic.Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = pydantic.Field(description="Status of the condition.")
    observed_generation: int = pydantic.Field(
        default=0, ge=0, le=MAX_INTEGER, description="Generation of the spec that was judged."
    )
    last_transition_time: str = pydantic.Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    reason: str = pydantic.Field(
        min_length=1, max_length=1024, description="Machine-readable reason, in one word."
    )
    message: str = pydantic.Field(max_length=32768, description="What it means and what to do.")


class ModelStatus(Model):
    """Progress of the model."""

    revision: str | None = pydantic.Field(
        default=None,
        max_length=64,
        description="Commit that the spec's revision was resolved to. It stays "
        "until the spec's id or revision changes.",
    )
    resolved_from: str | None = pydantic.Field(
        default=None, max_length=512, description="Id and revision that were resolved, as id@revision."
    )
    size_bytes: int | None = pydantic.Field(
        default=None, ge=0, le=MAX_INTEGER, description="Bytes of the files that are loaded."
    )
    downloaded_bytes: int | None = pydantic.Field(
        default=None, ge=0, le=MAX_INTEGER, description="Bytes downloaded so far."
    )
    eta_seconds: int | None = pydantic.Field(
        default=None, ge=0, le=MAX_INTEGER, description="Expected seconds until the model is cached."
    )
    max_context_tokens: int | None = pydantic.Field(
        default=None, ge=0, le=MAX_INTEGER, description="Context length in force, in tokens."
    )


class EndpointsStatus(Model):
    """Where the sandbox is reached."""

    chat: str | None = pydantic.Field(default=None, max_length=512, description="URL of the chat UI.")
    api: str | None = pydantic.Field(default=None, max_length=512, description="Base URL of the API.")
    ca_secret_name: str | None = pydantic.Field(
        default=None, max_length=253, description="Secret whose ca.crt clients must trust."
    )


class LinodeStatus(Model):
    """Linode objects of the sandbox."""

    firewall_id: int | None = pydantic.Field(
        default=None, alias="firewallID", ge=0, le=MAX_INTEGER, description="Id of the Cloud Firewall."
    )
    node_balancer_id: int | None = pydantic.Field(
        default=None, alias="nodeBalancerID", ge=0, le=MAX_INTEGER, description="Id of the NodeBalancer."
    )
    firewall_version: int | None = pydantic.Field(
        default=None, ge=0, le=MAX_INTEGER, description="Version of the firewall's rules."
    )


class AppliedStatus(Model):
    """What each layer last proved to hold."""

    access_hash: str | None = pydantic.Field(
        default=None, max_length=64, description="Fingerprint of the access rules in force."
    )
    engine_hash: str | None = pydantic.Field(
        default=None, max_length=64, description="Fingerprint of the engine's settings in force."
    )


class AISandboxStatus(Model):
    """Observed state, written by the operator only."""

    observed_generation: int = pydantic.Field(
        default=-1,
        ge=-1,
        le=MAX_INTEGER,
        description="Generation of the spec that was last judged; -1: none yet.",
    )
    conditions: list[Condition] = pydantic.Field(
        default_factory=list,
        max_length=32,
        description="State of the sandbox, one condition for each aspect; Ready sums them up.",
        json_schema_extra=rules.keyed("type"),
    )
    model: ModelStatus | None = pydantic.Field(default=None, description="Progress of the model.")
    endpoints: EndpointsStatus | None = pydantic.Field(
        default=None, description="Where the sandbox is reached."
    )
    linode: LinodeStatus | None = pydantic.Field(default=None, description="Linode objects of the sandbox.")
    applied: AppliedStatus | None = pydantic.Field(
        default=None, description="What each layer was seen to hold."
    )


class Metadata(Model):
    """The part of the object's metadata that the operator reads."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    resource_version: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    annotations: dict[str, str] = pydantic.Field(default_factory=dict)
    labels: dict[str, str] = pydantic.Field(default_factory=dict)


class AISandbox(Model):
    """A private LLM sandbox."""

    metadata: Metadata
    spec: AISandboxSpec = pydantic.Field(default_factory=AISandboxSpec)
    status: AISandboxStatus = pydantic.Field(default_factory=AISandboxStatus)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name


def parse(body: dict[str, Any]) -> AISandbox:
    """The stored object as a model.

    Raises:
        pydantic.ValidationError: the object does not fit the models (only if it was stored under
            another version of the CRD).
    """
    return AISandbox.model_validate(body)
