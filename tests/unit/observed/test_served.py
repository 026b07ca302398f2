"""Reading what a gateway says that it serves."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.observed import served

LINE = (
    'envoy_http_rds_version_text{{envoy_rds_route_config="{0}",envoy_http_conn_manager_prefix="{0}",'
    'text_value="{1}"}} 0'
)
TEXT = "\n".join(
    [
        "# TYPE envoy_cluster_manager_cds_version_text gauge",
        'envoy_cluster_manager_cds_version_text{text_value="abc"} 0',
        "# TYPE envoy_http_rds_version_text gauge",
        LINE.format("internal_api", "r-2"),
        LINE.format("internal_chat", "r-2"),
        "",
    ]
)


def test_every_route_configuration_has_its_revision() -> None:
    assert served.revisions(TEXT) == {"internal_api": "r-2", "internal_chat": "r-2"}


@pytest.mark.parametrize(
    ("revision", "routes", "expected"),
    [
        ("r-2", ["internal_api", "internal_chat"], True),
        ("r-2", ["internal_api"], True),
        ("r-2", ["internal_api", "external_api"], False),
        ("r-2", ["internal_api", "external_chat"], False),
        ("r-1", ["internal_api"], False),
        ("", ["external_chat"], False),
    ],
)
def test_a_revision_is_served_only_if_every_route_has_it(
    revision: str, routes: list[str], expected: bool
) -> None:
    assert served.serves(TEXT, revision, routes) is expected


def test_an_earlier_revision_of_a_listener_that_is_drained_counts() -> None:
    drained = TEXT + LINE.format("external_api", "r-1") + "\n"
    assert not served.serves(drained, "r-2", ["internal_api", "internal_chat"])
    closed = TEXT + LINE.format("external_api", "r-2") + "\n"
    assert served.serves(closed, "r-2", ["internal_api", "internal_chat"])


@pytest.mark.parametrize(
    "text", ["", "upstream connect error", "\x00", LINE.format("internal_api", "r-2")[:-20]]
)
def test_anything_else_proves_nothing(text: str) -> None:
    assert not served.serves(text, "r-2", ["internal_api"])


@pytest.mark.parametrize(
    ("metadata", "status", "expected"),
    [
        ({}, {"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({}, {"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({}, {}, False),
        ({"deletionTimestamp": "now"}, {"conditions": [{"type": "Ready", "status": "True"}]}, False),
    ],
)
def test_a_pod_is_ready_while_clients_are_sent_to_it(
    metadata: dict[str, str], status: dict[str, object], expected: bool
) -> None:
    assert served.ready({"metadata": metadata, "status": status}) is expected
