"""What pods do: rules that a test changes while the pods run.

A rule selects pods and says how they behave; the last matching rule wins, so a narrow rule after a wide
one is an exception to it, and removing it brings back what was before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lab.engine.script import Script

Kind = Literal["normal", "slow", "crash", "oom", "image-pull", "never-ready", "fail"]
Status = Literal["frozen", "unreachable", "error"]
Fetch = Literal["real"]
#: Kinds that end the container.
ENDING = frozenset({"crash", "oom", "fail"})

_LABEL_COMPONENT = "app.kubernetes.io/component"
_LABEL_SANDBOX = "sandbox.linode.com/name"
#: Time to ready of a slow pod that says nothing else.
_SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Behaviour:
    """How a pod behaves.

    Attributes:
        kind: `normal` and `slow` become ready, or end with success when they run to completion; `crash`,
            `oom` and `fail` end with a failure and are restarted as the pod's restart policy says;
            `image-pull` never gets its image; `never-ready` runs without becoming ready.
        seconds: time from the container's start until that (ready, success, failure); None: the default.
        exit_code: of a failure; None: 137 for `oom`, else 1.
        message: termination message, or the pull error's text; None: what is usual.
        log: the log of the container that runs or ran last; None: what is usual.
        previous_log: the log of the container before; None: as `log`.
        status: of a gateway: `frozen` gets no changed Secret and serves what it served before; its
            status port is `unreachable`, or answers 503 (`error`).
        status_seconds: time that the status port takes to answer.
        fetch: of a fetch pod whose container starts: `real` runs the operator's own program.
        engine: of an engine pod that is `normal` or `slow`: its model, its pace, its failure; None: healthy.
    """

    kind: Kind = "normal"
    seconds: float | None = None
    exit_code: int | None = None
    message: str | None = None
    log: str | None = None
    previous_log: str | None = None
    status: Status | None = None
    status_seconds: float | None = None
    fetch: Fetch | None = None
    engine: Script | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown kind {self.kind!r}; known are {', '.join(get_args(Kind))}")
        if self.status is not None and self.status not in get_args(Status):
            raise ValueError(f"unknown status {self.status!r}; known are {', '.join(get_args(Status))}")
        if self.fetch is not None and self.fetch not in get_args(Fetch):
            raise ValueError(f"unknown fetch {self.fetch!r}; known are {', '.join(get_args(Fetch))}")
        if isinstance(self.engine, Mapping):
            # As it comes over HTTP.
            object.__setattr__(self, "engine", Script.parse(self.engine))

    @property
    def ends(self) -> bool:
        """Whether the container ends with a failure."""
        return self.kind in ENDING

    def duration(self, default: float) -> float:
        """Seconds from the container's start until it is ready or ends."""
        if self.seconds is not None:
            return self.seconds
        return _SLOW_SECONDS if self.kind == "slow" else default


NORMAL = Behaviour()


@dataclass(frozen=True)
class Selector:
    """Which pods; what is None does not matter.

    Attributes:
        runs: the image, or one of the arguments, of a container.
    """

    component: str | None = None
    namespace: str | None = None
    sandbox: str | None = None
    prefix: str | None = None
    runs: str | None = None

    def matches(self, pod: Mapping[str, Any]) -> bool:
        meta = pod["metadata"]
        labels = meta.get("labels") or {}
        return (
            self.component in (None, labels.get(_LABEL_COMPONENT))
            and self.namespace in (None, meta["namespace"])
            and self.sandbox in (None, labels.get(_LABEL_SANDBOX))
            and (self.prefix is None or meta["name"].startswith(self.prefix))
            and (self.runs is None or any(self.runs in _runs(one) for one in pod["spec"]["containers"]))
        )


def _runs(container: Mapping[str, Any]) -> tuple[str, ...]:
    return container.get("image", ""), *(container.get("args") or ())


@dataclass(frozen=True)
class Rule:
    """One rule, as `Behaviours.add` made it."""

    id: int
    selector: Selector
    behaviour: Behaviour

    def to_json(self) -> dict[str, Any]:
        """One flat object without what was not said."""
        flat = {"id": self.id, **asdict(self.selector), **asdict(self.behaviour)}
        return {key: value for key, value in flat.items() if value is not None}


class Behaviours:
    """The rules in force, in order."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._last_id = 0
        self._listeners: list[Callable[[], None]] = []

    def add(self, behaviour: Behaviour, selector: Selector = Selector()) -> int:
        """Add a rule after the others; its id."""
        self._last_id += 1
        self._rules.append(Rule(self._last_id, selector, behaviour))
        self._tell()
        return self._last_id

    def remove(self, ident: int) -> bool:
        """Remove one rule; whether it was there."""
        before = len(self._rules)
        self._rules = [rule for rule in self._rules if rule.id != ident]
        if len(self._rules) == before:
            return False
        self._tell()
        return True

    def clear(self) -> None:
        """Everything is normal again."""
        self._rules.clear()
        self._tell()

    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules)

    def of(self, pod: Mapping[str, Any]) -> Behaviour:
        """The behaviour of a pod: that of the last rule that matches."""
        for rule in reversed(self._rules):
            if rule.selector.matches(pod):
                return rule.behaviour
        return NORMAL

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def parse(body: Mapping[str, Any]) -> tuple[Behaviour, Selector]:
    """A rule from the flat object that `Rule.to_json` writes.

    Raises:
        ValueError: a field is unknown or wrong.
    """
    selector_fields = Selector.__dataclass_fields__.keys()
    behaviour_fields = Behaviour.__dataclass_fields__.keys()
    if unknown := body.keys() - selector_fields - behaviour_fields - {"id"}:
        raise ValueError(f"unknown fields of a behaviour: {', '.join(sorted(unknown))}")
    selector = Selector(**{key: body[key] for key in body.keys() & selector_fields})
    return Behaviour(**{key: body[key] for key in body.keys() & behaviour_fields}), selector
