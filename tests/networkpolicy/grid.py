"""Specifications to judge: one for each shape of the allowlist, the choice of pods and the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import facts, network
from networkpolicy import universe
from networkpolicy.expectation import Case
from networkpolicy.universe import Endpoint, Manifest

_SINGLE_SIGN_ON = {"oidc": {"providerURL": "https://sso.example.com/x", "clientID": "chat"}}
_NO_CHAT = {"enabled": False}
_LKE, _OTHER = ("192.168.255.0/24",), ("10.100.0.0/30", "192.168.255.0/24")
_AGENTS = {"matchLabels": {"app": "agent"}}
_FRONT = {"matchLabels": {"app": "agent", "tier": "front"}}
_TEAM_B = {"matchLabels": {"team": "b", "stage": "prod"}}
_V4 = [{"cidr": "203.0.113.0/25"}, {"cidr": "198.51.100.7/32"}]
_V6 = [{"cidr": "2001:db8:1::/48"}]

#: The neighbour admits what it can, so that a gap in the sandbox under test has somewhere to lead.
_NEIGHBOUR: dict[str, Any] = {
    "access": {
        "exposure": "NodeBalancer",
        "allowlist": [{"cidr": "198.51.100.0/24"}],
        "inCluster": [{"podSelector": {}}],
    }
}


def _expressions(*items: tuple[str, str, list[str]]) -> dict[str, Any]:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": values} if values else {})}
            for key, operator, values in items
        ]
    }


def _case(
    access: dict[str, Any] | None = None,
    chat: dict[str, Any] | None = None,
    *,
    exposed: bool = False,
    operator: str = "",
    balancers: tuple[str, ...] = _LKE,
    resolvers: tuple[str, ...] = (),
) -> Case:
    wanted = {"exposure": "NodeBalancer" if exposed else "ClusterIP", **(access or {})}
    return Case({"access": wanted, "chat": chat or {}}, _NEIGHBOUR, operator, balancers, resolvers)


_OPERATOR = "ai-sandbox-system"
GRID: dict[str, Case] = {
    "default": _case(),
    "default, operator known": _case(operator=_OPERATOR),
    "exposed": _case(exposed=True, operator=_OPERATOR),
    "exposed, other range": _case(exposed=True, balancers=_OTHER),
    "exposed, no range": _case(exposed=True, balancers=()),
    "no chat": _case(chat=_NO_CHAT),
    "no chat, exposed": _case(chat=_NO_CHAT, exposed=True, operator=_OPERATOR, balancers=_OTHER),
    "no chat, single sign-on left over": _case(chat={**_NO_CHAT, **_SINGLE_SIGN_ON}),
    "no chat, lists for chat": _case(
        {
            "allowlist": [{"cidr": "203.0.113.0/24", "to": ["Chat"]}],
            "inCluster": [{"podSelector": {}, "to": ["Chat"]}],
        },
        _NO_CHAT,
        exposed=True,
    ),
    "single sign-on": _case(chat=_SINGLE_SIGN_ON, operator=_OPERATOR),
    "single sign-on, exposed": _case(chat=_SINGLE_SIGN_ON, exposed=True),
    "single sign-on, incomplete": _case(chat={"oidc": {"providerURL": "https://sso.example.com/x"}}),
    "v4": _case({"allowlist": _V4}),
    "v6": _case({"allowlist": _V6}, exposed=True),
    "v4 and v6": _case({"allowlist": [*_V4, *_V6]}, exposed=True, operator=_OPERATOR),
    "all of v4": _case({"allowlist": [{"cidr": "0.0.0.0/0", "description": "open"}]}, exposed=True),
    "all of both": _case(
        {
            "allowlist": [
                {"cidr": "0.0.0.0/0", "description": "open"},
                {"cidr": "::/0", "description": "open"},
            ]
        },
        exposed=True,
        balancers=_OTHER,
    ),
    "overlapping": _case(
        {
            "allowlist": [
                {"cidr": "203.0.113.0/24"},
                {"cidr": "203.0.113.64/26", "to": ["API"]},
                {"cidr": "203.0.112.0/24", "to": ["API"]},
                {"cidr": "203.0.113.4/32", "to": ["Chat"]},
            ]
        }
    ),
    "API only": _case({"allowlist": [{"cidr": "203.0.113.0/24", "to": ["API"]}]}, exposed=True),
    "Chat only": _case({"allowlist": [{"cidr": "203.0.113.0/24", "to": ["Chat"]}]}, operator=_OPERATOR),
    "hosts": _case(
        {
            "allowlist": [
                {"cidr": "203.0.113.4/32", "to": ["API"]},
                {"cidr": "2001:db8:1::5/128", "to": ["Chat"]},
            ]
        },
        chat=_SINGLE_SIGN_ON,
    ),
    "private networks": _case(
        {"allowlist": [{"cidr": "10.0.0.0/8"}, {"cidr": "192.168.0.0/16", "to": ["API"]}]}
    ),
    "pods by address": _case({"allowlist": [{"cidr": "10.2.0.0/16", "to": ["API"]}]}),
    "all namespaces": _case({"inCluster": [{"namespaceSelector": {}}]}),
    "own namespace": _case({"inCluster": [{"podSelector": {}}]}, exposed=True),
    "own pods to API": _case({"inCluster": [{"podSelector": _FRONT, "to": ["API"]}]}, operator=_OPERATOR),
    "other namespaces to Chat": _case({"inCluster": [{"namespaceSelector": _TEAM_B, "to": ["Chat"]}]}),
    "pods of namespaces": _case({"inCluster": [{"namespaceSelector": _TEAM_B, "podSelector": _AGENTS}]}),
    "neither selector": _case({"inCluster": [{"to": ["API"]}]}),
    "expressions": _case(
        {
            "inCluster": [
                {
                    "namespaceSelector": _expressions(
                        ("stage", "In", ["prod", "test"]), ("team", "NotIn", ["a"])
                    ),
                    "podSelector": _expressions(("app", "Exists", []), ("tier", "NotIn", ["back"])),
                    "to": ["API"],
                },
                {
                    "namespaceSelector": _expressions(("team", "DoesNotExist", [])),
                    "podSelector": _expressions(("app", "In", ["batch"])),
                    "to": ["Chat"],
                },
            ]
        }
    ),
    "resolvers on nodes": _case(
        chat=_SINGLE_SIGN_ON, exposed=True, resolvers=("169.254.20.10/32", "10.128.0.10/32", "fd00:a::/64")
    ),
    "everything": _case(
        {
            "allowlist": [
                *_V4,
                *_V6,
                {"cidr": "2a00:1450::/29", "to": ["API"]},
                {"cidr": "9.9.0.0/17", "to": ["Chat"]},
            ],
            "inCluster": [
                {"podSelector": _FRONT, "to": ["API"]},
                {"namespaceSelector": _TEAM_B, "podSelector": _AGENTS, "to": ["Chat"]},
                {
                    "namespaceSelector": _expressions(("stage", "In", ["test"])),
                    "podSelector": _expressions(("tier", "Exists", []), ("app", "NotIn", ["agent"])),
                },
            ],
        },
        _SINGLE_SIGN_ON,
        exposed=True,
        operator=_OPERATOR,
        balancers=_OTHER,
    ),
    "everything, no chat": _case(
        {
            "allowlist": [*_V4, *_V6],
            "inCluster": [{"podSelector": _FRONT}, {"namespaceSelector": _TEAM_B, "podSelector": _AGENTS}],
        },
        _NO_CHAT,
        exposed=True,
        operator=_OPERATOR,
    ),
}

#: Cases that between them have every kind of rule; all of their mutations are tried by every run.
RICH = ("everything", "everything, no chat", "expressions")


def networks(case: Case) -> tuple[str, ...]:
    """The networks that the case speaks of."""
    listed = (
        entry["cidr"] for spec in (case.spec, case.neighbour) for entry in spec["access"].get("allowlist", [])
    )
    return tuple(sorted({*case.balancers, *case.resolvers, *listed}))


def everybody(case: Case) -> tuple[Endpoint, ...]:
    return universe.endpoints(networks(case))


def sandbox(name: str, spec: Any) -> v1alpha1.AISandbox:
    return v1alpha1.parse(
        {"metadata": {"name": name, "namespace": universe.NAMESPACE, "uid": "u"}, "spec": spec}
    )


def known(case: Case) -> facts.Facts:
    return facts.Facts(
        release=facts.Release(),
        material=facts.Material(engine_key="", chat_session_key="", api_keys={}),
        nodebalancer_ranges=case.balancers,
        dns_networks=case.resolvers,
        operator_namespace=case.operator_namespace,
        commit="0" * 40,
        firewall_id=1,
    )


def policies(case: Case, name: str = universe.SANDBOX) -> list[Manifest]:
    """The policies of one sandbox, as rendered."""
    return [child.manifest for child in network.render(sandbox(name, case.of(name)), known(case))]


def all_policies(case: Case) -> list[Manifest]:
    return [*policies(case), *policies(case, universe.NEIGHBOUR)]


def with_spec(case: Case, **changes: Any) -> Case:
    """The case with other parts of the specification."""
    return dataclasses.replace(case, spec={**case.spec, **changes})
