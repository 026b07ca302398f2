"""The samples say what they are, cost and need, and the API server and the fit check have nothing against them."""

from __future__ import annotations

import pathlib
import re
from decimal import Decimal
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import names, v1alpha1, validation
from ai_sandbox_operator.desired import engine, fit, plans
from lab.samples import MANIFESTS, SAMPLES
from unit.desired.test_architecture import document, read

PATHS = [*sorted(SAMPLES.glob("*.yaml")), MANIFESTS / "kustomize/sandboxes/assistant.yaml"]
#: In this order, each once; further lines of a part are indented.
PARTS = ("What", "Costs", "Needs")
#: The recorded configuration of each model, for the fit check.
CONFIGURATIONS = {
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral-7b-instruct-v0.3",
    "Qwen/Qwen3-0.6B": "qwen3-0.6b",
    "Qwen/Qwen3-8B-AWQ": "qwen3-8b-awq",
    "Qwen/Qwen3.6-27B-FP8": "qwen3.6-27b-fp8",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "openai/gpt-oss-20b": "gpt-oss-20b",
}
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def parsed(path: pathlib.Path) -> v1alpha1.AISandbox:
    body: dict[str, Any] = yaml.safe_load(path.read_text())
    return v1alpha1.parse({**body, "metadata": {"namespace": "default", "uid": "u", **body["metadata"]}})


def header(path: pathlib.Path) -> dict[str, str]:
    """The parts of the comment on top.

    Raises:
        ValueError: a line belongs to no part.
    """
    parts: dict[str, str] = {}
    for line in path.read_text().partition("apiVersion:")[0].splitlines():
        if match := re.fullmatch(r"# ([A-Z][a-z]+): (.+)", line):
            assert match[1] not in parts, f"{match[1]} comes twice"
            parts[match[1]] = match[2]
        elif (match := re.fullmatch(r"#   (.+)", line)) and parts:
            parts[next(reversed(parts))] += "\n" + match[1]
        else:
            raise ValueError(f"{path.name}: {line}")
    return parts


@each
def test_the_header_says_what_it_is_costs_and_needs(path: pathlib.Path) -> None:
    parts = header(path)
    assert tuple(parts) == PARTS
    assert min(len(words) for words in parts.values()) > 20


@each
def test_the_header_names_what_the_spec_uses(path: pathlib.Path) -> None:
    spec, parts = parsed(path).spec, header(path)
    public = spec.access.exposure == "NodeBalancer"
    costs, needs = parts["Costs"], parts["Needs"]
    assert ("one NodeBalancer" in costs) == public
    assert ("No NodeBalancer" in costs) == (not public)
    assert ("operator with a Linode token" in needs) == public
    assert ("No Linode token" in needs) == (not public)
    assert spec.gpu.plan in costs or spec.lifecycle.state == "Suspended"
    assert ("two volumes" in costs) == spec.chat.enabled
    if spec.storage.model_cache_size:
        assert f"{spec.storage.model_cache_size} model cache" in costs


@each
def test_each_secret_of_the_user_has_its_command_in_the_header(path: pathlib.Path) -> None:
    spec, needs = parsed(path).spec, header(path)["Needs"]
    references = (spec.model.token_secret_ref, spec.chat.oidc.client_secret_ref)
    wanted = {f"kubectl create secret generic {r.name} --from-file={r.key}=" for r in references if r}
    found = set(re.findall(r"kubectl create secret generic \S+ --from-file=\S+?=", needs))
    assert found == wanted


@each
def test_a_sample_is_named_as_its_file_and_breaks_no_rule(path: pathlib.Path) -> None:
    sandbox = parsed(path)
    assert sandbox.metadata.name == path.stem
    assert validation.violations(sandbox) == ()


@each
def test_no_sample_opens_more_than_the_networks_of_documentation(path: pathlib.Path) -> None:
    documented = ("203.0.113.", "198.51.100.", "192.0.2.", "2001:db8:")
    assert [e.cidr for e in parsed(path).spec.access.allowlist if not e.cidr.startswith(documented)] == []


def judged(spec: v1alpha1.AISandboxSpec) -> fit.Fit:
    """The verdict of the operator's own check, from the recorded configuration of the model."""
    configuration = CONFIGURATIONS[spec.model.id]
    settings = fit.settings(spec.engine.extra_args, engine.sequences(spec))
    plan = plans.find(spec.gpu.plan or plans.SIZES[0].name)
    assert plan is not None
    assert plan.count == spec.gpu.count, "every GPU of the plan is paid for"
    return fit.judge(
        read(configuration),
        document(configuration)["_weight_bytes"],
        plan.cards,
        count=spec.gpu.count,
        utilization=Decimal(spec.engine.gpu_memory_utilization_percent) / 100,
        context=spec.model.max_context_tokens,
        kv_cache_dtype=settings.kv_cache_dtype,
        max_num_seqs=settings.max_num_seqs,
    )


@each
def test_the_model_fits_the_gpus_that_the_sample_asks_for(path: pathlib.Path) -> None:
    found = judged(parsed(path).spec)
    assert found.verdict is fit.Verdict.Fits, found.message


def test_the_large_sample_has_the_context_that_its_header_names() -> None:
    found = judged(parsed(SAMPLES / "large.yaml").spec)
    assert found.largest_context is not None
    assert f"{found.largest_context:,} tokens" in header(SAMPLES / "large.yaml")["What"]


def test_there_is_a_sample_for_each_thing_that_people_come_for() -> None:
    stems = {path.stem for path in SAMPLES.glob("*.yaml")}
    assert stems == {"large", "mistral", "private", "single-sign-on", "smallest", "suspended", "team"}
    assert "one-click" in header(SAMPLES / "mistral.yaml")["What"]
    assert all(
        path.parent.name != "samples" or yaml.safe_load(path.read_text())["kind"] == names.KIND
        for path in PATHS
    )
