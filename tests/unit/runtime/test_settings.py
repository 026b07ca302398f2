"""Flags, environment variables, and errors that a person can act on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from ai_sandbox_operator.desired import facts
from ai_sandbox_operator.runtime import settings


def parse(*flags: str, environment: Mapping[str, str] | None = None) -> settings.Settings:
    parser = argparse.ArgumentParser(prog="ai-sandbox-operator")
    settings.add_arguments(parser, environment or {})
    return settings.from_arguments(parser.parse_args(flags))


def test_defaults_are_those_of_the_pod_of_an_lke_cluster() -> None:
    chosen = parse()
    assert chosen == settings.Settings(
        kubeconfig=None,
        context=None,
        namespaces=(),
        cluster_id=None,
        linode_url="https://api.linode.com/v4",
        linode_token_file=None,
        linode_check_interval=180.0,
        resync_interval=300.0,
        workers=16,
        lease_namespace="default",
        lease_name="ai-sandbox-operator",
        leader_elect=True,
        health_host="0.0.0.0",
        health_port=8080,
        log_format="json",
        log_level="info",
        storage_class="linode-block-storage",
        nodebalancer_ranges=("192.168.255.0/24",),
        pod_ranges=("10.2.0.0/16",),
        **_later(chosen),
        release=facts.Release(),
    )


def _later(chosen: settings.Settings) -> dict[str, Any]:
    """Fields that this test does not judge."""
    known = {
        *("kubeconfig", "context", "namespaces", "cluster_id", "linode_url", "linode_token_file"),
        *("linode_check_interval", "resync_interval", "workers", "lease_namespace", "lease_name"),
        *("leader_elect", "health_host", "health_port", "log_format", "log_level", "storage_class"),
        *("nodebalancer_ranges", "pod_ranges", "release"),
    }
    return {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name not in known}


@pytest.mark.parametrize(
    ("flags", "environment", "field", "value"),
    [
        (["--workers", "3"], {}, "workers", 3),
        ([], {"AI_SANDBOX_WORKERS": "4"}, "workers", 4),
        (["--workers", "3"], {"AI_SANDBOX_WORKERS": "4"}, "workers", 3),
        ([], {"AI_SANDBOX_WORKERS": ""}, "workers", 16),
        (["--resync-interval", "1.5"], {}, "resync_interval", 1.5),
        (["--namespace", "a", "--namespace", "b"], {}, "namespaces", ("a", "b")),
        ([], {"AI_SANDBOX_NAMESPACE": "a, b,"}, "namespaces", ("a", "b")),
        (["--namespace", "c"], {"AI_SANDBOX_NAMESPACE": "a,b"}, "namespaces", ("c",)),
        (["--nodebalancer-range", "10.0.0.0/8"], {}, "nodebalancer_ranges", ("10.0.0.0/8",)),
        (
            [],
            {"AI_SANDBOX_NODEBALANCER_RANGE": "10.0.0.0/8,2001:DB8::/48"},
            "nodebalancer_ranges",
            ("10.0.0.0/8", "2001:db8::/48"),
        ),
        (["--pod-range", "10.3.0.0/16"], {}, "pod_ranges", ("10.3.0.0/16",)),
        (["--no-leader-elect"], {}, "leader_elect", False),
        (["--linode-url", "http://127.0.0.1:9/v4/"], {}, "linode_url", "http://127.0.0.1:9/v4"),
        ([], {"KUBECONFIG": "/k"}, "kubeconfig", "/k"),
        ([], {"KUBECONFIG": "/k", "AI_SANDBOX_KUBECONFIG": "/own"}, "kubeconfig", "/own"),
        (["--kubeconfig", ""], {"KUBECONFIG": "/k"}, "kubeconfig", None),
        ([], {"POD_NAMESPACE": "ops"}, "lease_namespace", "ops"),
        ([], {"AI_SANDBOX_CONTEXT": ""}, "context", None),
        ([], {"AI_SANDBOX_LOG_LEVEL": "debug"}, "log_level", "debug"),
        (["--health-port", "0"], {}, "health_port", 0),
    ],
)
def test_a_flag_wins_over_its_variable_and_that_over_the_default(
    flags: list[str], environment: dict[str, str], field: str, value: object
) -> None:
    assert getattr(parse(*flags, environment=environment), field) == value


def test_every_image_has_a_flag_and_a_variable() -> None:
    chosen = parse(
        "--engine-image", "e:1", "--chat-image", "c:1", environment={"AI_SANDBOX_GATEWAY_IMAGE": "g:1"}
    )
    release = facts.Release()
    assert chosen.release == dataclasses.replace(
        release, engine_image="e:1", chat_image="c:1", gateway_image="g:1"
    )


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (["--workers", "0"], {}, "--workers: '0' must be at least 1"),
        (["--workers", "many"], {}, "'many' must be a whole number"),
        (["--resync-interval", "-1"], {}, "must be more than 0 seconds"),
        (["--resync-interval", "nan"], {}, "must be more than 0 seconds"),
        (["--resync-interval", "inf"], {}, "must be more than 0 seconds"),
        (["--linode-check-interval", "soon"], {}, "'soon' must be a number of seconds"),
        (["--nodebalancer-range", "192.168.255.1/24"], {}, "without host bits"),
        (["--health-port", "70000"], {}, "'70000' must be a port number"),
        (["--health-port", "http"], {}, "'http' must be a port number"),
        (["--log-level", "loud"], {}, "loud"),
        (["--frobnicate"], {}, "--frobnicate"),
        (
            [],
            {"AI_SANDBOX_NODEBALANCER_RANGE": "x"},
            "environment variable AI_SANDBOX_NODEBALANCER_RANGE: 'x' must be a network",
        ),
        (
            [],
            {"AI_SANDBOX_LOG_LEVEL": "loud"},
            "environment variable AI_SANDBOX_LOG_LEVEL: 'loud' must be debug, info, warning or error",
        ),
        ([], {"AI_SANDBOX_LOG_FORMAT": "xml"}, "'xml' must be json or text"),
        ([], {"AI_SANDBOX_WORKERS": "0"}, "environment variable AI_SANDBOX_WORKERS: '0' must be at least 1"),
        ([], {"AI_SANDBOX_RESYNC_INTERVAL": "x"}, "'x' must be a number of seconds"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    flags: list[str], environment: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*flags, environment=environment)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_names_the_variable_of_every_option_that_has_one() -> None:
    parser = argparse.ArgumentParser(prog="ai-sandbox-operator")
    settings.add_arguments(parser, {})
    text = parser.format_help()
    for action in parser._actions:
        flag = action.option_strings[-1]
        if flag not in ("--help", "--no-leader-elect"):
            variable = "AI_SANDBOX_" + flag.removeprefix("--").replace("-", "_").upper()
            assert f"[{variable}]" in " ".join(text.split()), flag
