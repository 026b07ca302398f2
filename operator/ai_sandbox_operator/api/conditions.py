"""Condition types and the one enum of reasons.

Every reason carries its meaning and its remedy here; conditions, events, metrics and the
troubleshooting page are made from this table, and a test fails on a reason without them.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Literal

Status = Literal["True", "False", "Unknown"]


class ConditionType(enum.StrEnum):
    """Conditions of an AISandbox, in the order in which they are stored.

    Positive polarity: True is good, except for Reconciling and Stalled, which kstatus defines.
    """

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SPEC_VALID = "SpecValid"
    NETWORK_PROTECTED = "NetworkProtected"
    MODEL_CACHED = "ModelCached"
    ENGINE_READY = "EngineReady"
    CHAT_READY = "ChatReady"
    EXPOSED = "Exposed"


@dataclasses.dataclass(frozen=True)
class Doc:
    """What a reason means and what to do about it."""

    meaning: str
    remedy: str


@enum.unique
class Reason(enum.Enum):
    """Reasons of conditions and events; the value is the documentation."""

    # Ready, Reconciling, Stalled
    AllReady = Doc("Every part of the sandbox is ready for the current spec.", "Nothing to do.")
    Progressing = Doc("The operator is working towards the spec.", "Wait; the other conditions say on what.")
    Settled = Doc("The sandbox is as its spec says; nothing is under way.", "Nothing to do.")
    NotStalled = Doc("Nothing needs a person.", "Nothing to do.")
    Suspended = Doc(
        "The sandbox is suspended: the GPU is free; data, address and firewall are kept.",
        "Set spec.lifecycle.state to Running to resume.",
    )
    Deleting = Doc("The sandbox is being deleted.", "Wait.")
    DeletionBlocked = Doc(
        "Deletion waits for Linode objects to go.",
        "Read the message. To leave the Linode objects behind, annotate the sandbox with "
        "sandbox.linode.com/abandon-linode-objects=true.",
    )
    # SpecValid
    Valid = Doc("The spec is valid.", "Nothing to do.")
    InvalidSpec = Doc(
        "The spec breaks a rule that admission could not check or that an older CRD let pass.",
        "Correct the field that the message names.",
    )
    CertManagerMissing = Doc(
        "The certificate is to come from cert-manager, which the cluster does not have.",
        "Install cert-manager, which is noticed within a minute, or choose another spec.access.tls.mode.",
    )
    CertificatePending = Doc(
        "cert-manager has not issued the certificate.",
        "Wait; if it stays, read `kubectl describe certificate` and check spec.access.tls.issuerRef.",
    )
    CertificateUnusable = Doc(
        "The certificate in the Secret that the spec names cannot be used.",
        "Put a valid pair of tls.crt and tls.key into the Secret that the message names.",
    )
    KeyUnusable = Doc(
        "A value in the Secret of the API keys cannot be a key, so it admits nobody.",
        "Use 16 to 512 characters of A-Z, a-z, 0-9 and _.~+/=- per key, or remove the entry to have one made.",
    )
    SecretNotFound = Doc(
        "A Secret that the spec refers to does not exist.", "Create the Secret that the message names."
    )
    SecretKeyMissing = Doc(
        "A Secret that the spec refers to lacks a key.", "Add the key that the message names to the Secret."
    )
    NameTaken = Doc(
        "An object that the sandbox needs has the name of one that it does not own.",
        "Rename or delete the object that the message names, or rename the sandbox.",
    )
    WriteRefused = Doc(
        "The API server refused an object of the sandbox: quota, an admission policy or missing rights.",
        "Read the message; it is the API server's own.",
    )
    # NetworkProtected
    Protected = Doc("Every layer was observed to hold the current allowlist.", "Nothing to do.")
    ProtectionPending = Doc(
        "A layer does not hold the current allowlist yet; what it held before is not wider.", "Wait."
    )
    GatewayUnproven = Doc(
        "A gateway pod does not tell which allowlist and keys it serves.",
        "Let the operator's pods reach port 9902 of the gateway's pods; an operator outside the cluster "
        "needs --pod-proxy.",
    )
    NoLinodeToken = Doc(
        "The operator has no Linode API token, so it cannot make a firewall and exposes nothing.",
        "Give the operator a token with firewall:read_write and nodebalancers:read_write, or use "
        "exposure ClusterIP.",
    )
    LinodeUnavailable = Doc(
        "Linode's API does not answer or refuses.", "Read the message; the operator keeps trying."
    )
    ForeignFirewall = Doc(
        "A Cloud Firewall with the sandbox's label exists but is not the sandbox's.",
        "Rename or delete the firewall that the message names.",
    )
    TooManyNetworks = Doc(
        "The allowlist does not fit into a Cloud Firewall (25 rules of 255 networks).",
        "Use fewer or larger networks.",
    )
    NotAttached = Doc(
        "The NodeBalancer was observed without the sandbox's firewall.", "Wait; the operator attaches it."
    )
    # ModelCached
    Cached = Doc("The model is complete in the cache.", "Nothing to do.")
    Fetching = Doc("The model is being downloaded.", "Wait.")
    FetchFailed = Doc(
        "The download of the model failed.", "Read the message; correct the model or the token."
    )
    VolumePending = Doc(
        "A volume is not there yet.", "Wait; if it stays, read the events of the PersistentVolumeClaim."
    )
    # EngineReady, ChatReady
    EngineServing = Doc("The engine answers.", "Nothing to do.")
    ChatServing = Doc("The chat answers.", "Nothing to do.")
    ChatDisabled = Doc("The chat is switched off by the spec.", "Nothing to do.")
    WaitingForModel = Doc("The engine starts once the model is cached.", "Wait.")
    Starting = Doc("Pods are starting.", "Wait.")
    Unschedulable = Doc(
        "No node can run the pod.",
        "Add a node of the plan that the message names, or free a GPU.",
    )
    ImagePullFailed = Doc(
        "A node cannot pull the image.", "Correct the image, or give the nodes access to it."
    )
    CrashLoop = Doc("A container ends again and again.", "Read the message and the container's log.")
    OutOfMemory = Doc(
        "A container was ended because it used more memory than allowed.", "Raise its memory limit."
    )
    NotReady = Doc("Pods run but are not ready.", "Read the container's log.")
    # Exposed
    AddressAssigned = Doc("The NodeBalancer has an address.", "Nothing to do.")
    AddressPending = Doc("The NodeBalancer has no address yet.", "Wait.")
    NotExposed = Doc("The spec asks for no public address.", "Nothing to do.")
    ExposureHeldBack = Doc(
        "The sandbox is not exposed, because its protection is not proven.", "See NetworkProtected."
    )

    @property
    def doc(self) -> Doc:
        value: Doc = self.value
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement behind one condition."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str
