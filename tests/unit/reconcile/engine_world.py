"""A Deployment of the engine with a controller and a kubelet, small enough to be driven through any sequence.

The operator's half is real: what it renders, keeps of an object, plans and tells. The API server is a
dictionary, and whether an engine comes up is decided by what its image and arguments say of themselves.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import engine, facts
from ai_sandbox_operator.observed import diagnosis, seen
from ai_sandbox_operator.reconcile import engine_state, engine_trial, engine_update, plan
from unit.desired import samples
from unit.observed.live import live

Json = Any
#: Passes within which everything is over; each event needs four at the most.
ENOUGH = 40


@dataclasses.dataclass
class World:
    """One sandbox's engine.

    Attributes:
        spec: what the user wants.
        image: of the release that runs.
        update, retry: the user's words.
        body: the Deployment; None before it was made.
        templates: every template that was written, in order, each with the last good one of that moment.
        told: EngineReady as it was last told, for which spec.
        trial: what this process knows of the pods.
    """

    spec: dict[str, Json] = dataclasses.field(default_factory=dict)
    image: str = "release:1"
    update: str = ""
    retry: str = ""
    body: dict[str, Json] | None = None
    templates: list[tuple[Json, Json]] = dataclasses.field(default_factory=list)
    served: list[Json] = dataclasses.field(default_factory=list)
    told: tuple[str, str] = ("", "")
    trial: engine_trial.Trial | None = None
    writes: int = 0

    # -- the operator --------------------------------------------------------------------------------------

    @property
    def child(self) -> facts.Child:
        known = dataclasses.replace(samples.FACTS, release=facts.Release(engine_image=self.image))
        return next(c for c in engine.render(self.sandbox, known) if c.kind == "Deployment")

    @property
    def sandbox(self) -> v1alpha1.AISandbox:
        return samples.sandbox(self.spec)

    @property
    def want(self) -> engine_update.Wanted:
        return engine_update.wanted(self.child.manifest)

    @property
    def record(self) -> seen.Seen:
        assert self.body is not None
        return seen.observe("Deployment", self.body)

    def step(self) -> plan.Step | None:
        """What a pass would write now."""
        ask = engine_update.Ask(
            serving=self.told == ("True", self.want.inputs),
            update=self.update,
            retry=self.retry,
            trial=self.trial,
            now=datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC),
        )
        context = plan.Context(uid=samples.UID, model_cached=True, ask=ask)
        observed = {} if self.body is None else {("Deployment", "demo-engine"): self.record}
        found = plan.plan([self.child], observed, context)
        return found.steps[0] if found.steps else None

    def act(self) -> bool:
        """The operator's next write; whether there was one. It may be killed right after it."""
        match self.step():
            case None:
                return False
            case plan.Create(child=child):
                self.body = live(child.manifest)
                self.body["status"] = {"observedGeneration": 0}
                self._note()
            case plan.Apply(manifest=manifest):
                self._apply(manifest)
            case plan.Merge(patch=patch):
                self._merge(patch)
            case other:
                raise AssertionError(other)
        self.writes += 1
        return True

    def tell(self) -> None:
        """The end of a pass: what is known of the pods, and EngineReady."""
        record, want = self.record, self.want
        ready = seen.rolled_out(record) and record.facts["engine_inputs"] == want.inputs
        self.told = (str(ready), want.inputs)
        if ready:
            self.served.append(copy.deepcopy(self.template))
        self.trial = None
        if not seen.rolled_out(record) and self.body is not None and self.body["status"].get("pod"):
            finding = diagnosis.Finding(Reason.CrashLoop, "it says bad", permanent=True)
            self.trial = engine_trial.observe([self.body["status"]["pod"]], record, finding)

    # -- the cluster ---------------------------------------------------------------------------------------

    @property
    def template(self) -> Json:
        assert self.body is not None
        return self.body["spec"]["template"]

    def run(self) -> None:
        """The controller and the kubelet: the old pod ends, the new one comes up or fails."""
        assert self.body is not None
        container = self.template["spec"]["containers"][0]
        good = "bad" not in " ".join([container["image"], *container["args"]])
        metadata, ready = self.template["metadata"], int(good)
        pod = {
            "metadata": {
                "name": "p",
                "creationTimestamp": "2026-05-01T00:00:00Z",
                "annotations": metadata.get("annotations", {}),
            }
        }
        self.body["status"] = {
            "observedGeneration": self.body["metadata"]["generation"],
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": ready,
            "pod": None if good else pod,
        }

    def tamper(self, image: str) -> None:
        """Somebody sets the image by hand."""
        if self.body is not None:
            self.template["spec"]["containers"][0]["image"] = image
            entry: Json = {"f:spec": {"f:template": {"f:spec": {"f:containers": {}}}}}
            self.body["metadata"]["managedFields"].append({"manager": "kubectl", "fieldsV1": entry})
            self.body["metadata"]["generation"] += 1

    def settle(self) -> None:
        """Passes and pods until nothing happens any more."""
        for _ in range(ENOUGH):
            wrote = self.act()
            self.run()
            before = self.told, self.trial
            self.tell()
            if not wrote and before == (self.told, self.trial):
                return
        raise AssertionError(f"it does not settle: {self.outcome}")

    @property
    def outcome(self) -> str:
        """What a person sees."""
        now = engine_state.live(self.record)
        serves = seen.rolled_out(self.record)
        if engine_update.rolled_back(now, self.want.inputs) is not None:
            return "rolled back" if serves else "rolling back"
        return "ready" if serves and now.inputs == self.want.inputs else "failing"

    def _apply(self, manifest: Json) -> None:
        assert self.body is not None
        before = json.dumps(self.body["spec"], sort_keys=True)
        fresh = live(copy.deepcopy(dict(manifest)))
        self.body["spec"] = fresh["spec"]
        for field in ("labels", "annotations", "managedFields"):
            self.body["metadata"][field] = fresh["metadata"][field]
        if json.dumps(self.body["spec"], sort_keys=True) != before:
            self.body["metadata"]["generation"] += 1
        self._note()

    def _merge(self, patch: Json) -> None:
        assert self.body is not None
        assert set(patch) == {"metadata"}, patch
        annotations = self.body["metadata"]["annotations"]
        for name, value in patch["metadata"]["annotations"].items():
            if value is None:
                annotations.pop(name, None)
            else:
                annotations[name] = value

    def _note(self) -> None:
        good = engine_state.live(self.record).good
        self.templates.append((copy.deepcopy(self.template), good.template if good else None))
