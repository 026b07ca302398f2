"""Which commit a pass works with, and what it holds back until model and GPUs are known to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import architecture, plans
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import model, resolution, views
from unit.desired import samples

Json = Any
GIB = 2**30
QWEN = architecture.read(
    {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_size": 4096,
        "max_position_embeddings": 40960,
        "torch_dtype": "bfloat16",
    }
)
OTHER = "f" * 40
PLAN = "g2-gpu-rtx4000a1-s"


def known(gib: float = 5.0, commit: str = samples.COMMIT) -> resolution.Look:
    size = int(gib * GIB)
    return resolution.Look(
        model=resolution.Model(commit=commit, size_bytes=size, weight_bytes=size, architecture=QWEN)
    )


def refused(failure: FetchFailure) -> resolution.Look:
    return resolution.Look(failure=FetchError(failure, "what happened"), again=7.0)


class Hub:
    """Answers with one look, and remembers what it was asked."""

    def __init__(self, look: resolution.Look) -> None:
        self.answer = look
        self.asked: list[str] = []

    def __call__(self, _sandbox: v1alpha1.AISandbox, commit: str) -> resolution.Look:
        self.asked.append(commit)
        return self.answer


def pinned(spec: Json, commit: str = samples.COMMIT, source: str | None = None) -> v1alpha1.AISandbox:
    sandbox = samples.sandbox(spec)
    source = source or f"{sandbox.spec.model.id}@{sandbox.spec.model.revision}"
    status = v1alpha1.AISandboxStatus(
        model=v1alpha1.ModelStatus(revision=commit, resolved_from=source, size_bytes=GIB)
    )
    return sandbox.model_copy(update={"status": status})


async def view(
    sandbox: v1alpha1.AISandbox,
    children: Json,
    hub: Hub,
    pool: dict[str, str] | None = None,
) -> views.ModelView:
    """A view in a cluster with one GPU node, or none."""

    async def cards(selector: Mapping[str, str]) -> plans.Cards | None:
        return plans.cards(pool["plan"]) if pool and selector.items() <= pool.items() else None

    return await model.view(sandbox, children, hub, cards)


def engine_of(spec: Json) -> dict[tuple[str, str], seen.Seen]:
    """The engine as it was rendered for a spec."""
    manifest = samples.child(samples.rendered(spec), "Deployment", "demo-engine")
    body = {**manifest, "metadata": {**manifest["metadata"], "uid": "u", "generation": 1}}
    return {("Deployment", "demo-engine"): seen.observe("Deployment", body)}


async def test_a_first_look_pins_the_commit_that_the_hub_names() -> None:
    hub = Hub(known())
    found = await view(samples.sandbox({"gpu": {"plan": PLAN}}), {}, hub)
    assert (found.commit, found.size_bytes, found.hold) == (samples.COMMIT, 5 * GIB, frozenset())
    assert hub.asked == [""]


@pytest.mark.parametrize(("state", "hold"), [("Running", {"fetch", "engine"}), ("Suspended", {"fetch"})])
async def test_while_the_hub_is_asked_nothing_is_begun_but_a_suspension_is_carried_out(
    state: str, hold: set[str]
) -> None:
    found = await view(samples.sandbox({"lifecycle": {"state": state}}), {}, Hub(resolution.Look()))
    assert found.pending
    assert found.commit == ""
    assert found.hold == hold


async def test_an_engine_that_is_as_the_spec_says_asks_nobody() -> None:
    hub = Hub(refused(FetchFailure.HubUnreachable))
    found = await view(pinned({}), engine_of({}), hub)
    assert found == views.ModelView(commit=samples.COMMIT, size_bytes=GIB)
    assert hub.asked == []


async def test_a_lost_status_is_found_again_on_the_engine() -> None:
    hub = Hub(known(commit=OTHER))
    found = await view(samples.sandbox({}), engine_of({}), hub)
    assert (found.commit, found.size_bytes) == (samples.COMMIT, samples.FACTS.model_bytes)
    assert hub.asked == []


@pytest.mark.parametrize("change", [{"id": "Qwen/Qwen3-4B"}, {"revision": "v2"}])
async def test_another_id_or_revision_ends_the_pin(change: Json) -> None:
    hub = Hub(known(commit=OTHER))
    sandbox = pinned({"model": change}, source="mistralai/Mistral-7B-Instruct-v0.3@main")
    assert (await view(sandbox, engine_of({}), hub)).commit == OTHER
    assert hub.asked == [""]


async def test_another_engine_setting_is_judged_at_the_pinned_commit() -> None:
    hub = Hub(known())
    await view(pinned({"gpu": {"plan": PLAN}}), engine_of({}), hub)
    assert hub.asked == [samples.COMMIT]


async def test_a_hub_that_is_down_does_not_stop_a_change_of_a_pinned_model() -> None:
    found = await view(
        pinned({"gpu": {"plan": PLAN}}), engine_of({}), Hub(refused(FetchFailure.HubUnreachable))
    )
    assert (found.commit, found.hold, found.failure) == (samples.COMMIT, frozenset(), None)
    assert found.again == 7.0


@pytest.mark.parametrize(
    ("failure", "reason", "stalled"),
    [
        (FetchFailure.NotFound, Reason.ModelNotFound, True),
        (FetchFailure.GatedNoToken, Reason.ModelGatedNoToken, True),
        (FetchFailure.GatedNotGranted, Reason.ModelGatedNotGranted, True),
        (FetchFailure.BadToken, Reason.HubTokenInvalid, True),
        (FetchFailure.RevisionNotFound, Reason.RevisionNotFound, True),
        (FetchFailure.NoWeights, Reason.NoWeights, True),
        (FetchFailure.HubUnreachable, Reason.HubUnreachable, False),
        (FetchFailure.Unexpected, Reason.FetchFailed, False),
    ],
)
async def test_what_the_hub_refuses_is_told_and_nothing_is_begun(
    failure: FetchFailure, reason: Reason, stalled: bool
) -> None:
    found = await view(samples.sandbox({}), {}, Hub(refused(failure)))
    assert found.failure is not None
    assert (found.failure.reason, found.failure.stalled) == (reason, stalled)
    assert (found.commit, found.again) == ("", 7.0)
    assert found.hold == {"fetch", "engine"}


@pytest.mark.parametrize(
    ("gib", "gpu", "reason"),
    [
        (5.0, {"plan": PLAN}, None),
        (60.0, {"plan": PLAN}, Reason.ModelTooLarge),
        (60.0, {"plan": "g2-gpu-rtx4000a4-m", "count": 4}, None),
        (60.0, {"nodeSelector": {"pool": "small"}}, Reason.ModelTooLarge),
        (60.0, {"nodeSelector": {"pool": "another"}}, None),
        (60.0, {}, Reason.ModelTooLarge),
        (5.0, {"plan": PLAN, "count": 2}, Reason.NoGPUNode),
    ],
)
async def test_a_model_that_cannot_fit_is_refused_before_a_gpu_is_asked_for(
    gib: float, gpu: Json, reason: Reason | None
) -> None:
    pool = {"plan": PLAN, "pool": "small"}
    found = await view(samples.sandbox({"gpu": gpu}), {}, Hub(known(gib)), pool)
    if reason is None:
        assert (found.problem, found.hold) == (None, frozenset())
        return
    assert found.problem is not None
    assert found.problem.reason is reason
    assert found.problem.stalled
    assert found.hold == {"fetch", "engine"}
    assert "spec.gpu" in found.problem.message


async def test_a_context_that_may_not_fit_is_a_notice() -> None:
    tight = await view(samples.sandbox({"gpu": {"plan": PLAN}}), {}, Hub(known(16.3)))
    assert tight.problem is None
    assert tight.notice


async def test_flags_that_change_what_is_loaded_are_not_judged_by_the_configuration() -> None:
    spec = {"gpu": {"plan": PLAN}, "engine": {"extraArgs": ["--cpu-offload-gb", "40"]}}
    assert (await view(samples.sandbox(spec), {}, Hub(known(60.0)))).problem is None
