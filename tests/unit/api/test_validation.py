"""The operator's own checks agree with admission, and valid specs survive a round trip."""

from __future__ import annotations

import ipaddress
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ai_sandbox_operator.api import rules, v1alpha1, validation
from controlplane import admission_tables as tables


def _sandbox(spec: tables.Spec, name: str = "sandbox") -> v1alpha1.AISandbox:
    body = tables.manifest(spec, name)
    body["metadata"]["uid"] = "uid"
    return v1alpha1.parse(body)


@pytest.mark.parametrize("bad", [bad for bad in tables.BAD if bad.safety], ids=lambda bad: bad.id)
def test_safety_rules_hold_without_admission(bad: tables.Bad) -> None:
    found = validation.violations(_sandbox(bad.spec, bad.name))

    at_field = [violation for violation in found if violation.field.startswith(bad.field)]
    assert at_field, found
    if bad.message.startswith("must "):
        # Up to the remedy, which Python may spell out.
        head = bad.message.partition(":")[0]
        assert any(violation.message.startswith(head) for violation in at_field), at_field
    assert all(violation.message.startswith("must ") for violation in found)


@pytest.mark.parametrize("spec", tables.GOOD.values(), ids=tables.GOOD)
def test_what_admission_accepts_has_no_violation(spec: tables.Spec) -> None:
    assert validation.violations(_sandbox(spec)) == ()


def test_remedy_for_host_bits_is_spelled_out() -> None:
    (violation,) = validation.violations(_sandbox({"access": {"allowlist": [{"cidr": "2001:db8::1/64"}]}}))

    assert violation == validation.Violation(
        "spec.access.allowlist[0].cidr",
        "must not have bits set beyond the prefix length: write 2001:db8::/64 for the network, "
        "or 2001:db8::1/128 for the one address",
    )


def test_duplicates_beyond_the_limit_of_admission_break_nothing_and_are_found() -> None:
    entries = tables.networks(1000)
    entries[999] = entries[0]
    sandbox = _sandbox({"access": {"allowlist": entries}})

    assert validation.violations(sandbox) == ()
    found = validation.duplicates(sandbox.spec.access.allowlist)
    assert [(first, index, str(network)) for first, index, network in found] == [(0, 999, "10.0.0.0/32")]


def test_every_violation_is_reported() -> None:
    spec = {
        "engine": {"image": "vllm/vllm-openai", "extraArgs": ["x", "--host", "y"]},
        "access": {"allowlist": [{"cidr": "here"}, {"cidr": "there"}], "tls": {"mode": "Secret"}},
    }
    assert [violation.field for violation in validation.violations(_sandbox(spec))] == [
        "spec.engine.image",
        "spec.engine.extraArgs",
        "spec.engine.extraArgs[1]",
        "spec.access.allowlist[0].cidr",
        "spec.access.allowlist[1].cidr",
        "spec.access.tls",
    ]


@hypothesis.given(
    flag=st.sampled_from(sorted(rules.DENIED_FLAGS)),
    keep=st.integers(min_value=2, max_value=40),
    underscores=st.booleans(),
    tail=st.sampled_from(["", "=x", ".x=y", "=--y"]),
)
def test_no_spelling_of_a_denied_flag_passes(flag: str, keep: int, underscores: bool, tail: str) -> None:
    spelled = flag[:keep]
    if underscores:
        spelled = spelled[:2] + spelled[2:].replace("-", "_")
    assert validation.denied_flag(spelled + tail) is not None


@hypothesis.given(
    st.sampled_from(["--dtype", "--model-impl", "--config-format", "--code-revision", "--quantization"])
)
def test_longer_names_than_denied_ones_pass(flag: str) -> None:
    assert validation.denied_flag(flag) is None
    assert validation.denied_flag(f"{flag}=auto") is None


@hypothesis.given(
    minor=st.integers(min_value=0, max_value=60),
    patch=st.integers(min_value=0, max_value=30),
    suffix=st.sampled_from(["", "-x86_64-zstd", ".post1", "rc1", tables.DIGEST]),
    prefix=st.sampled_from(["", "v"]),
)
def test_minimum_versions(minor: int, patch: int, suffix: str, prefix: str) -> None:
    tag = f"{prefix}0.{minor}.{patch}{suffix}"
    engine = {"engine": {"image": f"mirror.example.com/vllm/vllm-openai:{tag}"}}
    chat = {"chat": {"image": f"openwebui/open-webui:{tag}"}}

    assert bool(validation.violations(_sandbox(engine))) == ((0, minor, patch) < (0, 22, 0))
    assert bool(validation.violations(_sandbox(chat))) == ((0, minor, patch) < (0, 12, 4))


