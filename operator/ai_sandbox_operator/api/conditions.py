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

    Positive polarity: True is good, except for Reconciling and Stalled, which kstatus defines, and
    UpdateAvailable, which informs and is absent where there is nothing to tell.
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
    UPDATE_AVAILABLE = "UpdateAvailable"


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
        "Deletion waits for Linode objects to go, or for pods to end.",
        "Read the message. To leave behind what it names, annotate the sandbox with "
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
    AuthorityUnusable = Doc(
        "A certificate is due, and the sandbox's own authority cannot sign it.",
        "Put ca.crt and ca.key back into the Secret that the message names (docs/backup.md), or delete that Secret: "
        "another authority is made, which clients must trust anew.",
    )
    KeyUnusable = Doc(
        "A value in the Secret of the API keys cannot be a key, so it admits nobody.",
        "Use 16 to 512 characters of A-Z, a-z, 0-9 and _.~+/=- per key, or remove the entry to have one made.",
    )
    PasswordUnusable = Doc(
        "The password in the Secret that the spec names cannot be the chat administrator's.",
        "Use a password of at most 72 bytes, which is all that the chat's hash reads.",
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
    OperatorFault = Doc(
        "The operator met an error that it does not expect, so it could not bring the sandbox to its spec.",
        "Report the error in the operator's log; it tries again. Until then, take back what was changed last in the "
        "spec or in a Secret of the sandbox.",
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
    Resolving = Doc("The model is being looked up on the hub.", "Wait.")
    Cached = Doc("The model is complete in the cache.", "Nothing to do.")
    Fetching = Doc("The model is being downloaded.", "Wait.")
    FetchFailed = Doc(
        "The download of the model failed.", "Read the message; correct the model or the token."
    )
    ModelNotFound = Doc(
        "The hub has no such model, or hides it from this token.",
        "Correct spec.model.id; for a private model set spec.model.tokenSecretRef.",
    )
    RevisionNotFound = Doc("The model has no such revision.", "Correct spec.model.revision.")
    ModelGatedNoToken = Doc(
        "The model is gated and the sandbox has no token of the hub.",
        "Accept the model's terms on its page and set spec.model.tokenSecretRef to a token of that account.",
    )
    ModelGatedNotGranted = Doc(
        "The model is gated and the token's account has no access to it.",
        "Ask for access on the model's page with the token's account, and let the token read gated repositories.",
    )
    HubTokenInvalid = Doc(
        "The hub does not know the token.", "Replace the token that spec.model.tokenSecretRef names."
    )
    HubUnreachable = Doc(
        "The hub does not answer, or limits the rate.",
        "Wait; the download is tried again. If it stays, check the cluster's way to the hub.",
    )
    DownloadDamaged = Doc(
        "A file did not arrive as the hub describes it.", "Wait; the file is downloaded again."
    )
    DownloadStalled = Doc(
        "The download came to a standstill.", "Wait; it is tried again and keeps complete files."
    )
    DiskFull = Doc(
        "A disk is full.",
        "Raise spec.storage.modelCacheSize; if it was the engine's own disk, use a plan with a larger one.",
    )
    NoWeights = Doc(
        "The model has no weights that the engine loads.",
        "Choose a model with weights in safetensors format.",
    )
    VolumePending = Doc(
        "A volume is not there yet.", "Wait; if it stays, read the events of the PersistentVolumeClaim."
    )
    VolumeProvisioningFailed = Doc(
        "The storage system refuses to make the volume.",
        "Read the message; correct spec.storage.className or the size, or raise the account's limit at Linode.",
    )
    StorageClassNotFound = Doc(
        "The cluster has no such storage class.",
        "Correct spec.storage.className (`kubectl get storageclass`).",
    )
    VolumeAttachFailed = Doc(
        "The volume cannot be attached to the pod's node.",
        "Wait some minutes while another node lets go of it; if that node is dead, delete the node.",
    )
    VolumeLimitReached = Doc(
        "The node cannot take another volume.", "Use a plan with more memory, or add a node."
    )
    VolumeNodeConflict = Doc(
        "The volume is in another region or on another node than the nodes that could run the pod.",
        "Add a node where the volume is, or delete the PersistentVolumeClaim to start with an empty volume.",
    )
    VolumeMountFailed = Doc(
        "The node cannot mount a volume of the pod.", "Read the message, which is the node's own."
    )
    # EngineReady, ChatReady
    EngineServing = Doc("The engine answers.", "Nothing to do.")
    EngineUnproven = Doc(
        "The engine's pod is ready, but it does not answer as it should.",
        "Read the message. The operator's pods must reach port 8000 of the engine's pod; an operator outside the "
        "cluster needs --pod-proxy.",
    )
    ChatServing = Doc("The chat answers.", "Nothing to do.")
    ChatDisabled = Doc("The chat is switched off by the spec.", "Nothing to do.")
    WaitingForModel = Doc("The engine starts once the model is cached.", "Wait.")
    Starting = Doc("Pods are starting.", "Wait.")
    Unschedulable = Doc("No node can run the pod.", "Read the scheduler's words in the message.")
    NoGPUNode = Doc(
        "No node has as many GPUs as the sandbox asks for.",
        "Add a node pool of a GPU plan, or lower spec.gpu.count.",
    )
    GPUsInUse = Doc(
        "No node has as many free GPUs as the sandbox asks for.",
        "Add a node to the GPU pool, or free a GPU: suspend another sandbox (spec.lifecycle.state: Suspended).",
    )
    NoMatchingNode = Doc(
        "No node is of the plan or has the labels that the sandbox asks for.",
        "Add a node pool of the plan in spec.gpu.plan, or correct spec.gpu.plan and spec.gpu.nodeSelector.",
    )
    InsufficientResources = Doc(
        "No node has enough free CPU or memory.",
        "Lower spec.engine.resources, use a larger spec.gpu.plan, or add a node.",
    )
    TaintNotTolerated = Doc(
        "The nodes that could run the pod have a taint.",
        "See `kubectl describe nodes`: add the taint to spec.gpu.tolerations, remove it, or repair a node that is "
        "not ready.",
    )
    NodeUnavailable = Doc(
        "The nodes that could run the pod are cordoned or not ready.",
        "Uncordon the node (`kubectl uncordon`), or recycle it.",
    )
    ImagePullFailed = Doc(
        "A node cannot pull the image.", "Correct the image, or give the nodes access to it."
    )
    ImageNotFound = Doc("The registry has no such image.", "Correct the image's name, tag or digest.")
    ImagePullUnauthorized = Doc(
        "The registry does not give the image to the nodes.",
        "Correct the image, use one that needs no login, or give the pull Secret to the ServiceAccount `default` of "
        "the sandbox's namespace (docs/install.md, Image).",
    )
    ImagePullRateLimited = Doc(
        "The registry limits how often images are pulled.", "Wait, or use a mirror of the registry."
    )
    RegistryUnreachable = Doc(
        "The node does not reach the registry.", "Check the registry's name and the nodes' way to it."
    )
    ImageUnusable = Doc(
        "The image does not run on the node: another processor architecture, or no program in it.",
        "Use an image for the nodes' architecture.",
    )
    ContainerStartFailed = Doc(
        "The container runtime cannot start the container.",
        "Read the message, which is the runtime's own; recycle the node if it is at fault.",
    )
    CrashLoop = Doc("A container ends again and again.", "Read the message and the container's log.")
    ContainerKilled = Doc(
        "A container was killed: by the node, or because it no longer answered.",
        "Look at the events of the pod and at the node's memory.",
    )
    OutOfMemory = Doc(
        "A container was ended because it used more memory than allowed.", "Raise its memory limit."
    )
    NodeMemoryPressure = Doc(
        "The node ran out of memory and evicted the pod.",
        "Use a plan with more memory, or keep other pods off the node.",
    )
    NodeDiskPressure = Doc(
        "The node ran out of disk and evicted the pod.",
        "Use a plan with a larger disk, or keep other pods off the node.",
    )
    EphemeralStorageExceeded = Doc(
        "The pod wrote more to the node's disk than it may, and was evicted.",
        "Read the message; remove what makes the container write so much.",
    )
    Evicted = Doc("The pod was evicted from its node.", "Read the message; another pod takes its place.")
    NodeShutdown = Doc("The pod's node was shut down.", "Wait; another pod takes its place.")
    StartStalled = Doc(
        "The engine is starting and has printed nothing for long.",
        "Wait for the end of its startup budget; if it happens again, delete the pod or use another node.",
    )
    StartTimeout = Doc(
        "The engine was not up within its startup budget.",
        "Wait for the next attempt, which finds files in memory; if it stays, use a smaller model or a larger plan.",
    )
    InvalidEngineArguments = Doc(
        "The engine refuses its arguments.",
        "Correct spec.engine.extraArgs; with an own spec.engine.image use a release that knows them.",
    )
    ModelUnsupported = Doc(
        "The engine cannot run a model of this architecture.",
        "Choose another model, or set spec.engine.image to a vLLM release that supports it.",
    )
    RemoteCodeRequired = Doc(
        "The model brings its own program code, which the engine does not run.",
        "Choose another model, or, if you trust its authors, add --trust-remote-code to spec.engine.extraArgs.",
    )
    ModelFilesMissing = Doc(
        "The engine looked for a file that is not in the cache; it has no way to the internet.",
        "Remove names of other repositories from spec.engine.extraArgs; else download anew, see "
        "docs/troubleshooting.md.",
    )
    ModelFilesDamaged = Doc(
        "A file of the model in the cache cannot be read.", "Download anew, see docs/troubleshooting.md."
    )
    ContextTooLong = Doc(
        "The context asked for is longer than the model supports.",
        "Lower spec.model.maxContextTokens, or leave it out.",
    )
    KVCacheTooSmall = Doc(
        "The context asked for does not fit into the GPU's memory beside the model.",
        "Lower spec.model.maxContextTokens or leave it out, or use GPUs with more memory.",
    )
    ModelTooLarge = Doc(
        "The model does not fit into the GPU's memory.",
        "Use a larger spec.gpu.plan, more spec.gpu.count, or a smaller or quantised model.",
    )
    GPUBusy = Doc(
        "Somebody else holds memory of the GPU.",
        "Wait; if it stays, free the GPU, recycle the node, or lower spec.engine.gpuMemoryUtilizationPercent.",
    )
    GPUCountUnsupported = Doc(
        "The model cannot be split over this number of GPUs.",
        "Set spec.gpu.count to a number that divides the model's attention heads.",
    )
    GPUTooOld = Doc(
        "The GPU lacks what the model's number format or the engine needs.",
        "Choose a newer GPU with spec.gpu.plan, or another build of the model.",
    )
    DriverTooOld = Doc(
        "The node's NVIDIA driver is older than the engine needs.",
        "Recycle the node to get a newer driver, or set spec.engine.image to an older release.",
    )
    GPUNotFound = Doc(
        "The engine finds no GPU on the node.",
        "Check the NVIDIA device plugin on the node; recycle the node.",
    )
    EngineCrashed = Doc(
        "The engine served and then ended by itself.",
        "Wait; it starts again. If it repeats, report it with the engine's log.",
    )
    EngineSetupFault = Doc(
        "The engine lacks shared memory, a writable directory, or a clean environment.",
        "Take away an own spec.engine.image; else report it with the engine's log: it is a fault of the operator.",
    )
    NotReady = Doc("Pods run but are not ready.", "Read the container's log.")
    # EngineReady and UpdateAvailable, from updates of the engine
    RolledBack = Doc(
        "The last change of the engine failed; the engine before it was brought back.",
        "Correct the spec, or annotate the sandbox with sandbox.linode.com/retry-engine-update=<a new value> to "
        "try the same change again.",
    )
    OldPodStuck = Doc(
        "The engine's old pod does not end, and its GPU and volume are not free for the new one.",
        "Look at its node. If the node is dead, delete it at Linode (`kubectl delete node`); the new pod then starts.",
    )
    EngineUpdateAvailable = Doc(
        "This release of the operator would run the engine differently; the running one is left alone.",
        "Annotate the sandbox with sandbox.linode.com/update-engine=<a new value> to take it over; the engine "
        "restarts.",
    )
    EngineUpdateFailed = Doc(
        "The engine of this release was tried and failed; the engine before it was brought back.",
        "Read the cause. Annotate the sandbox with sandbox.linode.com/update-engine=<a new value> to try it again.",
    )
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
