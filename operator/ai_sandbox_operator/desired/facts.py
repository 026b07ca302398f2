"""What rendering needs beyond the sandbox's own spec.

Renderers are pure functions of (sandbox, Facts). The gatherer of a pass fills Facts once; a value
that is not known yet is None, and the renderer leaves out what depends on it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """Images that this release of the operator pins, by digest where one is known."""

    operator_image: str = "ghcr.io/linode/ai-sandbox-operator:0.1.0"
    engine_image: str = "vllm/vllm-openai:v0.33.0"
    chat_image: str = "openwebui/open-webui:v0.12.4"
    gateway_image: str = "envoyproxy/envoy:v1.40.0"


def split_keys(entry: str) -> list[str]:
    """The keys in one entry of the Secret: one per line, so that an old one may overlap with its successor."""
    return entry.split()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Material:
    """Secret values of one sandbox. No repr: they must not reach a log by accident (I6)."""

    engine_key: str
    chat_session_key: str
    api_keys: Mapping[str, str]
    """By name the entry of the Secret, one key per line; a named key without a value yet is absent."""
    chat_admin_password: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """Every secret value."""
        keys = [key for entry in self.api_keys.values() for key in split_keys(entry)]
        return self.engine_key, self.chat_session_key, self.chat_admin_password, *keys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Inputs of one rendering."""

    release: Release
    material: Material
    storage_class: str = "linode-block-storage"
    nodebalancer_ranges: tuple[str, ...] = ("192.168.255.0/24",)
    pod_ranges: tuple[str, ...] = ("10.2.0.0/16",)
    linode_tags: tuple[str, ...] = ()
    """Tags that mark a Linode object as belonging to this cluster and this sandbox."""
    firewall_id: int | None = None
    """The Cloud Firewall that is known to exist with rules inside the allowlist. None: expose nothing."""
    public_names: tuple[str, ...] = ()
    """Addresses and names of the NodeBalancer, addresses first, once there is one."""
    commit: str = ""
    """Commit of the model; empty while the hub was not asked: then nothing of it is created."""
    model_bytes: int | None = None
    """Bytes of the files that are fetched."""
    model_cached: bool = False
    """True once the fetch Job has succeeded: only then does the engine get a replica."""
    sweep: bool = False
    """True once the engine serves the current model while the cache still holds an earlier one."""
    engine_running: bool = False
    """True while a pod of the engine is on a node, which then holds the model volume."""
    hub_endpoint: str = ""
    """Base URL of a mirror of the model hub. Empty: the public hub."""
    hub_networks: tuple[str, ...] = ()
    """Networks of a mirror that is not on the internet."""
    dns_networks: tuple[str, ...] = ()
    """Networks of resolvers that no label of a pod names, such as a cache on each node."""
    operator_namespace: str = ""
    """Where the operator runs: its pods may read the gateway's status port. Empty: nobody may."""


class Stage(enum.IntEnum):
    """Order of writing, closed first; teardown runs in reverse.

    Policies precede every pod, and nothing is exposed before all else stands (I1).
    """

    POLICY = 0
    SECRET = 1
    STORAGE = 2
    SERVICE = 3
    WORKLOAD = 4
    EXPOSURE = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Child:
    """One wanted object of a sandbox."""

    stage: Stage
    manifest: Manifest
    create_only: bool = False
    """True for generated values: written once, never overwritten by a later rendering (I2)."""

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])
