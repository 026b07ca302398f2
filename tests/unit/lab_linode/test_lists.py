"""Paging and X-Filter, and the filters that are silently ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.linode import LinodeSimulator


@pytest.fixture
def many(sim: LinodeSimulator) -> LinodeSimulator:
    for number in range(60):
        sim.state.create_firewall(f"fw-{number:02}", tags=["even" if number % 2 == 0 else "odd", "all"])
    return sim


async def test_pages(many: LinodeSimulator, api: Any) -> None:
    last = (await api("GET", "/networking/firewalls?page=3&page_size=25")).body
    assert (last["page"], last["pages"], last["results"], len(last["data"])) == (3, 3, 60, 10)
    whole = (await api("GET", "/networking/firewalls")).body
    assert (whole["page"], whole["pages"], len(whole["data"])) == (1, 1, 60)
    assert (await api("GET", "/networking/firewalls?page=4&page_size=25")).status == 404


@pytest.mark.parametrize("query", ["page=0", "page_size=24", "page_size=501", "page=x"])
async def test_bad_paging(api: Any, query: str) -> None:
    assert (await api("GET", f"/networking/firewalls?{query}")).status == 400


async def test_query_string_filters_are_ignored(many: LinodeSimulator, api: Any) -> None:
    assert (await api("GET", "/networking/firewalls?tags=odd&label=fw-01")).body["results"] == 60


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({}, 60),
    ({"label": "fw-07"}, 1),
    ({"label": "FW-07"}, 0),
    ({"tags": "odd"}, 30),
    ({"tags": "od"}, 0),
    ({"tags": {"+contains": "od"}}, 30),
    ({"label": {"+contains": "fw-1"}}, 10),
    ({"label": "fw-07", "tags": "even"}, 0),
    ({"+and": [{"tags": "odd"}, {"label": {"+contains": "1"}}]}, 10),
    ({"+or": [{"label": "fw-01"}, {"label": "fw-02"}]}, 2),
    ({"label": {"+neq": "fw-01"}}, 59),
    ({"id": {"+gt": 150}}, 10),
    ({"id": {"+gte": 150}}, 11),
    ({"id": {"+lt": 103}}, 2),
    ({"id": {"+lte": 103, "+gt": 101}}, 2),
    ({"created": {"+lt": "2018-01-01T00:00:00"}}, 0),
]


@pytest.mark.parametrize(("wanted", "count"), FILTERS, ids=[json.dumps(f[0]) for f in FILTERS])
async def test_filters(many: LinodeSimulator, api: Any, wanted: dict[str, Any], count: int) -> None:
    answer = await api("GET", "/networking/firewalls", X_Filter=json.dumps(wanted))
    assert (answer.status, answer.body.get("results")) == (200, count)


async def test_order(many: LinodeSimulator, api: Any) -> None:
    wanted = json.dumps({"tags": "odd", "+order_by": "label", "+order": "desc"})
    answer = await api("GET", "/networking/firewalls", X_Filter=wanted)
    assert [one["label"] for one in answer.body["data"]][:2] == ["fw-59", "fw-57"]


REFUSED: list[tuple[str, str, str]] = [
    ("/networking/firewalls", '{"foo": 1}', "Cannot filter on foo"),
    ("/networking/firewalls", '{"status": "enabled"}', "Cannot filter on status"),
    ("/networking/firewalls", '{"+or": [{"label": "x"}, {"bar": 1}]}', "Cannot filter on bar"),
    ("/nodebalancers", '{"hostname": "x"}', "Cannot filter on hostname"),
    ("/networking/firewalls", '{"label": {"+like": "x"}}', "Invalid operator +like"),
    ("/networking/firewalls", "{", "Invalid JSON"),
    ("/networking/firewalls", "[]", "Invalid filter"),
]


@pytest.mark.parametrize(("path", "header", "reason"), REFUSED)
async def test_refused_filters(api: Any, path: str, header: str, reason: str) -> None:
    answer = await api("GET", path, X_Filter=header)
    assert (answer.status, answer.reason, answer.field) == (400, reason, "X-Filter")


@pytest.mark.parametrize("attribute", ["ipv4", "ipv6", "label", "region", "tags"])
async def test_nodebalancers_by_attribute(sim: LinodeSimulator, api: Any, attribute: str) -> None:
    nb = sim.state.create_nodebalancer("nb-1", tags=["mine"])
    sim.state.create_nodebalancer("nb-2", region="eu-central")
    value = "mine" if attribute == "tags" else getattr(nb, attribute)
    answer = await api("GET", "/nodebalancers", X_Filter=json.dumps({attribute: value}))
    assert [one["id"] for one in answer.body["data"]] == [nb.id]
