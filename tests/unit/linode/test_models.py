"""The models against Linode's API description: every example of an operation that the client calls."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

import pydantic
import pytest
import yaml

import lab.linode
from ai_sandbox_operator.linode import models

DOCUMENT = pathlib.Path(lab.linode.__file__).parent / "data" / "linode-openapi.yaml"
OPERATIONS: dict[str, type[pydantic.BaseModel]] = {
    "get-firewalls": models.Firewall,
    "post-firewalls": models.Firewall,
    "get-firewall": models.Firewall,
    "put-firewall": models.Firewall,
    "get-firewall-rules": models.LiveRules,
    "put-firewall-rules": models.LiveRules,
    "get-firewall-devices": models.FirewallDevice,
    "post-firewall-device": models.FirewallDevice,
    "get-node-balancers": models.NodeBalancer,
    "get-node-balancer": models.NodeBalancer,
    "get-node-balancer-firewalls": models.Firewall,
    "put-nodebalancers-nodebalancerid-firewalls": models.Firewall,
    "get-profile": models.Profile,
    "get-profile-grants": models.Grants,
}


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    document = yaml.load(DOCUMENT.read_text(), Loader=yaml.CSafeLoader)
    return {
        operation["operationId"]: operation["responses"]["200"]["content"]["application/json"]["example"]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in ("get", "post", "put") and "200" in operation["responses"]
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_descriptions_examples_are_understood(operation: str, examples: dict[str, Any]) -> None:
    example = examples[operation]
    for item in example["data"] if "pages" in example else [example]:
        parsed = OPERATIONS[operation].model_validate(item)
        dumped = parsed.model_dump(exclude_unset=True, mode="json", by_alias=True)
        assert dumped
        assert dumped.keys() <= item.keys(), "a field that the description does not know"


def test_one_get_of_a_firewall_answers_all_that_a_check_needs(examples: dict[str, Any]) -> None:
    assert {"rules", "status", "tags", "entities", "label"} <= examples["get-firewall"].keys()


def test_times_without_offset_are_utc() -> None:
    assert models.NodeBalancer.model_validate({"id": 1, "created": "2018-01-02T03:04:05"}).created == (
        datetime.datetime(2018, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    )


FIREWALL: dict[str, Any] = {
    "id": 1,
    "label": "x",
    "status": "enabled",
    "rules": {"inbound": None, "inbound_policy": "DROP", "outbound": None, "outbound_policy": "ACCEPT"},
}


def test_null_lists_are_empty_and_new_fields_are_ignored() -> None:
    parsed = models.Firewall.model_validate({**FIREWALL, "tags": None, "entities": None, "new": {"a": 1}})
    assert (parsed.rules.inbound, parsed.tags, parsed.entities) == ((), (), ())


@pytest.mark.parametrize("absent", ["status", "rules"])
def test_i8_a_firewall_without_what_decides_is_refused_and_not_guessed(absent: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        models.Firewall.model_validate({name: value for name, value in FIREWALL.items() if name != absent})


@pytest.mark.parametrize("absent", ["inbound_policy", "outbound_policy"])
def test_i8_rules_without_a_policy_are_refused(absent: str) -> None:
    rules = {name: value for name, value in FIREWALL["rules"].items() if name != absent}
    with pytest.raises(pydantic.ValidationError):
        models.LiveRules.model_validate(rules)


def test_models_are_immutable() -> None:
    with pytest.raises(pydantic.ValidationError):
        models.FirewallRules().inbound_policy = "ACCEPT"  # type: ignore[misc]
