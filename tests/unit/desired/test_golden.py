"""Complete renderings, so that a change of any byte is seen in review.

Regenerate with `UPDATE_GOLDEN=1 pytest tests/unit/desired/test_golden.py`. Envoy's files are written
out as YAML documents of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.desired import facts
from unit.desired import samples

DIRECTORY = pathlib.Path(__file__).parent / "golden"

CASES: dict[str, tuple[dict[str, Any], facts.Facts]] = {
    # kubectl apply of an empty spec, before anything is known.
    "default": ({}, dataclasses.replace(samples.FACTS, model_cached=False)),
    "exposed": (
        {
            "model": {
                "id": "Qwen/Qwen3-14B-FP8",
                "revision": "v1",
                "servedName": "house",
                "maxContextTokens": 8192,
                "tokenSecretRef": {"name": "hf-token", "key": "token"},
            },
            "engine": {
                "gpuMemoryUtilizationPercent": 95,
                "extraArgs": ["--enforce-eager"],
                "resources": {"requests": {"memory": "24576Mi"}, "limits": {"memory": "28Gi"}},
            },
            "gpu": {
                "count": 2,
                "plan": "g2-gpu-rtx4000a2-s",
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "dedicated", "value": "ai", "effect": "NoSchedule"}],
            },
            "access": {
                "exposure": "NodeBalancer",
                "allowlist": [
                    {"cidr": "203.0.113.4/32", "description": "office"},
                    {"cidr": "198.51.100.0/25", "to": ["API"]},
                    {"cidr": "198.51.100.128/25", "to": ["API"]},
                    {"cidr": "2001:db8:1::/48", "to": ["Chat"]},
                ],
                "inCluster": [
                    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "agent"}}, "to": ["API"]}
                ],
                "hostnames": ["llm.example.com"],
                "apiKeys": [{"name": "default"}, {"name": "alice"}, {"name": "unmade"}],
            },
            "chat": {
                "oidc": {
                    "providerURL": "https://sso.example.com/.well-known/openid-configuration",
                    "clientID": "chat",
                    "clientSecretRef": {"name": "sso", "key": "client-secret"},
                    "allowedDomains": ["example.com"],
                    "roles": {"claim": "groups", "allowed": ["staff"], "admin": ["ops"]},
                }
            },
            "storage": {"className": "linode-block-storage-retain", "retain": {"modelCache": True}},
        },
        samples.EXPOSED,
    ),
    "api-only": (
        {
            "model": {"id": "meta-llama/Llama-3.1-8B-Instruct"},
            "access": {"tls": {"mode": "Disabled"}, "inCluster": [{"podSelector": {}}]},
            "chat": {"enabled": False},
            "lifecycle": {"state": "Suspended"},
        },
        samples.FACTS,
    ),
}


def document(child: facts.Child) -> dict[str, Any]:
    """A child as written to the golden file: the content of Secrets readable."""
    manifest = dict(child.manifest)
    if child.kind == "Secret" and "data" in manifest:
        manifest["data"] = {
            name: json.loads(text) if name.endswith(".json") else text
            for name, text in samples.content(child.manifest).items()
        }
    return {
        "stage": child.stage.name,
        **({"createOnly": True} if child.create_only else {}),
        "manifest": manifest,
    }


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    spec, known = CASES[case]
    text = yaml.dump_all(
        [document(child) for child in samples.rendered(spec, known)],
        Dumper=Plain,
        sort_keys=False,
        width=120,
    )
    path = DIRECTORY / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
