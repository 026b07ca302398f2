"""What conditions are judged from: everything that a pass has observed. Data only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired.facts import Stage
from ai_sandbox_operator.observed import diagnosis, seen

from . import engine_update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in the way that a person may have to remove."""

    reason: Reason
    message: str
    stalled: bool = False
    """No retry can help until somebody acts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinodeView:
    """What is known of the sandbox's Linode objects.

    Attributes:
        current: the firewall was observed with exactly the rules of the current allowlist.
        attached: the NodeBalancer was observed with that firewall attached.
        problem: why not, if not.
        unseen: this process has not looked at Linode yet; what was observed before it started stands.
    """

    firewall_id: int | None = None
    firewall_version: int | None = None
    nodebalancer_id: int | None = None
    current: bool = False
    attached: bool = False
    problem: Problem | None = None
    unseen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatewayProof:
    """What is known of the allowlist and keys that the gateway's pods serve.

    Attributes:
        proven: every ready pod was observed to serve what its Secret holds.
        reason, message: why not, if not.
        unseen: this process has not asked yet; what was observed before it started stands.
    """

    proven: bool = False
    reason: Reason = Reason.ProtectionPending
    message: str = "the gateway is not there yet"
    unseen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineProof:
    """What is known of an engine whose pod is ready.

    Attributes:
        proven: it lists the model and answered a request.
        max_context_tokens: context length that it found room for; None if it does not say.
        unseen: this process has not asked yet; what was observed before it started stands.
    """

    proven: bool = False
    reason: Reason = Reason.Starting
    message: str = ""
    max_context_tokens: int | None = None
    unseen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelView:
    """What is known of the model that the spec names.

    Attributes:
        commit: what id and revision mean; empty while that is not known.
        size_bytes: of the files that are fetched.
        pending: the hub is being asked.
        failure: what the hub refuses, while the commit is not known.
        problem: why the engine must not be started with it.
        notice: what a person should know although it is started.
        hold: components that must stay as they are.
        again: seconds until the hub may be asked once more.
    """

    commit: str = ""
    size_bytes: int | None = None
    pending: bool = False
    failure: Problem | None = None
    problem: Problem | None = None
    notice: str = ""
    hold: frozenset[str] = frozenset()
    again: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a download is."""

    downloaded_bytes: int
    total_bytes: int
    eta_seconds: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that conditions are judged from.

    Attributes:
        pending: stages of which an object is not as wanted, as observed.
        problems: what is wrong with the spec, its Secrets or the writes.
        findings: causes by component, for components that are not ready.
        children: the sandbox's own; never those of an earlier sandbox of the same name.
        releasing: an earlier exposure is not yet known to be gone.
        engine_wanted: the engine as this release renders it; None if it was not rendered.
    """

    sandbox: v1alpha1.AISandbox
    children: Mapping[tuple[str, str], seen.Seen]
    engine_inputs: str
    fetch_job: str
    pending: frozenset[Stage] = frozenset()
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()
    linode: LinodeView = LinodeView()
    gateway: GatewayProof = GatewayProof()
    model: ModelView = ModelView()
    engine: EngineProof = EngineProof()
    progress: Progress | None = None
    releasing: bool = False
    findings: Mapping[str, diagnosis.Finding] = dataclasses.field(default_factory=dict)
    engine_wanted: engine_update.Wanted | None = None

    @property
    def name(self) -> str:
        return self.sandbox.metadata.name

    @property
    def public(self) -> bool:
        return self.sandbox.spec.access.exposure == "NodeBalancer"

    @property
    def suspended(self) -> bool:
        return self.sandbox.spec.lifecycle.state == "Suspended"
