"""The AISandbox API, version v1alpha1, as pydantic models.

The CRD in `crds/` is generated from these models by `schema.py`; the operator parses stored
objects with the same models. Unknown fields are ignored at run time: the API server has already
refused or pruned them, and a downgraded operator must survive fields of a newer one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic.alias_generators import to_camel

from . import rules

DEFAULT_MODEL = "mistralai/Mistral-7B-Instruct-v0.3"
PATTERN_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Name = Annotated[str, pydantic.Field(min_length=1, max_length=63, pattern=PATTERN_DNS_LABEL)]
ObjectName = Annotated[
    str, pydantic.Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
OptionalObjectName = Annotated[
    str, pydantic.Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
]
LabelValue = Annotated[str, pydantic.Field(max_length=63, pattern=rules.LABEL_VALUE)]
Labels = Annotated[
    dict[str, LabelValue], pydantic.Field(max_length=16, json_schema_extra=rules.cel(*rules.LABELS))
]
Amount = Annotated[str, pydantic.Field(max_length=32, json_schema_extra=rules.cel(*rules.AMOUNT))]
Amounts = Annotated[
    dict[str, Amount], pydantic.Field(max_length=3, json_schema_extra=rules.cel(*rules.AMOUNTS))
]
Target = Literal["Chat", "API"]
#: Bound of counters that have no natural one: integers up to here survive JSON in every language.
_MAX_INTEGER = 2**53 - 1


def _everything() -> list[Target]:
    return ["Chat", "API"]


class Model(pydantic.BaseModel):
    """Base of all API types: camelCase on the wire, immutable in memory."""

    model_config = pydantic.ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


class SecretKeyRef(Model):
    """A key of a Secret in the sandbox's namespace."""

    name: ObjectName = pydantic.Field(description="Name of the Secret.")
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
        description="Model id on the hub, as owner/name.",
    )
    revision: str = pydantic.Field(
        default="main",
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description="Branch, tag or commit of the model repository.",
    )
    served_name: str = pydantic.Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._/:-]*)?$",
        description="Model name that clients send. Empty: the model id.",
    )
    max_context_tokens: int | None = pydantic.Field(
        default=None, ge=256, le=10_000_000, description="Longest context in tokens. Absent: the longest that fits."
    )
    token_secret_ref: SecretKeyRef | None = pydantic.Field(
        default=None, description="Secret key that holds the hub token, for gated or private models."
    )


class EngineSpec(Model):
    """The vLLM engine."""

    image: str = pydantic.Field(
        default="", max_length=512, description="Engine image. Empty: the image pinned by the operator release."
    )
    gpu_memory_utilization_percent: int = pydantic.Field(
        default=92, ge=10, le=99, description="Share of the GPU memory that the engine may use, in percent."
    )
    extra_args: list[Annotated[str, pydantic.Field(min_length=1, max_length=1024)]] = pydantic.Field(
        default_factory=list, max_length=64, description="Further arguments of `vllm serve`."
    )
    resources: Resources = pydantic.Field(
        default_factory=lambda: Resources(), description="CPU and memory of the engine; GPUs come from spec.gpu."
    )


class Resources(Model):
    """CPU and memory requests and limits, as in a Pod."""

    requests: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Guaranteed amounts, keys cpu, memory and ephemeral-storage."
    )
    limits: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Upper bounds, keys cpu, memory and ephemeral-storage."
    )


class Toleration(Model):
    """A Pod toleration."""

    key: str = pydantic.Field(default="", max_length=316, description="Taint key. Empty with Exists: all taints.")
    operator: Literal["Equal", "Exists"] = pydantic.Field(default="Equal", description="How the value is compared.")
    value: str = pydantic.Field(default="", max_length=63, description="Taint value for Equal.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = pydantic.Field(
        default="", description="Taint effect. Empty: all effects."
    )


class GPUSpec(Model):
    """Which GPUs the engine gets."""

    count: int = pydantic.Field(default=1, ge=1, le=8, description="Number of GPUs; also the tensor parallel size.")
    plan: str = pydantic.Field(
        default="",
        max_length=63,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
        description="Linode plan of the GPU node (label node.kubernetes.io/instance-type). Empty: any GPU node.",
    )
    node_selector: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Further node labels that the engine requires."
    )
    tolerations: list[Toleration] = pydantic.Field(
        default_factory=list, max_length=16, description="Further tolerations; nvidia.com/gpu is always tolerated."
    )


class AllowlistEntry(Model):
    """One network that may use the sandbox from outside."""

    cidr: str = pydantic.Field(min_length=3, max_length=49, description="IPv4 or IPv6 network without host bits.")
    description: str = pydantic.Field(default="", max_length=100, description="Who this is.")
    to: list[Target] = pydantic.Field(
        default_factory=lambda: ["Chat", "API"], min_length=1, max_length=2, description="What it may use."
    )