_DNS = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_TARGETS = st.lists(st.sampled_from(["Chat", "API"]), min_size=1, max_size=2, unique=True)


@st.composite
def _networks(draw: st.DrawFn) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if draw(st.booleans()):
        length = draw(st.integers(min_value=8, max_value=32))
        return ipaddress.ip_network((draw(st.integers(0, 2**32 - 1)), length), strict=False)
    length = draw(st.integers(min_value=16, max_value=128))
    address = ipaddress.IPv6Address(draw(st.integers(1 << 112, 2**128 - 1)))
    return ipaddress.ip_network((address, length), strict=False)


@st.composite
def specs(draw: st.DrawFn) -> tables.Spec:
    """A valid spec with random parts."""
    tls = draw(
        st.sampled_from(
            [
                {"mode": "SelfSigned"},
                {"mode": "Disabled"},
                {"mode": "Secret", "secretName": "tls"},
                {"mode": "CertManager", "issuerRef": {"name": "ca"}},
            ]
        )
    )
    selector = st.fixed_dictionaries({}, optional={"matchLabels": st.dictionaries(_DNS, _DNS, max_size=3)})
    peer = st.fixed_dictionaries(
        {"to": _TARGETS}, optional={"podSelector": selector, "namespaceSelector": selector}
    )
    spec: tables.Spec = {
        "model": {"id": f"{draw(_DNS)}/{draw(_DNS)}"},
        "engine": {
            "extraArgs": draw(
                st.lists(st.sampled_from(["--enforce-eager", "--dtype=half", "-O2"]), max_size=5)
            ),
            "gpuMemoryUtilizationPercent": draw(st.integers(10, 99)),
        },
        "gpu": {"count": draw(st.sampled_from([1, 2, 4, 8])), "plan": draw(st.just("") | _DNS)},
        "access": {
            "exposure": draw(st.sampled_from(["ClusterIP", "NodeBalancer"])),
            "allowlist": [
                {"cidr": str(network), "to": draw(_TARGETS), "description": draw(st.text(max_size=100))}
                for network in draw(st.lists(_networks(), max_size=20, unique=True))
            ],
            "inCluster": draw(st.lists(peer, max_size=3)),
            "tls": tls,
            "hostnames": draw(st.lists(_DNS, max_size=3, unique=True)),
            "apiKeys": [{"name": name} for name in draw(st.lists(_DNS, min_size=1, max_size=5, unique=True))],
        },
        "lifecycle": {"state": draw(st.sampled_from(["Running", "Suspended"]))},
    }
    if draw(st.booleans()):
        spec["chat"] = {
            "oidc": {
                "providerURL": "https://id.example.com/.well-known/openid-configuration",
                "clientID": "chat",
                "clientSecretRef": {"name": draw(_DNS), "key": "secret"},
                "allowedDomains": draw(st.lists(_DNS, max_size=3, unique=True)),
            }
        }
    return spec


@hypothesis.given(specs())
@hypothesis.settings(max_examples=200)
def test_valid_spec_passes_and_survives_a_round_trip(spec: tables.Spec) -> None:
    sandbox = _sandbox(spec)

    assert validation.violations(sandbox) == ()
    wire: dict[str, Any] = sandbox.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert v1alpha1.parse(wire) == sandbox
    assert _contains(wire["spec"], spec)


def _contains(stored: Any, given: Any) -> bool:
    """Whether everything that was given is stored."""
    if isinstance(given, dict):
        return all(key in stored and _contains(stored[key], value) for key, value in given.items())
    if isinstance(given, list):
        return len(stored) == len(given) and all(map(_contains, stored, given))
    return bool(stored == given)


@hypothesis.given(st.text(alphabet="0123456789abcdefABCDEF.:/% -", min_size=3, max_size=49))
def test_network_reads_or_refuses(text: str) -> None:
    entry = {"access": {"allowlist": [{"cidr": text, "description": "why"}]}}
    violations = validation.violations(_sandbox(entry))

    assert all(violation.message.startswith("must ") for violation in violations)
    if not violations:
        assert validation.network(text) == ipaddress.ip_network(text)