class LabelSelectorRequirement(Model):
    """One requirement of a label selector."""

    key: str = pydantic.Field(min_length=1, max_length=316, description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = pydantic.Field(
        description="Relation of the key to the values."
    )
    values: list[Annotated[str, pydantic.Field(max_length=63)]] = pydantic.Field(
        default_factory=list, max_length=32, description="Values for In and NotIn."
    )


class LabelSelector(Model):
    """A label selector; empty selects everything."""

    match_labels: dict[str, str] = pydantic.Field(default_factory=dict, description="Labels that must be equal.")
    match_expressions: list[LabelSelectorRequirement] = pydantic.Field(
        default_factory=list, max_length=16, description="Requirements that must all hold."
    )


class InClusterPeer(Model):
    """Pods inside the cluster that may use the internal Service.

    Without namespaceSelector: pods of the sandbox's own namespace. Without podSelector: all pods of
    the selected namespaces.
    """

    namespace_selector: LabelSelector | None = pydantic.Field(
        default=None, description="Namespaces of the clients. Absent: the sandbox's own namespace."
    )
    pod_selector: LabelSelector | None = pydantic.Field(
        default=None, description="Pods of the clients. Absent: all pods of the namespaces."
    )
    to: list[Target] = pydantic.Field(
        default_factory=lambda: ["Chat", "API"], min_length=1, max_length=2, description="What they may use."
    )


class IssuerRef(Model):
    """A cert-manager issuer."""

    name: ObjectName = pydantic.Field(description="Name of the issuer.")
    kind: Literal["Issuer", "ClusterIssuer"] = pydantic.Field(default="Issuer", description="Kind of the issuer.")


class TLSSpec(Model):
    """How the gateway's listeners are encrypted."""

    mode: Literal["SelfSigned", "Secret", "CertManager", "Disabled"] = pydantic.Field(
        default="SelfSigned", description="Where the certificate comes from. Disabled sends everything in the clear."
    )
    secret_name: str = pydantic.Field(
        default="", max_length=253, description="Secret of type kubernetes.io/tls, for mode Secret."
    )
    issuer_ref: IssuerRef | None = pydantic.Field(default=None, description="Issuer, for mode CertManager.")


class APIKey(Model):
    """A named API key; its value is in the Secret <name>-api-keys."""

    name: Name = pydantic.Field(description="Name of the key: the key in the Secret and the name in the access log.")


class AccessSpec(Model):
    """Who may reach the sandbox, and how."""

    exposure: Literal["ClusterIP", "NodeBalancer"] = pydantic.Field(
        default="ClusterIP", description="NodeBalancer gives the sandbox a public address behind a Cloud Firewall."
    )
    allowlist: list[AllowlistEntry] = pydantic.Field(
        default_factory=list, max_length=1000, description="Networks that may use the sandbox. Empty: nobody."
    )
    in_cluster: list[InClusterPeer] = pydantic.Field(
        default_factory=list, max_length=32, description="Pods that may use the internal Service. Empty: nobody."
    )
    tls: TLSSpec = pydantic.Field(default_factory=TLSSpec, description="Encryption of chat and API.")
    hostnames: list[Annotated[str, pydantic.Field(min_length=1, max_length=253)]] = pydantic.Field(
        default_factory=list, max_length=16, description="Names in the certificate; the first is the chat's origin."
    )
    api_keys: list[APIKey] = pydantic.Field(
        default_factory=lambda: [APIKey(name="default")], max_length=64, description="Named API keys."
    )


class ChatAdmin(Model):
    """The first administrator of the chat."""

    email: str = pydantic.Field(
        default="admin@sandbox.local", min_length=3, max_length=254, description="Login of the administrator."
    )
    secret_name: str = pydantic.Field(
        default="", max_length=253, description="Secret with the key password. Empty: generated into <name>-chat-admin."
    )


class OIDCSpec(Model):
    """Single sign-on for the chat. Empty: local accounts."""

    provider_url: str = pydantic.Field(
        default="", alias="providerURL", max_length=512, description="Discovery URL of the provider (https)."
    )
    client_id: str = pydantic.Field(default="", alias="clientID", max_length=256, description="Client id.")
    client_secret_ref: SecretKeyRef | None = pydantic.Field(default=None, description="Client secret.")
    allowed_domains: list[Annotated[str, pydantic.Field(min_length=1, max_length=253)]] = pydantic.Field(
        default_factory=list, max_length=16, description="E-mail domains that may log in. Empty: all of the provider."
    )
    roles: OIDCRoles | None = pydantic.Field(default=None, description="Roles taken from a claim.")


class OIDCRoles(Model):
    """Mapping of a claim's values to roles of the chat."""

    claim: str = pydantic.Field(default="roles", min_length=1, max_length=128, description="Claim with the roles.")
    allowed: list[Annotated[str, pydantic.Field(min_length=1, max_length=128)]] = pydantic.Field(
        default_factory=list, max_length=16, description="Values that may log in."
    )
    admin: list[Annotated[str, pydantic.Field(min_length=1, max_length=128)]] = pydantic.Field(
        default_factory=list, max_length=16, description="Values that become administrators."
    )


class ChatStorage(Model):
    """The volume with users and chats."""

    size: str = pydantic.Field(default="10Gi", max_length=32, description="Size; Linode's minimum is 10Gi.")


class ChatSpec(Model):
    """The chat UI (Open WebUI)."""

    enabled: bool = pydantic.Field(default=True, description="Whether the chat UI runs.")
    image: str = pydantic.Field(
        default="", max_length=512, description="Chat image. Empty: the image pinned by the operator release."
    )
    admin: ChatAdmin = pydantic.Field(default_factory=ChatAdmin, description="The first administrator.")
    oidc: OIDCSpec = pydantic.Field(default_factory=OIDCSpec, description="Single sign-on.")
    storage: ChatStorage = pydantic.Field(default_factory=ChatStorage, description="Volume of the chat.")


class RetainSpec(Model):
    """Which volumes outlive the sandbox."""

    model_cache: bool = pydantic.Field(default=False, description="Keep the model cache when the sandbox is deleted.")
    chat: bool = pydantic.Field(default=True, description="Keep users and chats when the sandbox is deleted.")


class StorageSpec(Model):
    """Volumes."""

    class_name: str = pydantic.Field(
        default="", max_length=253, description="StorageClass. Empty: linode-block-storage, or the operator's setting."
    )
    model_cache_size: str = pydantic.Field(
        default="", max_length=32, description="Size of the model cache. Empty: from the model's size."
    )
    retain: RetainSpec = pydantic.Field(default_factory=RetainSpec, description="What outlives the sandbox.")


class LifecycleSpec(Model):
    """Whether the sandbox runs."""

    state: Literal["Running", "Suspended"] = pydantic.Field(
        default="Running", description="Suspended frees the GPU and keeps data, address and firewall."
    )


class AISandboxSpec(Model):
    """Wanted state of a sandbox. Every field is optional."""

    model: ModelSpec = pydantic.Field(default_factory=ModelSpec, description="The model.")
    engine: EngineSpec = pydantic.Field(default_factory=EngineSpec, description="The engine.")
    gpu: GPUSpec = pydantic.Field(default_factory=GPUSpec, description="The GPUs.")
    access: AccessSpec = pydantic.Field(default_factory=AccessSpec, description="Who may reach the sandbox.")
    chat: ChatSpec = pydantic.Field(default_factory=ChatSpec, description="The chat UI.")
    storage: StorageSpec = pydantic.Field(default_factory=StorageSpec, description="Volumes.")
    lifecycle: LifecycleSpec = pydantic.Field(default_factory=LifecycleSpec, description="Running or suspended.")


class Condition(Model):
    """metav1.Condition."""

    type: str = pydantic.Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = pydantic.Field(description="Status of the condition.")
    observed_generation: int = pydantic.Field(default=0, ge=0, description="Generation that was judged.")
    last_transition_time: str = pydantic.Field(description="When the status last changed.")
    reason: str = pydantic.Field(min_length=1, max_length=1024, description="Machine-readable reason.")
    message: str = pydantic.Field(max_length=32768, description="What it means and what to do.")


class ModelStatus(Model):
    """Progress of the model."""

    revision: str | None = pydantic.Field(default=None, max_length=64, description="Commit that is served.")
    size_bytes: int | None = pydantic.Field(default=None, ge=0, description="Bytes of the files that are loaded.")
    downloaded_bytes: int | None = pydantic.Field(default=None, ge=0, description="Bytes downloaded so far.")
    eta_seconds: int | None = pydantic.Field(default=None, ge=0, description="Expected seconds until cached.")
    max_context_tokens: int | None = pydantic.Field(default=None, ge=0, description="Effective context length.")


class EndpointsStatus(Model):
    """Where the sandbox is reached."""

    chat: str | None = pydantic.Field(default=None, max_length=512, description="URL of the chat UI.")
    api: str | None = pydantic.Field(default=None, max_length=512, description="Base URL of the API.")
    ca_secret_name: str | None = pydantic.Field(
        default=None, max_length=253, description="Secret whose ca.crt clients must trust."
    )


class LinodeStatus(Model):
    """Linode objects of the sandbox."""

    firewall_id: int | None = pydantic.Field(default=None, alias="firewallID", description="Cloud Firewall.")
    node_balancer_id: int | None = pydantic.Field(default=None, alias="nodeBalancerID", description="NodeBalancer.")
    firewall_version: int | None = pydantic.Field(default=None, description="Version of the firewall's rules.")


class AppliedStatus(Model):
    """What each layer last proved to hold."""

    access_hash: str | None = pydantic.Field(default=None, max_length=64, description="Allowlist revision in force.")
    engine_hash: str | None = pydantic.Field(default=None, max_length=64, description="Engine template in force.")


class AISandboxStatus(Model):
    """Observed state, written by the operator only."""

    observed_generation: int = pydantic.Field(default=-1, description="Generation that was last judged.")
    conditions: list[Condition] = pydantic.Field(default_factory=list, max_length=32, description="Conditions.")
    model: ModelStatus | None = pydantic.Field(default=None, description="The model.")
    endpoints: EndpointsStatus | None = pydantic.Field(default=None, description="The endpoints.")
    linode: LinodeStatus | None = pydantic.Field(default=None, description="Linode objects.")
    applied: AppliedStatus | None = pydantic.Field(default=None, description="What is in force.")


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
